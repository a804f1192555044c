//go:build !linux

package relay

import "sync"

// loop has a goroutine for each socket.
type loop struct{ wg sync.WaitGroup }

func newLoop() (*loop, error) { return new(loop), nil }

func (l *loop) watch(s *socket, handle func(*batch)) (leave func(), err error) {
	l.wg.Go(func() { _ = s.receive(handle) }) // ends with the socket
	return func() {}, nil
}

func (l *loop) run() {}

func (l *loop) close() {}
