package inspect

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// A flow is one direction of a session. Its reader is the only one that reads its
// side, its deliverer, if there is a hook, the only one that writes messages to the
// other; without a hook the reader does that too.
type flow struct {
	ses       *session
	direction string // "inbound" or "outbound"
	from, to  *socket
	hook      *Hook // nil: none
	counters  flowCounters

	caller *caller       // of the hook
	slots  chan struct{} // one for each call in flight
	queue  chan *batch   // in order; never full, by slots
	room   room

	pending atomic.Int64 // batches in the queue
	seq     uint64       // of the last message; the reader's
	open    *batch       // that takes further messages; the reader's

	mu   sync.Mutex // guards the field below
	said *closing   // the Close frame that was read
}

func (f *flow) init(ses *session, direction string, from, to *socket) {
	f.ses, f.direction, f.from, f.to = ses, direction, from, to
	f.counters = ses.srv.metrics.flow(ses.route, direction)
	if f.hook != nil {
		f.slots = make(chan struct{}, f.hook.InFlight)
		f.queue = make(chan *batch, f.hook.InFlight)
		f.room.init(roomBytes)
		context.AfterFunc(ses.ctx, f.room.close)
	}
}

// last returns the Close frame that the flow's side sent.
func (f *flow) last() (closing, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.said == nil {
		return closing{}, false
	}
	return *f.said, true
}

// waiting reports whether messages wait for their hook.
func (f *flow) waiting() bool { return f.pending.Load() > 0 }

// farewell is what the other side hears when this one ends without a Close frame.
func (f *flow) farewell() closing {
	if c, ok := f.last(); ok {
		return c
	}
	if f.direction == "inbound" {
		return closing{codeGoingAway, "client connection lost"}
	}
	return closing{codeInternal, "upstream connection lost"}
}

// run reads until its side ends, delivers what was read, and passes the end on.
func (f *flow) run() {
	var deliverer sync.WaitGroup
	if f.hook != nil {
		deliverer.Go(func() {
			defer f.ses.recovered()
			f.deliver()
		})
	}
	err := f.read()
	if f.hook != nil {
		f.flush()
		close(f.queue)
		deliverer.Wait()
	}
	f.over(err)
}

// over passes the end of the flow's side on, unless the session is ending anyway.
func (f *flow) over(err error) {
	who := "client"
	if f.direction == "outbound" {
		who = "upstream"
	}
	var closed *websocket.CloseError
	switch {
	case errors.As(err, &closed):
		f.mu.Lock()
		f.said = &closing{closed.Code, closed.Text}
		f.mu.Unlock()
		f.ses.note(who + " closed")
	case errors.Is(err, errTooBig):
		f.fault(who+" too big", closing{codeTooBig, "message too big"})
	case errors.Is(err, errUTF8):
		f.fault(who+" invalid utf-8", closing{codeInvalidData, "text is not UTF-8"})
	case errors.Is(err, errProtocol):
		f.fault(who+" protocol error", closing{codeProtocolError, "protocol error"})
	default:
		f.ses.note(who + " lost")
	}
	switch {
	case !f.ending():
		f.to.sendClose(f.farewell(), closeLimit)
	case closed == nil:
		f.from.discard()
	}
}

// fault ends the session for what this flow's side did.
func (f *flow) fault(reason string, own closing) {
	how := ending{reason: reason, client: own, upstream: away}
	if f.direction == "outbound" {
		how.upstream, how.client = own, closing{codeInternal, "upstream: " + own.reason}
	}
	f.ses.end(how)
}

func (f *flow) ending() bool {
	select {
	case <-f.ses.ending:
		return true
	default:
		return false
	}
}

// read takes messages from the flow's side until it ends.
func (f *flow) read() error {
	for {
		kind, data, err := f.from.receive()
		if err != nil {
			return err
		}
		if f.ending() {
			continue // read, so that the peer's Close comes through
		}
		f.counters.messages.Inc()
		f.counters.bytes.Add(float64(len(data)))
		if f.hook == nil {
			f.pass(kind, data)
			continue
		}
		f.seq++
		f.ask(&message{seq: f.seq, kind: kind, data: data})
	}
}

// pass writes a message to the other side. When that fails its own flow usually
// knows why and says so; if not, the session ends a moment later.
func (f *flow) pass(kind int, data []byte) {
	err := f.to.send(kind, data)
	if err == nil || errors.Is(err, websocket.ErrCloseSent) {
		return
	}
	how := ending{"upstream lost", closing{codeInternal, "upstream connection lost"}, away}
	if f.direction == "outbound" {
		how = ending{"client lost", away, closing{codeGoingAway, "client connection lost"}}
	}
	var ne net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &ne) && ne.Timeout() {
		how.reason = "stuck"
		f.ses.end(how)
		return
	}
	time.AfterFunc(closeLimit, func() { f.ses.end(how) })
}

// room bounds the bytes that wait for a verdict. A message that is alone always has room.
type room struct {
	mu   sync.Mutex
	free *sync.Cond
	most int64
	held int64
	shut bool
}

// roomBytes is how much of a flow may wait behind a message.
const roomBytes = 1 << 20

func (r *room) init(most int64) { r.most, r.free = most, sync.NewCond(&r.mu) }

// take waits for room and reports false when the room was closed.
func (r *room) take(n int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.shut && r.held > 0 && r.held+n > r.most {
		r.free.Wait()
	}
	r.held += n
	return !r.shut
}

func (r *room) give(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held -= n
	r.free.Signal()
}

func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shut = true
	r.free.Broadcast()
}
