package relay

import (
	"errors"
	"slices"
	"sync"
)

// Loops read the sockets of listeners and of any number of relays with a few
// goroutines, each of which has one batch: what reading costs in memory does
// not grow with the relays, however busy they are. They start with the first
// socket.
type Loops struct {
	n int

	mu     sync.Mutex // guards the fields below
	loops  []*loop
	next   int
	closed bool
	wg     sync.WaitGroup
}

// NewLoops makes so many loops, one for each core at best.
func NewLoops(n int) *Loops { return &Loops{n: max(1, n)} }

var errLoops = errors.New("relay: loops are closed")

// watch has handle called with what the socket receives, until leave. The
// socket must be open until then.
func (l *Loops) watch(s *socket, handle func(*batch)) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next++
	each, err := l.at(l.next)
	if err != nil {
		return nil, err
	}
	return each.watch(s, handle)
}

// at returns a loop by number; numbers beyond the last begin anew. l.mu is held.
func (l *Loops) at(i int) (*loop, error) {
	if l.closed {
		return nil, errLoops
	}
	for len(l.loops) <= i%l.n {
		next, err := newLoop()
		if err != nil {
			return nil, err
		}
		l.loops = append(l.loops, next)
		l.wg.Go(next.run)
	}
	return l.loops[i%l.n], nil
}

// watchAll watches the sockets of one listener, each on a loop of its own.
func (l *Loops) watchAll(sockets []*socket, handle func(*batch)) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []func()
	leave = func() {
		for _, each := range all {
			each()
		}
	}
	for i, s := range sockets {
		each, err := l.at(i)
		if err == nil {
			var one func()
			if one, err = each.watch(s, handle); err == nil {
				all = append(all, one)
				continue
			}
		}
		leave()
		return nil, err
	}
	return leave, nil
}

// settled returns when the loops have done with what they had read. A loop must
// not call it.
func (l *Loops) settled() {
	l.mu.Lock()
	loops := slices.Clone(l.loops)
	l.mu.Unlock()
	for _, each := range loops {
		each.settled()
	}
}

// Close ends the loops and returns when they have ended. Relays that have
// started hear nothing any more.
func (l *Loops) Close() {
	l.mu.Lock()
	l.closed = true
	for _, each := range l.loops {
		each.close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
