//go:build !linux

package relay

import "sync"

// loop has a goroutine for each socket.
type loop struct{ wg sync.WaitGroup }

func newLoop() (*loop, error) { return new(loop), nil }

func (l *loop) watch(s *socket, handle func(*batch)) (leave func(), err error) {
	l.wg.Go(func() { s.receive(handle) }) // ends with the socket
	return func() {}, nil
}

func (l *loop) run() {}

// settled does nothing: what a socket had received is handled beside.
func (l *loop) settled() {}

func (l *loop) close() {}
