package relay

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loop waits for many sockets with one epoll, which itself waits in the Go
// runtime's poller. The sockets do not: that would wake it once more for each
// datagram, and for each that was sent.
type loop struct {
	epoll  *os.File
	raw    syscall.RawConn
	batch  *batch
	events [64]unix.EpollEvent
	ready  []watched // of this turn
	more   []watched // of which there may be more to read

	turning sync.Mutex // held during a turn

	mu      sync.Mutex // guards the fields below
	watched []watched  // by event
	free    []int32    // of watched
	turns   int32
}

type watched struct {
	s      *socket // nil: nothing
	handle func(*batch)
	since  int32 // tells it from what was there before
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
	l := &loop{epoll: os.NewFile(uintptr(fd), "epoll"), batch: newBatch()}
	if l.raw, err = l.epoll.SyscallConn(); err != nil {
		l.epoll.Close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

// watch has handle called with what the socket receives, until leave.
func (l *loop) watch(s *socket, handle func(*batch)) (leave func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		l.free = append(l.free, int32(len(l.watched)))
		l.watched = append(l.watched, watched{})
	}
	id := l.free[len(l.free)-1]
	l.turns++
	// An event comes once for what has arrived since the last: a turn reads
	// until there is nothing.
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: id, Pad: l.turns}
	if err := l.control(unix.EPOLL_CTL_ADD, s, &event); err != nil {
		return nil, err
	}
	l.free = l.free[:len(l.free)-1]
	l.watched[id] = watched{s, handle, event.Pad}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.watched[id].since != event.Pad {
			return
		}
		_ = l.control(unix.EPOLL_CTL_DEL, s, nil) // it may have ended with the loop
		l.watched[id] = watched{}
		l.free = append(l.free, id)
	}, nil
}

func (l *loop) control(op int, s *socket, event *unix.EpollEvent) (err error) {
	closed := l.raw.Control(func(epoll uintptr) {
		err = s.with(func(fd int) error { return unix.EpollCtl(int(epoll), op, fd, event) })
	})
	if closed != nil {
		return closed
	}
	return err
}

// run serves until close.
func (l *loop) run() {
	for l.raw.Read(l.serve) == nil {
	}
}

// serve reads and sends until there is nothing to read. It reports false then,
// to be called again when there is: what arrives meanwhile is told to the
// runtime's poller too, so it need not be looked for here.
func (l *loop) serve(epoll uintptr) bool {
	for {
		n := l.wait(epoll)
		if n == 0 && len(l.more) == 0 {
			return false
		}
		l.turn(l.events[:n])
		if n < len(l.events) && len(l.more) == 0 {
			return false
		}
	}
}

// wait asks which sockets have something.
func (l *loop) wait(epoll uintptr) int {
	for {
		n, _, err := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
		switch err {
		case 0:
			return int(n)
		case unix.EINTR:
		default:
			time.Sleep(time.Millisecond) // what stays must not spin
			return 0
		}
	}
}

// turn reads what is there for some sockets, and sends.
func (l *loop) turn(events []unix.EpollEvent) {
	l.turning.Lock()
	defer l.turning.Unlock()
	l.ready = append(l.ready[:0], l.more...)
	l.more = l.more[:0]
	l.mu.Lock()
	for i := range events {
		if w := &l.watched[events[i].Fd]; w.s != nil && w.since == events[i].Pad {
			l.ready = append(l.ready, *w)
		}
	}
	l.mu.Unlock()
	for i := range l.ready {
		w := &l.ready[i]
		if l.batch.read(w.s, w.handle) {
			l.more = append(l.more, *w)
		}
	}
	l.batch.flush()
	clear(l.ready) // lets go of what has ended
}

// settled returns when the turn that is under way has ended.
func (l *loop) settled() {
	l.turning.Lock()
	defer l.turning.Unlock()
}

func (l *loop) close() { l.epoll.Close() }
