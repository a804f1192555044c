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

	"github.com/turngate/turngate/internal/poller"
)

const (
	residentSize = 1 << 10  // buffer a pump keeps while it waits
	bulkSize     = 16 << 10 // buffer it borrows while reads come back full: one TLS record

	endGrace          = 900 * time.Millisecond // the other direction's time after one has ended
	boundaryWait      = 900 * time.Millisecond // how long a Close frame of ours waits for the end of a frame
	drainBoundaryWait = 5 * time.Second
)

var bulk = sync.Pool{New: func() any { return new([bulkSize]byte) }}

// A pump carries one direction of a session. It is advanced by one goroutine: the loop of its
// session, or one of its own. Only that one writes to dst and touches frames and phase; the
// counters are for everybody.
type pump struct {
	ses      *session
	src, dst net.Conn
	low      *poller.Conn // the socket of dst on a loop; nil without one
	early    []byte       // received before the session began; comes first
	frames   frames
	phase    phase

	bytes   atomic.Uint64 // written to dst
	writing atomic.Int64  // tick at which the write under way began, plus one; 0: none
}

// phase is where a pump is in its life.
type phase uint8

const (
	carrying   phase = iota
	discarding       // reads to the end and keeps nothing
	flushing         // nothing more is read; what dst has not taken goes out
	over
)

func (p *pump) init(ses *session, src, dst net.Conn, early []byte) {
	p.ses, p.src, p.dst = ses, src, dst
	if len(early) > 0 {
		p.early = early
	}
}

// stuck reports whether a write has been under way for longer than limit.
func (p *pump) stuck(tick int64, limit time.Duration) bool {
	began := p.writing.Load()
	return began != 0 && time.Duration(tick-(began-1))*time.Second > limit
}

// errViolation ends a direction because the client broke a rule of RFC 6455.
var errViolation = errors.New("protocol violation")

// errClosed ends a direction because our Close frame is sent.
var errClosed = errors.New("closed by us")

