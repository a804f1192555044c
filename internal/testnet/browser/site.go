package browser

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"embed"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

//go:embed testdata
var testdata embed.FS

// PageHost is the name of the test pages' server. A proxy at another name under
// example.com is the same site for the browser's cookies, as a company's
// own proxy is.
const PageHost = "app.example.com"

// site serves the test pages over https and under a name: the SDKs refuse the
// camera on plain http, and trtc-js-sdk keeps its reports to itself on
// "localhost" and "127.0.0.1".
type site struct {
	url  string
	addr string // where PageHost is
	cert *x509.Certificate
	srv  *http.Server
	wg   sync.WaitGroup

	mu    sync.Mutex // guards the field below
	files map[string]string
}

func newSite() (*site, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		DNSNames:     []string{PageHost},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pages, err := fs.Sub(testdata, "testdata")
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &site{url: "https://" + PageHost, addr: ln.Addr().String(), cert: cert, files: map[string]string{}}
	static := http.FileServerFS(pages)
	s.srv = &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
	s.srv.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.wg.Go(func() { s.srv.ServeTLS(ln, "", "") })
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
