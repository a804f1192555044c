package relay

import (
	"cmp"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop waits for many sockets with one epoll, which itself waits in the Go
// runtime's poller.
type loop struct {
	epoll  *os.File
	raw    syscall.RawConn
	batch  *batch
	events [64]unix.EpollEvent
	ready  int

	mu      sync.Mutex // guards the fields below
	watched map[int32]watched
	last    int32
}

type watched struct {
	s      *socket
	handle func(*batch)
}

func newLoop() (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for the runtime's poller
		unix.Close(fd)
		return nil, fmt.Errorf("epoll: %w", err)
	}
	l := &loop{epoll: os.NewFile(uintptr(fd), "epoll"), batch: newBatch(), watched: make(map[int32]watched)}
	if l.raw, err = l.epoll.SyscallConn(); err != nil {
		l.epoll.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

func (l *loop) watch(s *socket, handle func(*batch)) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.last++; ; l.last++ {
		if _, taken := l.watched[l.last]; !taken {
			break
		}
	}
	id := l.last
	if err := l.control(unix.EPOLL_CTL_ADD, s, id); err != nil {
		return nil, err
	}
	l.watched[id] = watched{s, handle}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		_ = l.control(unix.EPOLL_CTL_DEL, s, id) // it may have ended with the socket
		delete(l.watched, id)
	}, nil
}

func (l *loop) control(op int, s *socket, id int32) error {
	var closed, failed error
	err := l.raw.Control(func(epoll uintptr) {
		closed = s.raw.Control(func(fd uintptr) {
			failed = unix.EpollCtl(int(epoll), op, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: id})
		})
	})
	return cmp.Or(err, closed, failed)
}

// run serves until close.
func (l *loop) run() {
	read := func(fd uintptr) bool {
		l.batch.read(fd)
		return true
	}
	for wait := l.wait; l.raw.Read(wait) == nil; {
		for _, e := range l.events[:l.ready] {
			l.mu.Lock()
			w, ok := l.watched[e.Fd]
			l.mu.Unlock()
			if !ok || w.s.raw.Read(read) != nil || l.batch.failed == unix.EAGAIN {
				continue // it has just ended, or nothing is left of it
			}
			l.batch.pass(w.s, w.handle)
		}
	}
}

// wait asks which sockets have something, and reports false when none has.
func (l *loop) wait(fd uintptr) bool {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
		switch err {
		case 0:
			l.ready = int(n)
			return n > 0
		case unix.EINTR:
		default:
			l.ready = 0
			return false
		}
	}
}

func (l *loop) close() { l.epoll.Close() }
