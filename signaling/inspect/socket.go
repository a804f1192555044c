package inspect

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/proxy"
	"github.com/turngate/turngate/signaling/entry"
)

const (
	readBuffer = 4 << 10
	// A message to the upstream goes out in frames of at most this size. The buffer
	// is borrowed while a message is written.
	writeBuffer = 64 << 10

	firstRead = 512 // what a message is given room for before it is known to be longer
)

var writeBuffers sync.Pool // holds what gorilla puts there

// A socket is one side of a session. One goroutine reads, one writes messages;
// control frames may come from any.
type socket struct {
	ws    *websocket.Conn
	tap   *tap
	write time.Duration // one write stuck

	limit    int64 // of a message, after inflation; 0: none
	validate bool  // text must be UTF-8
}

// tap is the connection below a socket: it counts, and notes when bytes passed.
type tap struct {
	net.Conn
	opening *bytes.Buffer // what gorilla writes before its handshake is over; nil: it is
	head    []byte        // the answer to that, to be read first
	early   []byte        // to be read before what the connection brings
	rules   rules
	closing []byte // begin of a Close frame; nil: none yet

	read, written atomic.Uint64
	readAt        atomic.Int64 // UnixNano
	writtenAt     atomic.Int64
}

// Read gives gorilla what it can judge by itself, and the rest of it as an error.
func (t *tap) Read(p []byte) (n int, err error) {
	switch {
	case len(t.head) > 0:
		n = copy(p, t.head)
		t.head = t.head[n:]
		return n, nil
	case t.closing != nil:
		return 0, t.readClose()
	}
	n, err = t.take(p)
	whole, wrong := t.rules.scan(p[:n])
	switch {
	case whole == n:
		return n, err
	case wrong == nil:
		t.closing = append([]byte{}, p[whole:n]...)
		if whole == 0 {
			return 0, t.readClose()
		}
		return whole, nil
	}
	t.closing = []byte{0} // what comes next is no Close, and wrong
	return whole, wrong
}

// readClose reads a Close frame to its end and returns what it says as an error.
func (t *tap) readClose() error {
	var buf [64]byte
	for {
		if err := t.rules.parseClose(t.closing); err != nil {
			return err
		}
		n, err := t.take(buf[:])
		t.closing = append(t.closing, buf[:n]...)
		if n == 0 && err != nil {
			return err
		}
	}
}

// take reads what the peer sent.
func (t *tap) take(p []byte) (n int, err error) {
	if len(t.early) > 0 {
		n = copy(p, t.early)
		t.early = t.early[n:]
	} else {
		n, err = t.Conn.Read(p)
	}
	if n > 0 {
		t.read.Add(uint64(n))
		t.readAt.Store(time.Now().UnixNano())
	}
	return n, err
}

func (t *tap) Write(p []byte) (n int, err error) {
	if t.opening != nil {
		return t.open(p)
	}
	t.written.Add(uint64(len(p))) // before anybody can answer them
	n, err = t.Conn.Write(p)
	if n < len(p) {
		t.written.Add(-uint64(len(p) - n))
	}
	if n > 0 {
		t.writtenAt.Store(time.Now().UnixNano())
	}
	return n, err
}

// open answers gorilla's request with the 101 that the upstream has given already.
func (t *tap) open(p []byte) (int, error) {
	t.opening.Write(p)
	if !bytes.HasSuffix(t.opening.Bytes(), []byte("\r\n\r\n")) {
		return len(p), nil
	}
	req, err := http.ReadRequest(bufio.NewReader(t.opening))
	if err != nil {
		return 0, err
	}
	t.opening = nil
	t.head = fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		entry.AcceptKey(req.Header.Get("Sec-Websocket-Key")))
	return len(p), nil
}

// abort closes the connection below TLS: a close alert could wait for a peer that
// does not read.
func (t *tap) abort() {
	c := t.Conn
	if s, ok := c.(*tls.Conn); ok {
		c = s.NetConn()
	}
	c.Close()
}

