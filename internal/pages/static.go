package pages

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed assets
var assets embed.FS

// static serves the files of one page below a path of ours.
type static struct {
	base  string // where the page is, without a final slash
	index string // the file at base itself
	files map[string]file
}

type file struct {
	kind string // Content-Type
	etag string
	data []byte
}

// kinds are the files that are served; the system's table of types may say
// something else, and a browser that is told nosniff would not run the page.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".json": "application/json",
	".svg":  "image/svg+xml",
}

// newStatic takes the files with the given prefixes. In HTML "{{base}}" stands
// for the path of the page.
func newStatic(base, index string, prefixes ...string) *static {
	s := &static{base: strings.TrimRight(base, "/"), index: index, files: make(map[string]file)}
	list, err := fs.ReadDir(assets, "assets")
	if err != nil {
		panic(err) // it is in the program
	}
	for _, entry := range list {
		name := entry.Name()
		if !hasAnyPrefix(name, prefixes) {
			continue
		}
		data, err := assets.ReadFile("assets/" + name)
		if err != nil {
			panic(err)
		}
		if path.Ext(name) == ".html" {
			data = bytes.ReplaceAll(data, []byte("{{base}}"), []byte(s.base))
		}
		sum := sha256.Sum256(data)
		s.files[name] = file{kinds[path.Ext(name)], `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`, data}
	}
	return s
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// serve answers with the file that rest names, what follows base in the path.
func (s *static) serve(w http.ResponseWriter, r *http.Request, rest string) {
	name := strings.TrimPrefix(rest, "/")
	if name == "" {
		name = s.index
	}
	f, ok := s.files[name]
	switch {
	case !ok:
		fail(w, http.StatusNotFound, "not found")
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, "only GET")
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.kind)
	h.Set("Cache-Control", "no-cache") // asks each time, by the tag
	h.Set("ETag", f.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
}

// guard sets what a browser may do with anything of ours: load from here alone,
// run no script but the files, and never be shown within another page. A service
// worker is how the check page learns whether the certificate is really trusted.
func guard(w http.ResponseWriter, connect string) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
		"connect-src 'self'"+connect+"; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for what does not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

// answer writes JSON that nobody keeps.
func answer(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":"the answer has no JSON form"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// fail answers with an error that a page can read.
func fail(w http.ResponseWriter, status int, code string) {
	answer(w, status, map[string]string{"error": code})
}

// read decodes the small JSON body of a request.
func read(w http.ResponseWriter, r *http.Request, in any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	dec.DisallowUnknownFields()
	if err := dec.Decode(in); err != nil && err != io.EOF { // no body is an empty one
		return err
	}
	return nil
}
