package signaling

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	residentSize = 1 << 10  // buffer a pump keeps while it waits
	bulkSize     = 16 << 10 // buffer it borrows while reads come back full: one TLS record

	endGrace          = 900 * time.Millisecond // the other direction's time after one has ended
	boundaryWait      = 900 * time.Millisecond // how long a Close frame of ours waits for the end of a frame
	drainBoundaryWait = 5 * time.Second
)

var bulk = sync.Pool{New: func() any { return new([bulkSize]byte) }}

// A pump carries one direction of a session. Only its goroutine writes to dst and
// touches frames; the counters are for everybody.
type pump struct {
	ses      *session
	src, dst net.Conn
	frames   frames
	resident [residentSize]byte

	bytes   atomic.Uint64 // written to dst
	writing atomic.Int64  // tick at which the write under way began, plus one; 0: none
}

func (p *pump) init(ses *session, src, dst net.Conn) { p.ses, p.src, p.dst = ses, src, dst }

// stuck reports whether a write has been under way for longer than limit.
func (p *pump) stuck(tick int64, limit time.Duration) bool {
	began := p.writing.Load()
	return began != 0 && time.Duration(tick-(began-1))*time.Second > limit
}

// errViolation ends a direction because the client broke a rule of RFC 6455.
var errViolation = errors.New("protocol violation")

// errClosed ends a direction because our Close frame is sent.
var errClosed = errors.New("closed by us")

// run carries bytes until either side ends, and then ends the session with the other
// pump: what was received is written, the end is passed on, and the other direction
// has a moment before everything is closed. A panic ends this session only.
func (p *pump) run(early []byte) {
	ses := p.ses
	defer func() {
		if v := recover(); v != nil {
			ses.srv.log.Error("session panic", "session", ses.id, "panic", v, "stack", string(debug.Stack()))
			ses.setReason("panic")
			ses.abort()
		}
		if ses.ended.Add(1) == 2 {
			ses.finish()
		}
	}()
	err := p.carry(early)
	switch {
	case errors.Is(err, errViolation):
		// The peer may still be sending. Closing over unread bytes would reset the
		// connection and take our Close frame with it.
		closeWrite(p.dst)
		p.discard()
	case errors.Is(err, errClosed):
		ses.cutAfter(endGrace)
		if code := ses.closeWith.Load(); ses.clientClosed.Load() || code == closeProtocolError || code == closeTooBig {
			closeWrite(p.dst)
		}
		p.discard()
	default:
		ses.setReason(p.side(err))
		ses.cutAfter(endGrace)
		closeWrite(p.dst)
	}
}

func (p *pump) side(err error) string {
	who := "client"
	if p == &p.ses.down {
		who = "upstream"
	}
	var we *writeError
	if errors.As(err, &we) {
		if who == "client" {
			return "upstream lost"
		}
		return "client lost"
	}
	if errors.Is(err, io.EOF) {
		return who + " closed"
	}
	return who + " lost"
}

type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// carry copies from src to dst. Per message it allocates nothing, takes no lock and asks no clock.
func (p *pump) carry(early []byte) error {
	if len(early) > 0 {
		if err := p.forward(early); err != nil {
			return err
		}
	}
	small := p.resident[:]
	buf := small
	var borrowed *[bulkSize]byte
	defer func() {
		if borrowed != nil {
			bulk.Put(borrowed)
		}
	}()
	for {
		n, err := p.src.Read(buf)
		if n > 0 {
			if err := p.forward(buf[:n]); err != nil {
				return err
			}
			switch {
			case n == len(buf) && borrowed == nil:
				borrowed = bulk.Get().(*[bulkSize]byte)
				buf = borrowed[:]
			case n < len(buf) && borrowed != nil: // the next read will wait: wait without it
				bulk.Put(borrowed)
				borrowed, buf = nil, small
			}
		}
		if err != nil {
			if err = p.interrupted(err); err != nil {
				return err
			}
		}
	}
}

