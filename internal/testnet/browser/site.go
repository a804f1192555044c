package browser

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"sync"
	"time"
)

//go:embed testdata
var testdata embed.FS

// site serves the test pages. Loopback over plain http is a secure context, so
// that getUserMedia and everything else works.
type site struct {
	url string
	srv *http.Server
	wg  sync.WaitGroup

	mu    sync.Mutex // guards the field below
	files map[string]string
}

func newSite() (*site, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	pages, err := fs.Sub(testdata, "testdata")
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	s := &site{url: "http://" + ln.Addr().String(), files: map[string]string{}}
	static := http.FileServerFS(pages)
	s.srv = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		file, ok := s.files[r.URL.Path]
		s.mu.Unlock()
		switch {
		case ok:
			http.ServeFile(w, r, file)
		case r.URL.Path == "/favicon.ico":
			w.WriteHeader(http.StatusNoContent)
		default:
			static.ServeHTTP(w, r)
		}
	})}
	s.wg.Go(func() { s.srv.Serve(ln) })
	return s, nil
}

// serve makes the file of this machine available under the path.
func (s *site) serve(path, file string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[path] = file
}

func (s *site) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.srv.Shutdown(ctx) != nil {
		s.srv.Close()
	}
	s.wg.Wait()
}
