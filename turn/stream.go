package turn

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/turn/relay"
	"github.com/turngate/turngate/turn/wire"
)

const (
	// unprovenFrame is the largest frame before there is an allocation: no
	// request needs more.
	unprovenFrame = 2048
	// frameTimeout is how long one frame may take to arrive.
	frameTimeout = 20 * time.Second
)

// stream is a TCP or TLS client.
type stream struct {
	s      *Server
	conn   net.Conn
	tuple  fiveTuple
	limits Limits
	out    *relay.Stream
	framer *wire.Framer

	partial time.Time // since when a frame is unfinished
	heard   bool      // a whole message has come

	session  atomic.Pointer[session]
	unproven atomic.Pointer[time.Time] // since when there is no allocation
}

// ServeConn serves a client on a connection until it ends, and closes it. An
// allocation ends with its connection (RFC 8656 section 3.1).
func (s *Server) ServeConn(conn net.Conn, transport Transport) {
	set := s.settings.Load()
	st := &stream{
		s: s, conn: conn, limits: set.Limits,
		tuple: fiveTuple{transport: transport, client: addrPort(conn.RemoteAddr()), server: addrPort(conn.LocalAddr())},
		out:   relay.NewStream(conn, set.Egress),
	}
	st.prove()
	if !s.addStream(st) {
		conn.Close()
		return
	}
	defer s.wg.Done()
	if s.bans.holds(st.tuple.client.Addr(), time.Now()) {
		s.metrics.dropped.WithLabelValues("banned").Inc()
		conn.Close()
		s.forget(st)
		return
	}
	s.metrics.streams.WithLabelValues(string(transport)).Inc()
	defer s.metrics.streams.WithLabelValues(string(transport)).Dec()
	reason := st.serve()
	conn.Close()
	if ses := st.session.Load(); ses != nil {
		ses.lost(st.tuple, reason)
	}
	st.out.Close()
	s.forget(st)
}

// forget takes a stream that has ended out of the books.
func (s *Server) forget(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	s.metrics.traffic.ended.queue += st.out.Drops()
}

func (s *Server) addStream(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.streams[st] = struct{}{}
	s.wg.Add(1)
	return true
}

// serve reads frames until the stream ends and says why it did.
func (st *stream) serve() (reason string) {
	st.framer = wire.NewFramer(st)
	for {
		ses := st.session.Load()
		if st.framer.Limit = unprovenFrame; ses != nil {
			st.framer.Limit = 0
		}
		st.partial = time.Time{}
		frame, err := st.framer.Next()
		if err != nil {
			return st.why(err)
		}
		st.heard = true
		if channel, payload, ok := wire.ChannelData(frame); ok {
			st.forward(ses, channel, payload)
			continue
		}
		if !st.s.handle(st.tuple, st, frame) {
			return "malformed message"
		}
	}
}

// run is what one client sends to one peer at once.
type run struct{ frames []relay.Frame }

// longestRun is how many frames of a stream are forwarded at once.
const longestRun = 64

var runs = sync.Pool{New: func() any { return &run{make([]relay.Frame, 0, longestRun)} }}

// forward sends the payload of a ChannelData message to its peer, and with it
// those behind it on the same channel that have arrived.
func (st *stream) forward(ses *session, channel uint16, payload []byte) {
	r := runs.Get().(*run)
	r.frames = append(r.frames[:0], relay.Frame{Payload: payload})
	for len(r.frames) < longestRun {
		number, payload, ok := wire.ChannelData(st.framer.Buffered())
		if !ok || number != channel {
			break
		}
		r.frames = append(r.frames, relay.Frame{Payload: payload})
		_, _ = st.framer.Next() // it is there
	}
	if ses != nil {
		ses.arrived(st.tuple)
	}
	if n := len(r.frames); ses == nil || !ses.forward(channel, r.frames) {
		st.s.metrics.dropped.WithLabelValues("no channel").Add(float64(n))
	}
	clear(r.frames)
	runs.Put(r)
}

// why names the end of a stream for the log.
func (st *stream) why(err error) string {
	switch {
	case err == wire.ErrFrame, err == wire.ErrTooLarge:
		st.s.metrics.dropped.WithLabelValues("framing").Inc()
		return "malformed frame"
	case isTimeout(err):
		st.s.metrics.dropped.WithLabelValues("stream timeout").Inc()
		return "timeout"
	}
	return "connection closed"
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

// Read reads with the deadline of the phase that the stream is in. The framer
// calls it.
func (st *stream) Read(p []byte) (int, error) {
	if st.partial.IsZero() && st.framer.Partial() {
		st.partial = time.Now()
	}
	for {
		ses := st.session.Load()
		if err := st.conn.SetReadDeadline(st.deadline(ses)); err != nil {
			return 0, err
		}
		if st.session.Load() == ses { // else closed set one, which was overwritten
			return st.conn.Read(p)
		}
	}
}

// deadline returns when the next bytes must have come; zero is never.
func (st *stream) deadline(ses *session) time.Time {
	var deadline time.Time
	if ses == nil {
		since := *st.unproven.Load()
		deadline = since.Add(st.limits.Unproven)
		if first := since.Add(st.limits.FirstMessage); !st.heard && first.Before(deadline) {
			deadline = first
		}
	}
	if !st.partial.IsZero() {
		if unfinished := st.partial.Add(frameTimeout); deadline.IsZero() || unfinished.Before(deadline) {
			deadline = unfinished
		}
	}
	return deadline
}

func (st *stream) answer(p []byte) { st.out.Answer(p) }

func (st *stream) egress() relay.Egress { return st.out }

func (st *stream) accepting() bool { return true }

func (st *stream) opened(ses *session) { st.session.Store(ses) }

// prove begins the time that the client has to get an allocation.
func (st *stream) prove() {
	now := time.Now()
	st.unproven.Store(&now)
}

// closed ends the connection some time after its allocation: whoever wants
// another one asks for it at once.
func (st *stream) closed() {
	st.prove()
	st.session.Store(nil)
	_ = st.conn.SetReadDeadline(time.Now().Add(st.limits.FirstMessage))
}

// addrPort converts the address of a connection; a connection that is not
// TCP has the zero address.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		p, _ := netip.ParseAddrPort(a.String())
		return p
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
