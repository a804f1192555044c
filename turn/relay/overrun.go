package relay

import "sync/atomic"

// overruns counts the datagrams that the kernel dropped because the receive
// buffer of a socket was full.
type overruns struct{ last atomic.Uint64 }

// count asks the kernel, and says what it said last when the socket is closed.
func (o *overruns) count(s *socket) uint64 {
	if n, ok := s.receiveDrops(); ok {
		o.last.Store(n)
	}
	return o.last.Load()
}
