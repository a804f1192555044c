package proxy

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Balance says in what order the upstreams of a pool are asked.
type Balance int

const (
	// InOrder asks them as they are listed.
	InOrder Balance = iota
	// ByKey gives each key the upstream with the best score for it (rendezvous
	// hashing): every turngate with the same upstreams chooses the same one, and when
	// one goes, its keys spread over the others and no other key moves.
	ByKey
	// LeastConnections asks the one with the fewest connections for its weight.
	LeastConnections
)

// PoolOptions describe a pool.
type PoolOptions struct {
	Targets []Target
	Balance Balance
	Checked bool // active checks are made, see [Upstream.Checked]
}

// A Pool is a list of upstreams, main ones and backups. One failure takes an upstream
// out for ten seconds, then one request tries it again. It may be used from many
// goroutines.
type Pool struct {
	ups     []*Upstream
	balance Balance
	choice  sync.Mutex // one choice at a time, where they count connections
}

// NewPool makes a pool of base URLs in order of preference; there must be at least one.
func NewPool(urls []string) (*Pool, error) { return MakePool(PoolOptions{Targets: Targets(urls...)}) }

// MakePool makes a pool; there must be at least one target, and none twice.
func MakePool(o PoolOptions) (*Pool, error) {
	if len(o.Targets) == 0 {
		return nil, errors.New("no upstream")
	}
	p := &Pool{balance: o.Balance}
	for _, t := range o.Targets {
		u, err := newUpstream(t)
		if err != nil {
			return nil, err
		}
		if p.find(u) != nil {
			return nil, fmt.Errorf("upstream %q is there twice", t.URL)
		}
		u.checked = o.Checked
		p.ups = append(p.ups, u)
	}
	return p, nil
}

func (p *Pool) find(u *Upstream) *Upstream {
	for _, v := range p.ups {
		if v.URI() == u.URI() {
			return v
		}
	}
	return nil
}

// Inherit makes the pool go on with what another one knows about the upstreams they have
// in common. Call it before the pool is used.
func (p *Pool) Inherit(old *Pool) {
	for _, u := range p.ups {
		if same := old.find(u); same != nil {
			u.inherit(same)
		}
	}
}

// Upstreams returns the members as they are listed; do not change the slice.
func (p *Pool) Upstreams() []*Upstream { return p.ups }

// Candidates returns the upstreams to try for one request, each at most once:
// the healthy ones and those whose trial is due, in the order they are listed, then as a
// last resort those that are out.
func (p *Pool) Candidates() []*Upstream {
	now := time.Now()
	order := make([]*Upstream, 0, len(p.ups))
	var out []*Upstream
	for _, u := range p.ups {
		if u.Off {
			continue
		}
		u.health.mu.Lock()
		ok := u.take(now)
		u.health.mu.Unlock()
		if ok {
			order = append(order, u)
		} else {
			out = append(out, u)
		}
	}
	return append(order, out...)
}

// Failed is [Upstream.Failed].
func (p *Pool) Failed(u *Upstream, err error) (changed bool) { return u.Failed(err) }

// Worked is [Upstream.Worked].
func (p *Pool) Worked(u *Upstream) (changed bool) { return u.Worked() }

// A Search finds upstreams for one request, each at most once. It is used by one goroutine.
type Search struct {
	pool *Pool // nil: left as it is
	left []*Upstream
}

// Search begins a search. The key, of the client or of its request, counts in a pool
// that is balanced [ByKey].
func (p *Pool) Search(key string) *Search {
	s := &Search{pool: p, left: make([]*Upstream, 0, len(p.ups))}
	for _, u := range p.ups {
		if !u.Off {
			s.left = append(s.left, u)
		}
	}
	if p.balance == ByKey && len(s.left) > 1 {
		score := make(map[*Upstream]float64, len(s.left))
		for _, u := range s.left {
			score[u] = u.score(key)
		}
		slices.SortStableFunc(s.left, func(a, b *Upstream) int { return cmp.Compare(score[a], score[b]) })
	}
	return s
}

// Listed returns a search that gives these upstreams in this order, whatever their health.
func Listed(ups []*Upstream) *Search { return &Search{left: slices.Clone(ups)} }

// Next returns the next upstream to ask, nil when each has been: main ones before
// backups, and as a last resort those that are out. What was found out since the last
// call counts. The connection is counted until [Upstream.Release].
func (s *Search) Next() *Upstream {
	if len(s.left) == 0 {
		return nil
	}
	if s.pool == nil {
		return s.pick(0)
	}
	if s.pool.balance == LeastConnections {
		s.pool.choice.Lock()
		defer s.pool.choice.Unlock()
		load := make(map[*Upstream]float64, len(s.left))
		for _, u := range s.left {
			load[u] = u.load()
		}
		slices.SortStableFunc(s.left, func(a, b *Upstream) int { return cmp.Compare(load[a], load[b]) })
	}
	now := time.Now()
	for _, backup := range []bool{false, true} {
		for i, u := range s.left {
			if u.Backup != backup {
				continue
			}
			u.health.mu.Lock()
			ok := u.take(now)
			u.health.mu.Unlock()
			if ok {
				return s.pick(i)
			}
		}
	}
	return s.pick(max(0, slices.IndexFunc(s.left, func(u *Upstream) bool { return !u.Backup })))
}

func (s *Search) pick(i int) *Upstream {
	u := s.left[i]
	s.left = slices.Delete(s.left, i, i+1)
	u.health.mu.Lock()
	defer u.health.mu.Unlock()
	u.health.held++
	return u
}

// load is how far the upstream is used, for its weight, with one connection more.
func (u *Upstream) load() float64 {
	u.health.mu.Lock()
	defer u.health.mu.Unlock()
	return float64(u.health.held+1) / float64(u.Weight)
}

// score is the rank of the upstream for a key, the smallest is the best. With x evenly
// spread over (0,1), -ln(x)/weight is the smallest of all with a probability in
// proportion to the weight (C. Schindelhauer and G. Schomaker, "Weighted distributed hash
// tables", 2005).
func (u *Upstream) score(key string) float64 {
	sum := sha256.Sum256([]byte(u.URI() + "\x00" + key))
	x := (float64(binary.BigEndian.Uint64(sum[:])>>11) + 0.5) / (1 << 53)
	return -math.Log(x) / float64(u.Weight)
}
