// Package ports hands out the relay ports of one relayed address.
//
// It is exact: a range of N ports serves N allocations, and the next request
// fails. A search by trial (bind a random port, try again ten times) already
// fails at nine tenths of the range, and then reports as full what is not.
//
// A port is in one of these states:
//
//	free      may be handed out; which one is chosen by crypto/rand
//	resting   given back not long ago: a peer of the former owner may still
//	          send to it, so it is handed out only when nothing is free,
//	          the longest rested first
//	busy      another program held it when the caller tried to bind it; it
//	          is free again after a while
//	taken     handed out
//
// An Allocator knows port numbers, not addresses: use one for each relayed IP
// address, whose port spaces have nothing to do with each other.
package ports

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrExhausted says that no port of the wanted kind is left. RFC 8656 section
// 7.2 answers it with 508.
var ErrExhausted = errors.New("no relay port left")

// Options configure an Allocator.
type Options struct {
	// Min and Max bound the range; both are part of it.
	Min, Max uint16

	// Rest is how long a port that came back is handed out only if nothing
	// else is free. Zero means 30 s, negative means not at all.
	Rest time.Duration

	// Retry is how long a busy port is left alone. Zero means 10 s.
	Retry time.Duration
}

const (
	defaultRest  = 30 * time.Second
	defaultRetry = 10 * time.Second
)

// Allocator hands out ports. Its methods may be called at once. Taking and
// giving back cost the same in a range of any size.
type Allocator struct {
	rest, retry time.Duration
	start       time.Time
	pick        func(n int) int // random in [0,n); fixed after New

	mu       sync.Mutex // guards the fields below
	min, max uint16
	state    []state // by port
	taken    int
	due      []time.Duration // by port: end of rest or retry, since start

	free    [2]set  // even and odd ports
	resting [2]list // the same, oldest first
	busy    list    // oldest first

	// The even ports of pairs that could be handed out together.
	freePairs    set  // both are free
	restingPairs list // at least one is resting; the longest complete first
}

type state uint8

const (
	absent state = iota // outside the range, and not taken
	free
	resting
	busy
	taken
)

// New returns an allocator with every port of the range free.
func New(o Options) (*Allocator, error) {
	a := &Allocator{rest: o.Rest, retry: o.Retry, start: time.Now(), pick: pick}
	switch {
	case o.Rest == 0:
		a.rest = defaultRest
	case o.Rest < 0:
		a.rest = 0
	}
	if a.retry <= 0 {
		a.retry = defaultRetry
	}
	a.state = make([]state, 1<<16)
	a.due = make([]time.Duration, 1<<16)
	for i := range 2 {
		a.free[i], a.resting[i] = newSet(), newList()
	}
	a.busy, a.freePairs, a.restingPairs = newList(), newSet(), newList()
	a.min, a.max = 1, 0 // the empty range that Resize starts from
	if err := a.Resize(o.Min, o.Max); err != nil {
		return nil, err
	}
	return a, nil
}

// Take hands out one port, or returns ErrExhausted.
// The caller gives it back with Return, or with Busy if it could not be bound.
func (a *Allocator) Take() (uint16, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle()
	even, odd := a.free[0].len(), a.free[1].len()
	if even+odd > 0 {
		i := a.pick(even + odd)
		if i < even {
			return a.take(a.free[0].at(i)), nil
		}
		return a.take(a.free[1].at(i - even)), nil
	}
	e, o := a.resting[0].head(), a.resting[1].head()
	switch {
	case e == 0 && o == 0:
		return 0, ErrExhausted
	case o == 0, e != 0 && a.due[e] <= a.due[o]:
		return a.take(e), nil
	default:
		return a.take(o), nil
	}
}

// TakeEven hands out one even port (EVEN-PORT without the R bit, RFC 8656
// section 18.7), or returns ErrExhausted.
func (a *Allocator) TakeEven() (uint16, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle()
	if n := a.free[0].len(); n > 0 {
		return a.take(a.free[0].at(a.pick(n))), nil
	}
	if p := a.resting[0].head(); p != 0 {
		return a.take(p), nil
	}
	return 0, ErrExhausted
}

// TakePair hands out an even port and the port above it (EVEN-PORT with the R
// bit); it returns the even one. Each is given back on its own.
func (a *Allocator) TakePair() (even uint16, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle()
	if n := a.freePairs.len(); n > 0 {
		even = a.freePairs.at(a.pick(n))
	} else if even = a.restingPairs.head(); even == 0 {
		return 0, ErrExhausted
	}
	a.take(even)
	a.take(even + 1)
	return even, nil
}