// run advances a pump on a goroutine of its own, which waits in its reads and writes.
func (p *pump) run() {
	small := make([]byte, residentSize)
	buf := small
	var borrowed *[bulkSize]byte
	for {
		n := p.guarded(buf)
		if p.phase == over {
			break
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
	if borrowed != nil {
		bulk.Put(borrowed)
	}
}

// fairShare is how many reads of one direction come before it is the other sessions' turn.
const fairShare = 8

// turn advances a pump on a loop, until it would wait. It reports whether there is more to do.
func (p *pump) turn(buf []byte) (more bool) {
	for range fairShare {
		if p.phase == over {
			return false
		}
		if p.low.Pending() {
			return false // a slow reader holds up its own session only
		}
		if p.writing.Load() != 0 {
			p.writing.Store(0)
		}
		if p.guarded(buf) < 0 {
			return false
		}
	}
	return true
}

// guarded is advance; a panic ends this session only.
func (p *pump) guarded(buf []byte) int {
	defer func() {
		if v := recover(); v != nil {
			ses := p.ses
			ses.srv.log.Error("session panic", "session", ses.id, "panic", v, "stack", string(debug.Stack()))
			ses.setReason("panic")
			ses.abort()
			p.end()
		}
	}()
	return p.advance(buf)
}

// advance reads once and does what follows from it. It returns the bytes read, and -1 when there
// were none and the pump has to be called again. Per message it allocates nothing (crypto/tls
// does: 24 bytes a read), takes no lock and asks no clock.
func (p *pump) advance(buf []byte) int {
	switch {
	case p.phase == flushing:
		p.end()
		return 0
	case p.phase == discarding:
		n, err := p.src.Read(buf)
		switch {
		case err == poller.ErrAgain:
			return -1
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = p.src.SetReadDeadline(time.Time{})
		case err != nil:
			p.finish()
		}
		return n
	case p.early != nil:
		early := p.early
		p.early = nil
		if err := p.forward(early); err != nil {
			p.stop(err)
		}
		return 0
	case p.closeDue():
		p.stop(p.sendClose())
		return 0
	}
	n, err := p.src.Read(buf)
	if p.low != nil { // no read waits: small messages that have piled up leave in one record
		for err == nil && 0 < n && n < len(buf) {
			var m int
			m, err = p.src.Read(buf[n:])
			n += m
		}
	}
	if n > 0 {
		if err := p.forward(buf[:n]); err != nil {
			p.stop(err)
			return n
		}
	}
	switch {
	case err == nil:
	case err == poller.ErrAgain:
		return -1
	case p.closeDue(): // also when the upstream ended at the same moment
		p.stop(p.sendClose())
	case p == &p.ses.down && p.ses.closeWith.Load() != 0 && errors.Is(err, os.ErrDeadlineExceeded):
		_ = p.src.SetReadDeadline(time.Time{}) // we were woken inside a frame; the session's timer bounds the wait for its end
	default:
		p.stop(err)
	}
	return n
}

// stop ends the carrying: what was received is written, the end is passed on, and the other
// direction has a moment before everything is closed.
func (p *pump) stop(err error) {
	ses := p.ses
	switch {
	case errors.Is(err, errViolation):
		// The peer may still be sending. Closing over unread bytes would reset the
		// connection and take our Close frame with it.
		closeWrite(p.dst)
		p.phase = discarding
	case errors.Is(err, errClosed):
		ses.cutAfter(endGrace)
		if code := ses.closeWith.Load(); ses.clientClosed.Load() || code == closeProtocolError || code == closeTooBig {
			closeWrite(p.dst)
		}
		p.phase = discarding
	default:
		ses.setReason(p.side(err))
		ses.cutAfter(endGrace)
		closeWrite(p.dst)
		p.finish()
	}
}

// finish ends a pump as soon as dst has taken everything.
func (p *pump) finish() {
	p.phase = flushing
	if p.low == nil || !p.low.Pending() {
		p.end()
	}
}

func (p *pump) end() {
	if p.phase != over {
		p.phase = over
		if p.ses.ended.Add(1) == 2 {
			p.ses.finish()
		}
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
	p.bytes.Add(uint64(len(b))) // before anybody can answer them
	n, err := p.dst.Write(b)
	if p.low == nil || !p.low.Pending() {
		p.writing.Store(0)
	}
	p.ses.active.Store(tick)
	if err != nil {
		p.bytes.Add(-uint64(len(b) - n))
		return &writeError{err}
	}
	return nil
}

// closeDue reports whether a Close frame that somebody asked for can be sent now.
func (p *pump) closeDue() bool {
	ses := p.ses
	return p == &ses.down && ses.closeWith.Load() != 0 && p.frames.boundary() && ses.ended.Load() == 0
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

// requestClose asks for a Close frame to the client and the end of the session. The
// first request counts. If no frame boundary comes within wait, the session is cut without one.
func (ses *session) requestClose(code uint16, reason string, wait time.Duration) {
	if !ses.closeWith.CompareAndSwap(0, uint32(code)) {
		return
	}
	ses.setReason(reason)
	ses.cutAfter(wait + endGrace)
	if ses.loop != nil {
		ses.loop.Wake(ses)
		return
	}
	_ = ses.down.src.SetReadDeadline(time.Unix(1, 0)) // wakes the down pump
}

// cutAfter closes both sockets after d. It is called a few times in a session's life at most;
// a cut of what is closed already does nothing.
func (ses *session) cutAfter(d time.Duration) { time.AfterFunc(d, ses.abort) }

// abort closes both sockets at once, below TLS: a close alert could wait for a peer that does
// not read. The pumps then end and finish.
func (ses *session) abort() {
	if ses.loop != nil {
		ses.cut.Store(true)
		ses.loop.Wake(ses)
		return
	}
	ses.closeSockets()
}

func (ses *session) closeSockets() {
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
