package ports

// set holds ports and gives any of them by index. All operations take constant
// time (Briggs and Torczon, "An efficient representation for sparse sets").
type set struct {
	ports []uint16
	index []uint16 // by port; valid if ports agrees
}

func newSet() set { return set{index: make([]uint16, 1<<16)} }

func (s *set) len() int        { return len(s.ports) }
func (s *set) at(i int) uint16 { return s.ports[i] }

func (s *set) has(p uint16) bool {
	i := int(s.index[p])
	return i < len(s.ports) && s.ports[i] == p
}

func (s *set) add(p uint16) {
	if s.has(p) {
		return
	}
	s.index[p] = uint16(len(s.ports))
	s.ports = append(s.ports, p)
}

func (s *set) remove(p uint16) {
	if !s.has(p) {
		return
	}
	i, tail := s.index[p], s.ports[len(s.ports)-1]
	s.ports[i], s.index[tail] = tail, i
	s.ports = s.ports[:len(s.ports)-1]
}

// list is a queue of ports from which any can be taken out in constant time.
// Port 0 is the anchor of the ring: next[0] is the head, prev[0] the tail.
type list struct {
	next, prev []uint16 // by port
	member     []bool   // by port
	n          int
}

func newList() list {
	return list{next: make([]uint16, 1<<16), prev: make([]uint16, 1<<16), member: make([]bool, 1<<16)}
}

// head returns the port that has been in the list longest, or 0.
func (l *list) head() uint16 { return l.next[0] }

func (l *list) push(p uint16) {
	if l.member[p] {
		return
	}
	tail := l.prev[0]
	l.next[tail], l.prev[p], l.next[p], l.prev[0] = p, tail, 0, p
	l.member[p] = true
	l.n++
}

func (l *list) remove(p uint16) {
	if !l.member[p] {
		return
	}
	before, after := l.prev[p], l.next[p]
	l.next[before], l.prev[after] = after, before
	l.member[p] = false
	l.n--
}
