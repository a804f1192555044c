package pages

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// Status is the status page with its API, GET /data. It shows what the admin
// socket shows, without sessions, and changes nothing.
type Status struct {
	files    *static
	recorder *Recorder
	status   func() any
}

// NewStatus returns the page; status is what it shows beside the samples.
func NewStatus(recorder *Recorder, status func() any) *Status {
	return &Status{newStatic("", "status.html", "status", "icon", "text"), recorder, status}
}

// ServeHTTP implements http.Handler.
func (s *Status) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	guard(w, "")
	switch {
	case !local(r.Host):
		fail(w, http.StatusMisdirectedRequest, "this page is at an address, or localhost")
	case r.URL.Path != "/data":
		s.files.serve(w, r, r.URL.Path)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		fail(w, http.StatusMethodNotAllowed, "only GET")
	default:
		answer(w, http.StatusOK, struct {
			Now     time.Time `json:"now"`
			Every   int64     `json:"every"` // ms
			Status  any       `json:"status"`
			Samples []Sample  `json:"samples"`
		}{time.Now().UTC(), sampleEvery.Milliseconds(), s.status(), s.recorder.Samples()})
	}
}

// local reports whether a Host header is an address or localhost. A name of
// somebody else's that leads to a loopback address would let his page read ours
// (DNS rebinding).
func local(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return true
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}
