package relay

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// StreamLimits bounds what waits for a client that reads slowly. The zero
// value of a field stands for its default.
type StreamLimits struct {
	// Age is how old media may become in the queue; 300 ms by default. What
	// is older helps nobody, the player has given it up.
	Age time.Duration
	// Bytes is how much may wait; 512 KiB by default.
	Bytes int
	// Stall is how long the client may take nothing at all before its
	// connection is closed; 15 s by default.
	Stall time.Duration
}

func (l StreamLimits) orDefault() StreamLimits {
	if l.Age <= 0 {
		l.Age = 300 * time.Millisecond
	}
	if l.Bytes <= 0 {
		l.Bytes = 512 << 10
	}
	if l.Stall <= 0 {
		l.Stall = 15 * time.Second
	}
	return l
}

// maxWrite is the largest single write.
const maxWrite = 16 << 10

// Stream is the Egress of a TCP or TLS client. Send never waits for the
// client: frames wait in a queue bounded by age and bytes, whole oldest media
// frames are dropped, answers to requests go first and are dropped last.
type Stream struct {
	conn   net.Conn
	limits StreamLimits
	cork   *cork // below TLS; nil: frames need not stay apart
	drops  atomic.Uint64

	mu      sync.Mutex
	answers []queued
	media   []queued
	bytes   int
	writing bool
	closed  bool
	wg      sync.WaitGroup // the writer
}

// frames holds what waits.
var frames = sync.Pool{New: func() any { b := make([]byte, 0, 2048); return &b }}

type queued struct {
	frame *[]byte
	since time.Time
}

// NewStream queues frames for conn, which nobody reads or writes yet. The caller keeps conn and
// closes the Stream before it; the Stream closes conn itself when the client stalls. Over TLS each
// frame is a record of its own.
func NewStream(conn net.Conn, limits StreamLimits) *Stream {
	boundUnsent(conn, maxUnsent)
	return &Stream{conn: conn, limits: limits.orDefault(), cork: corkBelow(conn)}
}

// Drops returns how many media frames were dropped.
func (s *Stream) Drops() uint64 { return s.drops.Load() }

// Waiting returns how many bytes are queued.
func (s *Stream) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// Send queues media frames.
func (s *Stream) Send(batch []Frame) { s.enqueue(&s.media, batch) }

// Answer queues one control message ahead of all media.
func (s *Stream) Answer(p []byte) { s.enqueue(&s.answers, []Frame{{Payload: p}}) }

func (s *Stream) enqueue(queue *[]queued, batch []Frame) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	for _, p := range batch {
		f := frames.Get().(*[]byte)
		*f = p.append((*f)[:0])
		for len(*f)%4 != 0 { // RFC 8656 section 12.5
			*f = append(*f, 0)
		}
		*queue = append(*queue, queued{f, now})
		s.bytes += len(*f)
	}
	drop := 0
	for s.bytes > s.limits.Bytes && drop < len(s.media) {
		s.release(s.media[drop])
		drop++
	}
	s.dropped(drop)
	if s.bytes > s.limits.Bytes { // answers alone: nobody asks that much and does not read
		s.closed = true
		s.conn.Close()
		return
	}
	if !s.writing && len(s.answers)+len(s.media) > 0 {
		s.writing = true
		s.wg.Go(s.write)
	}
}

// dropped removes the first n media frames, which are released already.
func (s *Stream) dropped(n int) {
	s.media = slices.Delete(s.media, 0, n)
	s.drops.Add(uint64(n))
}

func (s *Stream) release(q queued) {
	s.bytes -= len(*q.frame)
	frames.Put(q.frame)
}

// write sends until the queue is empty. It runs only while there is something
// to send, so that an idle client costs no goroutine.
func (s *Stream) write() {
	var p parcel
	for {
		s.mu.Lock()
		s.take(&p)
		if len(p.buf) == 0 || s.closed {
			s.writing = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.limits.Stall))
		if err := s.send(&p); err != nil {
			s.conn.Close() // the reader of the connection notices
			s.mu.Lock()
			s.closed, s.writing = true, false
			s.mu.Unlock()
			return
		}
	}
}

// parcel is what is written at once.
type parcel struct {
	buf     []byte // frames, one behind the other
	ends    []int  // of each in buf
	records []byte // of TLS
}

func (s *Stream) send(p *parcel) (err error) {
	if s.cork == nil {
		_, err = s.conn.Write(p.buf)
		return err
	}
	s.cork.hold(p.records)
	begin := 0
	for _, end := range p.ends {
		if _, err := s.conn.Write(p.buf[begin:end]); err != nil {
			return err
		}
		begin = end
	}
	p.records, err = s.cork.release()
	return err
}

// take moves as many frames to p as one write carries. s.mu is held.
func (s *Stream) take(p *parcel) {
	p.buf, p.ends = p.buf[:0], p.ends[:0]
	s.answers = s.move(p, s.answers)

	tooOld := time.Now().Add(-s.limits.Age)
	n := 0
	for n < len(s.media) && s.media[n].since.Before(tooOld) {
		s.release(s.media[n])
		n++
	}
	s.dropped(n)
	s.media = s.move(p, s.media)
}

// move moves what fits from the head of a queue to p. s.mu is held.
func (s *Stream) move(p *parcel, queue []queued) []queued {
	n := 0
	for ; n < len(queue) && (len(p.buf) == 0 || len(p.buf)+len(*queue[n].frame) <= maxWrite); n++ {
		p.buf = append(p.buf, *queue[n].frame...)
		p.ends = append(p.ends, len(p.buf))
		s.release(queue[n])
	}
	return slices.Delete(queue, 0, n)
}

// Close drops what waits and returns when the writer has ended. The
// connection must be closed or about to fail its write, or Close waits for
// the client to read.
func (s *Stream) Close() {
	s.mu.Lock()
	s.closed = true
	for _, q := range s.answers {
		s.release(q)
	}
	for _, q := range s.media {
		s.release(q)
	}
	s.answers, s.media = nil, nil
	s.mu.Unlock()
	s.wg.Wait()
}
