package edge

import (
	"container/list"
	"net/netip"
	"sync"
)

// waiting holds the connections whose peers have not proved themselves, the oldest
// first. Where a bound is reached the oldest makes room: who speaks a protocol of
// ours is through in a moment, so it is those who stall that are pushed out, and a
// stranger who stalls a thousand connections keeps nobody out, not even those
// behind his own address.
type waiting struct {
	mu             sync.Mutex // guards the fields below
	max, perSource int        // 0: no bound
	all            *list.List // of *waiter
	bySource       map[netip.Prefix]*list.List
}

// waiter is the place of one connection.
type waiter struct {
	out    func(why reason) // called once if it is pushed out, without locks; must not block
	source netip.Prefix
	in     *list.Element // of all; nil: not there
	of     *list.Element // of its source; nil: not counted, or not known yet
}

func newWaiting(max, perSource int) *waiting {
	return &waiting{max: max, perSource: perSource, all: list.New(), bySource: make(map[netip.Prefix]*list.List)}
}

// set changes the bounds; whoever is above a lowered one stays until somebody comes.
func (q *waiting) set(max, perSource int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.max, q.perSource = max, perSource
}

func (q *waiting) count() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.all.Len()
}

// enter lets w in.
func (q *waiting) enter(w *waiter) {
	q.mu.Lock()
	var oldest *waiter
	if q.max > 0 && q.all.Len() >= q.max {
		oldest = q.all.Front().Value.(*waiter)
		q.remove(oldest)
	}
	w.in = q.all.PushBack(w)
	q.mu.Unlock()
	if oldest != nil {
		oldest.out(tooManyHalfOpen)
	}
}

// countSource counts w for a source too.
func (q *waiting) countSource(w *waiter, source netip.Prefix) {
	q.mu.Lock()
	if w.in == nil { // pushed out meanwhile
		q.mu.Unlock()
		return
	}
	l := q.bySource[source]
	if l == nil {
		l = list.New()
		q.bySource[source] = l
	}
	var oldest *waiter
	if q.perSource > 0 && l.Len() >= q.perSource {
		oldest = l.Front().Value.(*waiter)
		q.remove(oldest)
		q.bySource[source] = l // if that was the last one
	}
	w.source, w.of = source, l.PushBack(w)
	q.mu.Unlock()
	if oldest != nil {
		oldest.out(tooManyHalfOpenOfSource)
	}
}

// leave takes w out, if it is there.
func (q *waiting) leave(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.remove(w)
}

// remove is leave for who holds mu.
func (q *waiting) remove(w *waiter) {
	if w.in != nil {
		q.all.Remove(w.in)
		w.in = nil
	}
	if w.of != nil {
		l := q.bySource[w.source]
		l.Remove(w.of)
		w.of = nil
		if l.Len() == 0 {
			delete(q.bySource, w.source)
		}
	}
}
