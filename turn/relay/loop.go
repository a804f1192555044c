package relay

import (
	"errors"
	"sync"
)

// Loops read the sockets of any number of relays with a few goroutines, each of
// which has one batch: what reading costs in memory does not grow with the
// relays, however busy they are. They start with the first relay.
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
	if l.closed {
		return nil, errLoops
	}
	if len(l.loops) < l.n {
		next, err := newLoop()
		if err != nil {
			return nil, err
		}
		l.loops = append(l.loops, next)
		l.wg.Go(next.run)
	}
	l.next++
	return l.loops[l.next%len(l.loops)].watch(s, handle)
}

// Close ends the loops and returns when they have ended. Relays that are still
// pumped hear nothing any more.
func (l *Loops) Close() {
	l.mu.Lock()
	l.closed = true
	for _, each := range l.loops {
		each.close()
	}
	l.mu.Unlock()
	l.wg.Wait()
}
