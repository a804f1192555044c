package poller

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// A stream is a TCP connection in the Go runtime's poller, whose reads and writes the scheduler is
// not told of (see transfer): during a handshake they otherwise keep sysmon awake, every 20 µs.
type stream struct {
	*net.TCPConn
	raw syscall.RawConn
	in  half
	out half
}

// A half is one direction of a stream.
type half struct {
	mu    sync.Mutex // guards the fields below
	p     []byte
	n     int
	errno syscall.Errno
	step  func(fd uintptr) (done bool) // made once: it is on the heap
}

// Quick returns a connection to use instead of c, whose reads and writes cost less; everything
// else is c's, and what is documented of net.Conn holds. Any connection but a *net.TCPConn is
// returned as it is.
func Quick(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	s := &stream{TCPConn: tcp, raw: raw}
	s.in.step, s.out.step = s.in.read, s.out.write
	return s
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return s.TCPConn.Read(p)
	}
	n, err := s.in.run(p, s.raw.Read)
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, s.named("read", err)
}

// Write implements net.Conn.
func (s *stream) Write(p []byte) (int, error) {
	n, err := s.out.run(p, s.raw.Write)
	return n, s.named("write", err)
}

// named makes the error the one that the net package would return.
func (s *stream) named(op string, err error) error {
	switch e := err.(type) {
	case nil:
		return nil
	case *net.OpError: // closed, or over a deadline
		e.Op = op
		return e
	case syscall.Errno:
		return &net.OpError{Op: op, Net: "tcp", Source: s.LocalAddr(), Addr: s.RemoteAddr(), Err: os.NewSyscallError(op, e)}
	}
	return err
}

func (h *half) run(p []byte, ready func(func(uintptr) bool) error) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.p, h.n, h.errno = p, 0, 0
	err := ready(h.step)
	h.p = nil
	if err == nil && h.errno != 0 {
		err = h.errno
	}
	return h.n, err
}

func (h *half) read(fd uintptr) bool {
	n, errno := transfer(syscall.SYS_RECVFROM, int(fd), h.p, 0)
	if errno == syscall.EAGAIN {
		return false
	}
	if h.errno = errno; errno == 0 {
		h.n = n
	}
	return true
}

func (h *half) write(fd uintptr) bool {
	for h.n < len(h.p) {
		n, errno := transfer(syscall.SYS_SENDTO, int(fd), h.p[h.n:], syscall.MSG_NOSIGNAL)
		if errno == syscall.EAGAIN {
			return false
		}
		if h.errno = errno; errno != 0 {
			return true
		}
		h.n += n
	}
	return true
}