// Claim takes one particular port: the relayed address of an allocation that
// is being restored. The port need not be in the range.
func (a *Allocator) Claim(port uint16) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if port == 0 {
		return errors.New("relay port 0")
	}
	if a.state[port] == taken {
		return fmt.Errorf("relay port %d: already taken", port)
	}
	a.take(port)
	return nil
}

// Return gives a taken port back. A port that is not taken is left as it is.
func (a *Allocator) Return(port uint16) {
	a.giveBack(port, resting, a.rest)
}

// Busy gives back a taken port that could not be bound, because another
// program has it. It is not handed out again before the retry time is over,
// so a caller may go on with the next Take until ErrExhausted.
func (a *Allocator) Busy(port uint16) {
	a.giveBack(port, busy, a.retry)
}

func (a *Allocator) giveBack(port uint16, to state, wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state[port] != taken {
		return
	}
	switch {
	case !a.inside(port):
		to = absent
	case wait == 0:
		to = free
	}
	a.due[port] = time.Since(a.start) + wait
	a.move(port, to)
}

// Resize changes the range. Ports outside the new one that are taken stay
// valid until they are returned.
func (a *Allocator) Resize(min, max uint16) error {
	if min == 0 || min > max {
		return fmt.Errorf("relay ports %d to %d are no range", min, max)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.min, a.max = min, max
	for p := 1; p < 1<<16; p++ {
		port := uint16(p)
		switch s := a.state[port]; {
		case s == taken:
		case a.inside(port) && s == absent:
			a.move(port, free)
		case !a.inside(port) && s != absent:
			a.move(port, absent)
		}
	}
	return nil
}

// Stats counts the ports by state.
type Stats struct {
	Size    int // of the range
	Free    int // could be handed out now: free and resting
	Resting int // of those, given back not long ago
	Busy    int // held by another program
	Taken   int // handed out; after Resize also ports outside the range
}

// Stats returns the current counts.
func (a *Allocator) Stats() Stats {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.settle()
	s := Stats{
		Size:    int(a.max) - int(a.min) + 1,
		Resting: a.resting[0].n + a.resting[1].n,
		Busy:    a.busy.n,
		Taken:   a.taken,
	}
	s.Free = a.free[0].len() + a.free[1].len() + s.Resting
	return s
}

func (a *Allocator) inside(port uint16) bool { return a.min <= port && port <= a.max }

// settle frees what has rested and what may be tried again.
func (a *Allocator) settle() {
	now := time.Since(a.start)
	for _, l := range []*list{&a.resting[0], &a.resting[1], &a.busy} {
		for p := l.head(); p != 0 && a.due[p] <= now; p = l.head() {
			a.move(p, free)
		}
	}
}

func (a *Allocator) take(port uint16) uint16 {
	a.move(port, taken)
	return port
}

// move is the only place where a port changes its state.
func (a *Allocator) move(port uint16, to state) {
	odd := port & 1
	switch a.state[port] {
	case free:
		a.free[odd].remove(port)
	case resting:
		a.resting[odd].remove(port)
	case busy:
		a.busy.remove(port)
	case taken:
		a.taken--
	}
	a.state[port] = to
	switch to {
	case free:
		a.free[odd].add(port)
	case resting:
		a.resting[odd].push(port)
	case busy:
		a.busy.push(port)
	case taken:
		a.taken++
	}
	if even := port &^ 1; even != 0 {
		a.pair(even)
	}
}

// pair brings the lists of pairs in line after a change to one of the two.
func (a *Allocator) pair(even uint16) {
	one, two := a.state[even], a.state[even+1]
	bothFree := one == free && two == free
	both := (one == free || one == resting) && (two == free || two == resting)
	if bothFree {
		a.freePairs.add(even)
	} else {
		a.freePairs.remove(even)
	}
	if both && !bothFree {
		a.restingPairs.push(even) // stays where it is if it is there
	} else {
		a.restingPairs.remove(even)
	}
}

// pick is random in [0,n). The remainder of 64 bits by at most 65536 is as
// even as anyone could tell.
func pick(n int) int {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return int(binary.LittleEndian.Uint64(b[:]) % uint64(n))
}
