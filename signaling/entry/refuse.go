package entry

import (
	"io"
	"net/http"

	"github.com/turngate/turngate/internal/proxy"
)

// Silence names refusals that are not answered: the connection just ends.
type Silence struct {
	Clients bool // of an address that is not served, instead of 403
	Limit   bool // over MaxPerAddress, instead of 429
	Errors  bool // an upstream's answer that is not 101, instead of relaying it
}

// A Refusal is an answer of ours to a request that goes no further.
type Refusal struct {
	Status int
	Result string // a label for metrics
	Text   string
}

// Refuse answers a handshake with an error of our own, and ends the connection. route is
// "" for a request outside all routes.
func (s *Server[S]) Refuse(w http.ResponseWriter, r *http.Request, route string, no Refusal) {
	s.Result(r, route, no.Result)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	if r.ProtoMajor == 1 {
		h.Set("Connection", "close") // what follows on the connection is not to be trusted
	}
	switch no.Status {
	case http.StatusUpgradeRequired:
		h.Set("Sec-WebSocket-Version", "13")
		if r.ProtoMajor == 1 { // h2 has no such fields
			h.Set("Upgrade", "websocket")
			h["Connection"] = []string{"close", "Upgrade"} // net/http looks at the first only
		}
	case http.StatusMethodNotAllowed:
		h.Set("Allow", http.MethodGet)
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		h.Set("Retry-After", "5")
	}
	w.WriteHeader(no.Status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, no.Text+"\n")
	}
}

// Result notes what became of a handshake.
func (s *Server[S]) Result(r *http.Request, route, result string) {
	s.metrics.handshakes.WithLabelValues(route, result).Inc()
	proxy.TraceOf(r.Context()).End(result)
}

// drop ends the connection (over HTTP/2: the stream) without an answer.
func (s *Server[S]) drop(r *http.Request, route, result string) {
	s.Result(r, route, result)
	panic(http.ErrAbortHandler) // net/http's own way to say nothing more
}
