package proxy

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// resolver turns names into addresses. Each dial asks anew unless the answer is
// younger than fresh. While DNS is down or slow the last good addresses serve:
// the certificate check makes a stale address harmless.
type resolver struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	now    func() time.Time

	mu    sync.Mutex // guards names
	names map[string]*dnsName
}

const (
	dnsFresh     = 5 * time.Second  // how long an answer is used without asking
	dnsRetry     = 1 * time.Second  // how long a failure is
	dnsPatience  = 1 * time.Second  // how long a dial waits before it takes stale addresses
	dnsTimeout   = 5 * time.Second  // one lookup
	dnsStale     = 24 * time.Hour   // how long the last good addresses serve
	dnsMaxNames  = 1024             // names remembered
	dnsPoolDepth = 10 * time.Minute // how long an address counts as one of the name's after its last sight
)

type dnsName struct {
	addrs    []netip.Addr // last good answer
	good     time.Time    // when
	asked    time.Time    // end of the last lookup, good or not
	err      error        // of the last lookup
	inFlight chan struct{}
	seen     map[netip.Addr]time.Time // answers of the last minutes
	moves    uint64                   // times the whole set changed
}

func newResolver(lookup func(context.Context, string) ([]netip.Addr, error)) *resolver {
	if lookup == nil {
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	return &resolver{lookup: lookup, now: time.Now, names: make(map[string]*dnsName)}
}

// resolve returns the addresses of a name. The slice is shared: do not change it.
func (r *resolver) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	n := r.name(host)
	now := r.now()
	if n.inFlight == nil {
		if n.err == nil && n.addrs != nil && now.Sub(n.good) < dnsFresh {
			defer r.mu.Unlock()
			return n.addrs, nil
		}
		if n.err != nil && now.Sub(n.asked) < dnsRetry {
			defer r.mu.Unlock()
			return n.result(now)
		}
		r.ask(ctx, host, n)
	}
	done := n.inFlight
	stale := n.addrs != nil && now.Sub(n.good) < dnsStale
	r.mu.Unlock()

	var patience <-chan time.Time
	if stale {
		t := time.NewTimer(dnsPatience)
		defer t.Stop()
		patience = t.C
	}
	select {
	case <-done:
	case <-patience:
	case <-ctx.Done():
		if !stale {
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return n.result(r.now())
}

// refresh asks for a name in the background when its answer is no longer fresh,
// and returns how often the whole set of addresses has changed.
func (r *resolver) refresh(host string) (moves uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.name(host)
	if n.inFlight == nil && r.now().Sub(n.asked) >= dnsFresh {
		r.ask(context.Background(), host, n)
	}
	return n.moves
}

func (n *dnsName) result(now time.Time) ([]netip.Addr, error) {
	if n.addrs != nil && now.Sub(n.good) < dnsStale {
		return n.addrs, nil
	}
	if n.err != nil {
		return nil, n.err
	}
	return nil, &net.DNSError{Err: "no answer in time", IsTimeout: true}
}

// name returns the entry of a host; the caller holds mu.
func (r *resolver) name(host string) *dnsName {
	n := r.names[host]
	if n != nil {
		return n
	}
	if len(r.names) >= dnsMaxNames {
		for old, o := range r.names { // any one: whoever fills the table asks for random names
			if o.inFlight == nil {
				delete(r.names, old)
				break
			}
		}
	}
	n = &dnsName{}
	r.names[host] = n
	return n
}

// ask starts a lookup that outlives the dial that wanted it; the caller holds mu.
func (r *resolver) ask(ctx context.Context, host string, n *dnsName) {
	done := make(chan struct{})
	n.inFlight = done
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dnsTimeout)
	go func() { // ends with the lookup, at most dnsTimeout; waiters hold done
		defer cancel()
		addrs, err := r.lookup(ctx, host)
		if err == nil && len(addrs) == 0 {
			err = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
		}
		r.mu.Lock()
		n.store(addrs, err, r.now())
		n.inFlight = nil
		r.mu.Unlock()
		close(done)
	}()
}

func (n *dnsName) store(addrs []netip.Addr, err error, now time.Time) {
	n.asked, n.err = now, err
	if err != nil {
		return
	}
	clean := make([]netip.Addr, 0, len(addrs))
	for _, a := range addrs {
		if a = a.Unmap(); !slices.Contains(clean, a) {
			clean = append(clean, a)
		}
	}
	// A pool of addresses that rotates is no move; a set that shares nothing
	// with the answers of the last minutes is one.
	known := len(n.seen) == 0
	for a, at := range n.seen {
		if now.Sub(at) > dnsPoolDepth {
			delete(n.seen, a)
		} else if slices.Contains(clean, a) {
			known = true
		}
	}
	if !known {
		n.moves++
		clear(n.seen)
	}
	if n.seen == nil {
		n.seen = make(map[netip.Addr]time.Time)
	}
	for _, a := range clean {
		n.seen[a] = now
	}
	n.addrs, n.good = clean, now
}
