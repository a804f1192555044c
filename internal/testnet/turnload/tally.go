package main

import (
	"sync"
	"time"
)

// sequence follows the sequence numbers of one flow in one direction.
type sequence struct {
	next uint64 // one above the highest seen
	seen [window / 64]uint64
}

const window = 1024

// see notes a number. fresh is false for one that was seen before; late says
// that a higher one came before it. What is older than the window is taken for
// fresh.
func (s *sequence) see(n uint64) (fresh, late bool) {
	if n >= s.next {
		if n-s.next >= window {
			clear(s.seen[:])
		} else {
			for ; s.next < n; s.next++ {
				s.seen[s.next%window/64] &^= 1 << (s.next % 64)
			}
		}
		s.next = n + 1
		s.seen[n%window/64] |= 1 << (n % 64)
		return true, false
	}
	if s.next-n > window {
		return true, true
	}
	bit := uint64(1) << (n % 64)
	word := &s.seen[n%window/64]
	fresh = *word&bit == 0
	*word |= bit
	return fresh, true
}

// tally is what came out of the relay in one direction during one step.
type tally struct {
	mu          sync.Mutex // guards all below; taken once for a batch
	step        uint32
	flows       []sequence
	delivered   uint64
	duplicated  uint64
	reordered   uint64
	misdirected uint64 // not what was sent, or not to whom
	latency     histogram
	last        int64 // when the last one came, Unix nanoseconds
}

func (t *tally) begin(step uint32, flows int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.step, t.delivered, t.duplicated, t.reordered, t.misdirected, t.last = step, 0, 0, 0, 0, 0
	t.latency = histogram{}
	t.flows = make([]sequence, flows)
}

// count takes one payload that arrived at a time; right says that it came the
// way it should. What belongs to an earlier step is passed over. The caller
// holds the lock.
func (t *tally) count(payload []byte, size int, at int64, right func(flow int) bool) {
	s, ok := parseStamp(payload)
	if ok && s.step != t.step {
		return
	}
	if !ok || len(payload) != size || int(s.flow) >= len(t.flows) || !right(int(s.flow)) {
		t.misdirected++
		return
	}
	t.last = at
	fresh, late := t.flows[s.flow].see(s.seq)
	if !fresh {
		t.duplicated++
		return
	}
	if late {
		t.reordered++
	}
	t.delivered++
	t.latency.add(time.Duration(at - s.due))
}

// so far, for the loop that waits for the last ones.
func (t *tally) soFar() (delivered uint64, last int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.delivered, t.last
}
