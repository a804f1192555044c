package ports

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// model is the contract of Allocator over plain maps and loops.
type model struct {
	min, max    uint16
	rest, retry time.Duration
	now         time.Duration
	order       int // counts returns, to tell the older of two at the same time

	taken   map[uint16]bool
	resting map[uint16]since
	busy    map[uint16]time.Duration // when it may be tried again
}

type since struct {
	at    time.Duration
	order int
}

func (m *model) inside(p uint16) bool { return m.min <= p && p <= m.max }

// rests reports whether the port is still resting.
func (m *model) rests(p uint16) bool {
	s, ok := m.resting[p]
	return ok && m.now < s.at+m.rest
}

func (m *model) free(p uint16) bool {
	return m.inside(p) && !m.taken[p] && m.now >= m.busy[p] && !m.rests(p)
}

func (m *model) usable(p uint16) bool { return m.free(p) || m.inside(p) && !m.taken[p] && m.rests(p) }

// checkTaken says what is wrong with the answer of a Take for one of kind:
// any, even or pair. candidates are the ports that could begin it.
func (m *model) checkTaken(t *testing.T, what string, got uint16, err error, ok func(uint16) bool, pair bool) {
	t.Helper()
	all := func(p uint16, f func(uint16) bool) bool {
		if pair && p == 65535 {
			return false
		}
		return ok(p) && f(p) && (!pair || f(p+1))
	}
	anyFree, anyUsable := false, false
	oldest := since{1 << 62, 0}
	age := func(p uint16) since { // a pair is as old as its younger half
		s := since{-1, -1}
		for _, q := range []uint16{p, p + 1} {
			if r, isResting := m.resting[q]; isResting && m.rests(q) && r.order > s.order {
				s = r
			}
			if !pair {
				break
			}
		}
		return s
	}
	for q := int(m.min); q <= int(m.max); q++ {
		p := uint16(q)
		anyFree = anyFree || all(p, m.free)
		if all(p, m.usable) {
			anyUsable = true
			if s := age(p); !all(p, m.free) && s.order < oldest.order || oldest.at == 1<<62 {
				oldest = s
			}
		}
	}
	switch {
	case err != nil && anyUsable:
		t.Fatalf("%s: %v although a port is left", what, err)
	case err != nil:
		return
	case !all(got, m.usable):
		t.Fatalf("%s: port %d cannot be handed out", what, got)
	case anyFree && !all(got, m.free):
		t.Fatalf("%s: port %d is resting although another is free", what, got)
	case !anyFree && !pair && age(got).at != oldest.at:
		t.Fatalf("%s: port %d has rested since %+v, another since %+v", what, got, age(got), oldest)
	}
	m.take(got)
	if pair {
		m.take(got + 1)
	}
}

func (m *model) take(p uint16) {
	m.taken[p] = true
	delete(m.resting, p)
	delete(m.busy, p)
}

func FuzzAllocatorAgainstModel(f *testing.F) {
	f.Add([]byte{10, 0, 0, 0, 1, 2, 3, 0, 4, 0, 1, 2, 3, 5, 6, 7, 0, 0, 0, 3, 3, 3, 0, 0, 1, 1, 2, 2})
	f.Add([]byte{3, 1, 2, 2, 2, 3, 0, 3, 1, 5, 40, 2, 2, 6, 3, 9, 0, 0, 0, 7, 4, 0, 0})
	f.Add([]byte{40, 5, 2, 3, 0, 3, 0, 2, 3, 1, 3, 0, 2, 2, 2, 2, 2, 2, 3, 5, 3, 2, 2, 2, 0, 0, 0, 0, 1, 1, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		synctest.Test(t, func(t *testing.T) { againstModel(t, data) })
	})
}

func againstModel(t *testing.T, data []byte) {
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	const base = 65400 // so that ranges reach the last port
	m := &model{
		min: base + uint16(next()%8), rest: 30 * time.Second, retry: 10 * time.Second,
		taken: map[uint16]bool{}, resting: map[uint16]since{}, busy: map[uint16]time.Duration{},
	}
	m.max = uint16(min(int(m.min)+next()%40+next()%2*200, 65535))
	a, err := New(Options{Min: m.min, Max: m.max, Rest: m.rest, Retry: m.retry})
	if err != nil {
		t.Fatal(err)
	}
	for len(data) > 0 {
		switch next() % 8 {
		case 0:
			p, err := a.Take()
			m.checkTaken(t, "Take", p, err, func(uint16) bool { return true }, false)
		case 1:
			p, err := a.TakeEven()
			m.checkTaken(t, "TakeEven", p, err, func(p uint16) bool { return p%2 == 0 }, false)
		case 2:
			p, err := a.TakePair()
			m.checkTaken(t, "TakePair", p, err, func(p uint16) bool { return p%2 == 0 }, true)
		case 3, 4:
			p, ok := m.oneTaken(next())
			if !ok {
				continue
			}
			if next()%4 == 0 {
				a.Busy(p)
				if delete(m.taken, p); m.inside(p) {
					m.busy[p] = m.now + m.retry
				}
			} else {
				a.Return(p)
				if delete(m.taken, p); m.inside(p) {
					m.order++
					m.resting[p] = since{m.now, m.order}
				}
			}
		case 5:
			d := time.Duration(next()%45) * time.Second
			time.Sleep(d) // of the bubble's clock
			m.now += d
		case 6:
			lo := base + uint16(next()%64)
			hi := uint16(min(int(lo)+next()%64, 65535))
			if err := a.Resize(lo, hi); err != nil {
				t.Fatal(err)
			}
			m.min, m.max = lo, hi
			for p := range m.resting {
				if !m.inside(p) {
					delete(m.resting, p)
				}
			}
			for p := range m.busy {
				if !m.inside(p) {
					delete(m.busy, p)
				}
			}
		case 7:
			p := base + uint16(next()%136)
			err := a.Claim(p)
			if (err != nil) != m.taken[p] {
				t.Fatalf("Claim(%d): %v, taken %v", p, err, m.taken[p])
			}
			m.take(p)
		}
		m.compare(t, a.Stats())
	}
}

// oneTaken picks a taken port in a way that a fuzz input repeats.
func (m *model) oneTaken(n int) (uint16, bool) {
	var all []uint16
	for p := range m.taken {
		all = append(all, p)
	}
	if len(all) == 0 {
		return 0, false
	}
	slices.Sort(all)
	return all[n%len(all)], true
}

func (m *model) compare(t *testing.T, got Stats) {
	t.Helper()
	want := Stats{Size: int(m.max) - int(m.min) + 1, Taken: len(m.taken)}
	for q := int(m.min); q <= int(m.max); q++ {
		switch p := uint16(q); {
		case m.taken[p]:
		case m.free(p):
			want.Free++
		case m.rests(p):
			want.Free++
			want.Resting++
		default:
			want.Busy++
		}
	}
	if got != want {
		t.Fatalf("stats %+v, want %+v", got, want)
	}
}
