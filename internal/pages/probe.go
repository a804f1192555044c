package pages

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// ProbeParameter marks a request of the check page on a route: it is the name
// of a parameter of the query, taken away before the request goes on.
const ProbeParameter = "turngate-check"

const (
	maxProbes = 256 // of one session
	probeWait = 15 * time.Second
)

// Probe is a request that the check page made on a route.
type Probe struct {
	ended  chan struct{}
	result Result
}

// Result is what became of a probe.
type Result struct {
	Arrived  bool   `json:"arrived"`            // the request reached this host
	Ended    bool   `json:"ended"`              // and was answered
	Status   int    `json:"status,omitempty"`   // of the answer; 101 is a WebSocket
	Outcome  string `json:"outcome,omitempty"`  // why it went no further, in a word of ours
	Upstream string `json:"upstream,omitempty"` // the one that was asked last
}

// Probe returns the probe that a query (with its question mark) marks, and the
// query without the mark; nil when it marks none of ours. A number counts once.
func (t *Tickets) Probe(query string) (*Probe, string) {
	if !strings.Contains(query, ProbeParameter+"=") {
		return nil, query
	}
	rest, mark := cutParameter(query)
	key, number, _ := strings.Cut(mark, ".")
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return nil, query
	}
	t.mu.Lock()
	s := t.probes[key]
	t.mu.Unlock()
	if s == nil || !time.Now().Before(s.Expires) {
		return nil, query
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.probes[int(n)] != nil || len(s.probes) >= maxProbes {
		return nil, rest
	}
	p := &Probe{ended: make(chan struct{})}
	s.probes[int(n)] = p
	return p, rest
}

// cutParameter takes the mark out of a query.
func cutParameter(query string) (rest, mark string) {
	var kept []string
	for pair := range strings.SplitSeq(strings.TrimPrefix(query, "?"), "&") {
		if value, ok := strings.CutPrefix(pair, ProbeParameter+"="); ok {
			mark = value
			continue
		}
		kept = append(kept, pair)
	}
	if len(kept) == 0 {
		return "", mark
	}
	return "?" + strings.Join(kept, "&"), mark
}

// End says what became of the request; it is called once.
func (p *Probe) End(r Result) {
	r.Arrived, r.Ended = true, true
	p.result = r
	close(p.ended)
}

// result returns what became of probe n, and waits for its end for a while.
func (s *Session) result(ctx context.Context, n int) Result {
	s.mu.Lock()
	p := s.probes[n]
	s.mu.Unlock()
	if p == nil {
		return Result{}
	}
	late := time.NewTimer(probeWait)
	defer late.Stop()
	select {
	case <-p.ended:
		return p.result
	case <-late.C:
	case <-ctx.Done():
	}
	return Result{Arrived: true}
}
