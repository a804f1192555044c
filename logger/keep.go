package logger

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/logger/spool"
)

// A kept request is one whose upstream is away, and which is answered by us: a report goes to
// the disk, a preflight for one is allowed. Everything else fails as without a spool.

// awayStatus reports whether an answer says that the upstream is away.
func awayStatus(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

// keep answers a request whose upstream is away and reports whether it did. body is nil when it was
// not read whole. Where last is false, the upstream is asked otherwise.
func (s *Server) keep(rt *route, pool *proxy.Pool, w http.ResponseWriter, r *http.Request, body []byte, rest, query string, last bool) bool {
	if rt.spool == 0 || r.Context().Err() != nil { // a client that left was told nothing, and sends again
		return false
	}
	if preflight(r) {
		s.allow(rt, w, r)
		return true
	}
	if r.Method != http.MethodPost || body == nil {
		return false
	}
	sp := rt.spools[pool]
	if sp == nil {
		return false
	}
	if !sp.away.Swap(true) && sp.toSay("away") {
		s.log.Warn("upstream away, reports are spooled", "route", rt.name, "dir", sp.dir)
	}
	if err := sp.put(newReport(rt.headers.Request(r), rest, query, body)); err != nil {
		if !last {
			return false
		}
		reason := "disk"
		if errors.Is(err, spool.ErrFull) {
			reason = "full"
		}
		sp.complain(reason, err)
		s.metrics.spoolDropped.WithLabelValues(rt.name, reason).Inc()
		return false
	}
	s.metrics.spooled.WithLabelValues(rt.name).Inc()
	s.metrics.requests.WithLabelValues(rt.name, "spooled").Inc()
	h := w.Header()
	readable(h, r)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	proxy.TraceOf(r.Context()).End("spooled")
	w.WriteHeader(rt.spoolStatus)
	if rt.spoolStatus != http.StatusNoContent && rt.spoolStatus != http.StatusResetContent {
		_, _ = io.WriteString(w, "ok") // what the collector answers, and the TRTC SDK compares
	}
	return true
}

// back notes that the upstreams of a pool answer.
func (s *Server) back(rt *route, pool *proxy.Pool) {
	if sp := rt.spools[pool]; sp != nil && sp.away.Load() {
		sp.away.Store(false)
	}
}

// away reports whether a request need not be tried: its upstreams did not answer, and the
// spool asks them all the time.
func (s *Server) away(rt *route, pool *proxy.Pool, r *http.Request, body []byte) bool {
	sp := rt.spools[pool]
	return rt.spool > 0 && sp != nil && sp.away.Load() && (r.Method == http.MethodPost && body != nil || preflight(r))
}

// preflight reports whether a browser asks if it may send a report (Fetch standard, CORS-preflight).
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") == http.MethodPost
}

// allow answers a preflight as the collector would.
func (s *Server) allow(rt *route, w http.ResponseWriter, r *http.Request) {
	s.metrics.requests.WithLabelValues(rt.name, "preflight").Inc()
	h := w.Header()
	readable(h, r)
	h.Set("Access-Control-Allow-Methods", http.MethodPost)
	if names := fieldNames(r.Header["Access-Control-Request-Headers"]); names != "" {
		h.Set("Access-Control-Allow-Headers", names)
	}
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// readable lets the page read an answer of ours. Its Origin is one that the route allows.
func readable(h http.Header, r *http.Request) {
	h.Add("Vary", "Origin")
	if origin := r.Header.Get("Origin"); origin != "" && proxy.ValidValue(origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// fieldNames returns the field names of a list that are such.
func fieldNames(values []string) string {
	var names []string
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			if name = strings.TrimSpace(name); proxy.ValidName(name) && len(names) < 32 {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ", ")
}
