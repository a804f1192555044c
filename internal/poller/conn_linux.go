package poller

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// A Conn is a TCP connection on a Loop. It never waits: Read returns ErrAgain when there is
// nothing, and Write takes everything, keeping what the kernel does not.
// After Attach it is used on its Loop's goroutine only, by its Handler.
type Conn struct {
	loop    *Loop
	handler Handler
	fd      int

	readable bool // there may be something: events are told once
	ended    bool // the peer has ended or reset: reads find out, whatever the last one looked like
	closed   bool
	fin      bool // to be sent behind the backlog
	failed   error
	backlog  []byte // not taken by the kernel yet; nil for nothing
}

// backlogs are for connections whose peer does not read; one record each mostly.
var backlogs = sync.Pool{New: func() any { return new([BufferSize + 1<<10]byte) }}

// Pending reports whether something waits to be written. The Handler is called when that changes.
func (c *Conn) Pending() bool { return c.backlog != nil }

// Read reads what is there, or returns ErrAgain.
func (c *Conn) Read(p []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
	if !c.readable {
		return 0, ErrAgain
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, errno := transfer(syscall.SYS_RECVFROM, c.fd, p, 0)
	switch {
	case errno == syscall.EAGAIN:
		c.readable = false
		return 0, ErrAgain
	case errno != 0:
		return 0, c.wrap("read", errno)
	case n == 0:
		return 0, io.EOF
	case n < len(p) && !c.ended:
		// The socket is empty. What arrives from now on is a new event (epoll(7), question 9).
		c.readable = false
	}
	return n, nil
}

// Write takes all of p. An error is for ever.
func (c *Conn) Write(p []byte) (int, error) {
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.failed != nil {
		return 0, c.failed
	}
	n := 0
	if c.backlog == nil {
		var err error
		if n, err = send(c.fd, p); err != nil {
			c.fail(err)
			return 0, c.failed
		}
		if n == len(p) {
			return n, nil
		}
		c.backlog = backlogs.Get().(*[BufferSize + 1<<10]byte)[:0]
	}
	if len(c.backlog)+len(p)-n > maxBacklog {
		c.drop()
		c.failed = errBacklog
		return 0, c.failed
	}
	c.backlog = append(c.backlog, p[n:]...)
	return len(p), nil
}

// flush writes of the backlog what the kernel takes.
func (c *Conn) flush() {
	if c.backlog == nil || c.closed {
		return
	}
	n, err := send(c.fd, c.backlog)
	if err != nil {
		c.fail(err)
		return
	}
	if n < len(c.backlog) {
		c.backlog = c.backlog[:copy(c.backlog, c.backlog[n:])]
		return
	}
	c.drop()
	if c.fin {
		_ = syscall.Shutdown(c.fd, syscall.SHUT_WR)
	}
}

func (c *Conn) fail(err error) {
	c.failed = c.wrap("write", err)
	c.drop()
}

func (c *Conn) drop() {
	if cap(c.backlog) == BufferSize+1<<10 {
		backlogs.Put((*[BufferSize + 1<<10]byte)(c.backlog[:cap(c.backlog)]))
	}
	c.backlog = nil
}

// send writes what the kernel takes, which may be nothing.
func send(fd int, p []byte) (int, error) {
	n, errno := transfer(syscall.SYS_SENDTO, fd, p, syscall.MSG_NOSIGNAL)
	switch errno {
	case 0:
		return n, nil
	case syscall.EAGAIN:
		return 0, nil
	}
	return 0, errno
}

// transfer is a system call that does not wait. The scheduler is not told: it would take the
// processor from a call of more than 20 µs, as sending over loopback is, and on one core the
// switches would cost more than the call.
func transfer(trap uintptr, fd int, p []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
		if errno != syscall.EINTR {
			return int(n), errno
		}
	}
}

// CloseWrite ends our direction once everything is written.
func (c *Conn) CloseWrite() error {
	if c.closed {
		return net.ErrClosed
	}
	if c.fin = true; c.backlog != nil {
		return nil
	}
	return os.NewSyscallError("shutdown", syscall.Shutdown(c.fd, syscall.SHUT_WR))
}

// Close closes the socket at once. What was not written is lost.
func (c *Conn) Close() error {
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.drop()
	c.loop.remove(c)
	return os.NewSyscallError("close", syscall.Close(c.fd))
}

func (c *Conn) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}

// LocalAddr returns our address.
func (c *Conn) LocalAddr() net.Addr { return c.addr(syscall.Getsockname) }

// RemoteAddr returns the peer's address; unspecified once it is gone.
func (c *Conn) RemoteAddr() net.Addr { return c.addr(syscall.Getpeername) }

func (c *Conn) addr(ask func(int) (syscall.Sockaddr, error)) net.Addr {
	if !c.closed {
		switch sa, _ := ask(c.fd); sa := sa.(type) {
		case *syscall.SockaddrInet4:
			return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)))
		case *syscall.SockaddrInet6:
			return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port)))
		}
	}
	return &net.TCPAddr{}
}