// dialled makes a socket in the client's role of a connection whose handshake with the
// upstream is over. gorilla can only make one with a handshake of its own, so it is
// played one.
func dialled(conn net.Conn, rest []byte) (*socket, error) {
	t := &tap{Conn: conn, early: rest, opening: new(bytes.Buffer)}
	d := websocket.Dialer{
		NetDialContext:  func(context.Context, string, string) (net.Conn, error) { return t, nil },
		ReadBufferSize:  readBuffer,
		WriteBufferSize: writeBuffer,
		WriteBufferPool: &writeBuffers,
	}
	ws, _, err := d.DialContext(context.Background(), "ws://upstream/", nil)
	if err != nil {
		return nil, err
	}
	return newSocket(ws, t), nil
}

// accepted sends the client the 101 and makes a socket of its connection.
func accepted(w http.ResponseWriter, r *http.Request, header http.Header, compress bool, limit time.Duration) (*socket, error) {
	keeper := &hijacker{ResponseWriter: w}
	u := websocket.Upgrader{
		HandshakeTimeout:  limit,
		ReadBufferSize:    readBuffer,
		WriteBufferSize:   writeBuffer,
		WriteBufferPool:   &writeBuffers,
		CheckOrigin:       func(*http.Request) bool { return true }, // the route has decided
		EnableCompression: compress,
		Error:             func(http.ResponseWriter, *http.Request, int, error) {},
	}
	handshake := plain(r, compress)
	ws, err := u.Upgrade(keeper, handshake, header)
	if err != nil {
		return nil, err
	}
	keeper.tap.rules = rules{masked: true, deflate: len(handshake.Header["Sec-Websocket-Extensions"]) > 0}
	return newSocket(ws, keeper.tap), nil
}