// forward passes bytes on, as far as the frames' rules allow.
func (p *pump) forward(b []byte) error {
	ses := p.ses
	if p == &ses.up {
		n, violation := p.frames.scan(b, false)
		if err := p.write(b[:n]); err != nil {
			return err
		}
		if violation != 0 {
			reason := "protocol error"
			if violation == closeTooBig {
				reason = "message too big"
			}
			ses.requestClose(violation, reason, boundaryWait)
			return errViolation
		}
		if p.frames.code != 0 && !ses.clientClosed.Swap(true) && ses.closeSent.Load() {
			closeWrite(p.src) // the closing handshake with the client is complete: end it as a server does
		}
		return nil
	}
	wanted := ses.closeWith.Load() != 0
	n, _ := p.frames.scan(b, wanted)
	if err := p.write(b[:n]); err != nil {
		return err
	}
	if wanted && p.frames.boundary() {
		return p.sendClose()
	}
	return nil
}

func (p *pump) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	tick := p.ses.srv.sessions.tick.Load()
	p.writing.Store(tick + 1)
	n, err := p.dst.Write(b)
	p.writing.Store(0)
	p.ses.active.Store(tick)
	p.bytes.Add(uint64(n))
	if err != nil {
		return &writeError{err}
	}
	return nil
}

// interrupted decides about an error of a read. When somebody wants the session
// closed, the error is usually the deadline that woke us: at a frame boundary the close
// happens now, else the read goes on.
func (p *pump) interrupted(err error) error {
	ses := p.ses
	if p != &ses.down || ses.closeWith.Load() == 0 {
		return err
	}
	if p.frames.boundary() && ses.ended.Load() == 0 {
		return p.sendClose() // also when the upstream ended at the same moment
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		_ = p.src.SetReadDeadline(time.Time{}) // the session's timer bounds the wait
		return nil
	}
	return err
}

// sendClose writes the Close frame that was asked for; the down pump calls it at a frame
// boundary.
func (p *pump) sendClose() error {
	ses := p.ses
	if p.frames.code != 0 { // the upstream has closed already
		return errClosed
	}
	var b [64]byte
	code := uint16(ses.closeWith.Load())
	if err := p.write(closeFrame(&b, code, closeText(code))); err != nil {
		return err
	}
	ses.closeSent.Store(true)
	return errClosed
}

func closeText(code uint16) string {
	switch code {
	case closeServiceRestart:
		return "service restart"
	case closePolicy:
		return "closed by the administrator"
	case closeTooBig:
		return "message too big"
	case closeProtocolError:
		return "protocol error"
	case closeNormal:
		return "idle"
	}
	return ""
}

// discard reads src to its end without keeping anything.
func (p *pump) discard() {
	b := bulk.Get().(*[bulkSize]byte)
	defer bulk.Put(b)
	for {
		_, err := p.src.Read(b[:])
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
		if err != nil {
			_ = p.src.SetReadDeadline(time.Time{})
		}
	}
}

// requestClose asks for a Close frame to the client and the end of the session. The
// first request counts. If no frame boundary comes within wait, the session is cut without one.
func (ses *session) requestClose(code uint16, reason string, wait time.Duration) {
	if !ses.closeWith.CompareAndSwap(0, uint32(code)) {
		return
	}
	ses.setReason(reason)
	ses.cutAfter(wait + endGrace)
	_ = ses.down.src.SetReadDeadline(time.Unix(1, 0)) // wakes the down pump
}

// cutAfter closes both sockets after d. It is called a few times in a session's life at most;
// a cut of what is closed already does nothing.
func (ses *session) cutAfter(d time.Duration) { time.AfterFunc(d, ses.abort) }

// abort closes both sockets at once, below TLS: a close alert could wait for a peer that does
// not read. The pumps then end and finish.
func (ses *session) abort() {
	for _, c := range []net.Conn{ses.up.src, ses.up.dst} {
		for { // through a proxy that is reached by TLS there is TLS in TLS
			t, ok := c.(interface{ NetConn() net.Conn })
			if !ok {
				break
			}
			c = t.NetConn()
		}
		c.Close()
	}
}

// closeWrite passes the end of a stream on without ending the other direction.
func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
