package poller

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// A Loop calls Handlers when their connections are ready. All of them run on
// its goroutine, between Run and Close.
type Loop struct {
	epoll  *os.File // waits in the Go runtime's poller: an epoll can be polled itself
	raw    syscall.RawConn
	fd     int // of epoll
	wakeFD int // an eventfd, for Wake and Close

	events [128]syscall.EpollEvent
	ready  []Handler // of one wait
	more   []Handler // that have more to do
	buf    [BufferSize]byte

	mu     sync.Mutex // guards the fields below
	conns  []*Conn    // by descriptor
	woken  []Handler
	awake  bool // wakeFD is set
	closed bool
}

// New opens a loop, which Run must run: it gives the descriptors back at its end.
func New() (*Loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		syscall.Close(fd)
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	l := &Loop{fd: fd, wakeFD: int(wake)}
	err = syscall.SetNonblock(fd, true) // os.NewFile then gives it to the runtime's poller
	l.epoll = os.NewFile(uintptr(fd), "epoll")
	if err == nil {
		err = syscall.EpollCtl(fd, syscall.EPOLL_CTL_ADD, l.wakeFD, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(l.wakeFD)})
	}
	if err == nil {
		l.raw, err = l.epoll.SyscallConn()
	}
	if err != nil {
		l.free()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return l, nil
}

func (l *Loop) free() {
	l.epoll.Close()
	syscall.Close(l.wakeFD)
}

// Attach moves connections that are at rest to the loop, for h. It returns what to use in the
// place of each, which is itself with another socket below or a new one, and the sockets. Nothing
// is read and no event comes before Watch. With errors.ErrUnsupported the
// connections are as they were. After any other error they are closed.
func (l *Loop) Attach(h Handler, conns ...net.Conn) (over []net.Conn, bottoms []*Conn, err error) {
	for _, c := range conns {
		if _, _, err := bottom(c); err != nil {
			return nil, nil, err
		}
	}
	for _, c := range conns {
		tcp, base, _ := bottom(c)
		low, err := l.take(tcp, h)
		if err == nil && base != nil {
			err = base.Rebase(func(net.Conn) (net.Conn, error) { return low, nil })
		} else {
			c = low
		}
		if err != nil {
			for _, low := range bottoms {
				low.Close()
			}
			for _, c := range conns {
				c.Close()
			}
			return nil, nil, err
		}
		over, bottoms = append(over, c), append(bottoms, low)
	}
	return over, bottoms, nil
}

// take makes a Conn of a TCP connection, whose descriptor leaves the runtime's poller: there
// every event would be told a second time.
func (l *Loop) take(tcp *net.TCPConn, h Handler) (*Conn, error) {
	rc, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, errno := -1, syscall.Errno(0)
	if err := rc.Control(func(old uintptr) {
		r, _, e := syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
		fd, errno = int(r), e
	}); err != nil {
		return nil, err
	}
	if errno != 0 {
		return nil, os.NewSyscallError("fcntl", errno)
	}
	tcp.Close() // the connection lives on in fd, which does not block either
	return &Conn{loop: l, handler: h, fd: fd, readable: true}, nil
}

// Watch begins the events of connections that Attach returned. The first comes at once, possibly
// before Watch returns; from then on the connections belong to the loop's goroutine.
// After an error the caller has them closed there, with Wake.
func (l *Loop) Watch(conns ...*Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return net.ErrClosed
	}
	for _, c := range conns {
		for len(l.conns) <= c.fd {
			l.conns = append(l.conns, make([]*Conn, max(64, len(l.conns)/4))...)
		}
		l.conns[c.fd] = c
		ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLOUT | syscall.EPOLLRDHUP | edgeTriggered, Fd: int32(c.fd)}
		if err := syscall.EpollCtl(l.fd, syscall.EPOLL_CTL_ADD, c.fd, &ev); err != nil {
			return os.NewSyscallError("epoll_ctl", err)
		}
	}
	return nil
}

const edgeTriggered = 1 << 31 // EPOLLET, which package syscall has as a negative number

func (l *Loop) remove(c *Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.fd < len(l.conns) && l.conns[c.fd] == c {
		l.conns[c.fd] = nil // closing the last descriptor takes it out of the epoll
	}
}

// Wake has h called on the loop, soon, and reports whether it will be.
func (l *Loop) Wake(h Handler) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.woken = append(l.woken, h)
	l.wake()
	return true
}

// wake is called with mu held.
func (l *Loop) wake() {
	if !l.awake {
		l.awake = true
		one := [8]byte{1}
		_, _ = syscall.Write(l.wakeFD, one[:])
	}
}

// Close ends Run. The connections are left as they are: end them before.
func (l *Loop) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.closed = true
		l.wake()
	}
}

// Run calls handlers until Close.
func (l *Loop) Run() {
	defer l.free()
	n := 0
	some := func(uintptr) bool { n = l.poll(); return n > 0 } // made once: it is on the heap
	for {
		if len(l.more) > 0 {
			n = l.poll()
		} else if err := l.raw.Read(some); err != nil {
			return // only a closed descriptor ends it
		}
		l.ready = append(l.ready, l.more...) // these have waited already
		clear(l.more)
		l.more = l.more[:0]
		if l.collect(n) {
			return
		}
		for i, h := range l.ready {
			if h.Ready(l.buf[:]) {
				l.more = append(l.more, h)
			}
			l.ready[i] = nil
		}
		l.ready = l.ready[:0]
	}
}

// poll takes the events that are there. It does not wait, so that the scheduler need not know.
func (l *Loop) poll() int {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(l.fd), uintptr(unsafe.Pointer(&l.events[0])), uintptr(len(l.events)), 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// collect turns n events into handlers to call, and reports whether the loop is closed.
func (l *Loop) collect(n int) (over bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range l.events[:n] {
		if int(ev.Fd) == l.wakeFD {
			var b [8]byte
			_, _ = syscall.Read(l.wakeFD, b[:])
			l.awake = false
			l.ready = append(l.ready, l.woken...)
			clear(l.woken)
			l.woken = l.woken[:0]
			over = l.closed
			continue
		}
		c := l.conns[ev.Fd]
		if c == nil { // closed by now; when the number is another's already, that one looks for nothing
			continue
		}
		if ev.Events&(syscall.EPOLLIN|syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
			c.readable = true
		}
		if ev.Events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
			c.ended = true
		}
		if c.backlog != nil && ev.Events&(syscall.EPOLLOUT|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
			c.flush()
		}
		l.ready = append(l.ready, c.handler)
	}
	return over
}