// plain is a handshake that was found good, as gorilla understands it: it does not know
// every list that RFC 9110 allows, and would leave the request without an answer. Of the offers
// of permessage-deflate it gets those that it can keep: it does not look at parameters.
func plain(r *http.Request, compress bool) *http.Request {
	r2 := *r
	r2.Header = r.Header.Clone()
	r2.Header["Connection"], r2.Header["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	delete(r2.Header, "Sec-Websocket-Extensions")
	if !compress {
		return &r2
	}
	var offers []string
	for _, line := range r.Header["Sec-Websocket-Extensions"] {
		for offer := range strings.SplitSeq(line, ",") {
			if acceptable(offer) {
				offers = append(offers, "permessage-deflate")
			}
		}
	}
	if len(offers) > 0 {
		r2.Header["Sec-Websocket-Extensions"] = []string{strings.Join(offers, ", ")}
	}
	return &r2
}

// acceptable reports whether an offer is one of permessage-deflate that can be kept as gorilla
// answers it: without a limit of our window, and with nothing that makes it void (RFC 7692 section 7.1).
func acceptable(offer string) bool {
	name, rest, more := strings.Cut(offer, ";")
	if strings.TrimSpace(name) != "permessage-deflate" {
		return false
	}
	seen := make(map[string]bool)
	for more {
		var param string
		param, rest, more = strings.Cut(rest, ";")
		key, value, valued := strings.Cut(param, "=")
		key = strings.TrimSpace(key)
		if seen[key] {
			return false
		}
		seen[key] = true
		switch key {
		case "server_no_context_takeover", "client_no_context_takeover":
			if valued {
				return false
			}
		case "client_max_window_bits":
			if valued && !slices.Contains(windows, strings.Trim(strings.TrimSpace(value), `"`)) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// windows are what a window may be limited to.
var windows = []string{"8", "9", "10", "11", "12", "13", "14", "15"}

// hijacker keeps what a client sent behind its handshake, which gorilla refuses.
type hijacker struct {
	http.ResponseWriter
	tap *tap
}

func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	early := make([]byte, rw.Reader.Buffered())
	if _, err := io.ReadFull(rw.Reader, early); err != nil {
		early = nil
	}
	h.tap = &tap{Conn: conn, early: early}
	return h.tap, bufio.NewReadWriter(bufio.NewReaderSize(h.tap, 16), bufio.NewWriterSize(h.tap, 16)), nil
}

func newSocket(ws *websocket.Conn, t *tap) *socket {
	now := time.Now().UnixNano()
	t.readAt.Store(now)
	t.writtenAt.Store(now)
	return &socket{ws: ws, tap: t}
}

// bound sets the limit of a message. What it may have on the wire is bounded too: a frame
// that announces far more is refused before its payload is there, and deflate can say nothing
// at any length. gorilla closes over that one without a word, so it is the wider one.
func (s *socket) bound(limit int64) {
	s.limit = limit
	if limit > 0 && limit < math.MaxInt64/4 {
		s.ws.SetReadLimit(2*limit + 1024)
	}
}

// pass forwards pings and pongs to another socket. They wait behind the message that
// is being written there, and those of a side that is gone are lost.
func (s *socket) pass(to *socket) {
	s.ws.SetPingHandler(func(data string) error { to.control(websocket.PingMessage, data); return nil })
	s.ws.SetPongHandler(func(data string) error { to.control(websocket.PongMessage, data); return nil })
}

func (s *socket) control(kind int, data string) {
	_ = s.ws.WriteControl(kind, []byte(data), time.Now().Add(s.write))
}

// sendClose sends a Close frame; further ones and messages are then not sent any more.
func (s *socket) sendClose(c closing, limit time.Duration) {
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(c.code, c.reason), time.Now().Add(limit))
}

// send writes a message.
func (s *socket) send(kind int, data []byte) error {
	_ = s.ws.SetWriteDeadline(time.Now().Add(s.write))
	return s.ws.WriteMessage(kind, data)
}

// Why a message cannot be read.
var (
	errTooBig   = errors.New("message too big")
	errUTF8     = errors.New("text is not UTF-8")
	errProtocol = errors.New("protocol error")
)

// receive reads a message. The error is a *websocket.CloseError for a Close frame,
// one of the above for what the peer did wrong, or that of the connection.
func (s *socket) receive() (kind int, data []byte, err error) {
	kind, r, err := s.ws.NextReader()
	if err != nil {
		return 0, nil, readError(err)
	}
	data = make([]byte, 0, firstRead)
	for {
		if len(data) == cap(data) {
			data = append(data, 0)[:len(data)]
		}
		n, err := r.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]
		if s.limit > 0 && int64(len(data)) > s.limit {
			return 0, nil, errTooBig
		}
		if err == io.EOF {
			break
		}
		if err == io.ErrUnexpectedEOF {
			return 0, nil, errProtocol // of the inflater: the connection's own has a type
		}
		if err != nil {
			return 0, nil, readError(err)
		}
	}
	if s.validate && kind == websocket.TextMessage && !utf8.Valid(data) {
		return 0, nil, errUTF8
	}
	return kind, data, nil
}

// readError tells what a peer did wrong from a connection that ended.
func readError(err error) error {
	var closed *websocket.CloseError
	var ne net.Error
	switch {
	case errors.As(err, &closed) && closed.Code == websocket.CloseAbnormalClosure:
		return io.ErrUnexpectedEOF // what gorilla calls an end without a Close frame
	case errors.As(err, &closed):
		return closed
	case errors.Is(err, websocket.ErrReadLimit):
		return errTooBig
	case errors.As(err, &ne), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return err
	case strings.HasPrefix(err.Error(), "websocket: "), strings.HasPrefix(err.Error(), "flate: "):
		return errProtocol
	}
	return err
}

// discard reads the connection to its end. Closing over unread bytes would reset it
// and take our Close frame with it.
func (s *socket) discard() { _, _ = io.Copy(io.Discard, s.tap.Conn) }

// closeWrite ends our half of the stream.
func (s *socket) closeWrite() {
	if h, ok := s.tap.Conn.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}

// responseHeader returns what of an upstream's 101 goes to the client beside what
// the handshake itself writes.
func responseHeader(p *proxy.HeaderPolicy, from http.Header) http.Header {
	h := make(http.Header)
	p.Response(h, from)
	for name := range h {
		if strings.HasPrefix(name, "Sec-Websocket-") || name == "Content-Length" {
			delete(h, name)
		}
	}
	if sub := from["Sec-Websocket-Protocol"]; len(sub) == 1 {
		h["Sec-Websocket-Protocol"] = sub
	}
	return h
}
