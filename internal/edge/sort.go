package edge

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/turngate/turngate/internal/poller"
)

// sort finds out what c is and hands it over or closes it.
func (l *Listener) sort(c *conn) {
	turn := c.set.TURN
	began := time.Now()
	nc, k, why := c.identify()
	if !l.untrack(c) {
		why = shuttingDown
	}
	if why == "" && !c.handOver(k) {
		why = shuttingDown
	}
	if why != "" {
		c.reject(why)
		l.sorting.Done()
		return
	}
	nc.SetDeadline(time.Time{})
	c.counter.proving.Observe(time.Since(began).Seconds())
	if k == kindHTTPS {
		if l.http.deliver(nc) {
			c.counter.connections[k].Inc()
		} else {
			c.counter.rejected[nobodyTakes].Inc()
			c.Close()
		}
		l.sorting.Done()
		return
	}
	c.counter.connections[k].Inc()
	l.sorting.Done() // from here the goroutine is the callee's
	turn(nc, c.info)
}

// identify reads as little of c as shows what it is, within Timeouts.Prove.
// It returns the connection to hand over, or why there is none.
func (c *conn) identify() (nc net.Conn, k kind, why reason) {
	// One stranger's bytes must not end everybody's calls, whatever they find
	// in crypto/tls. net/http guards the handshakes it does in the same way.
	defer func() {
		if v := recover(); v != nil {
			c.set.Log.Error("panic while sorting a connection", "client", c.info.Remote,
				"panic", v, "stack", string(debug.Stack()))
			why = panicked
		}
	}()
	deadline := time.Now().Add(c.set.Timeouts.Prove)
	c.Conn.SetDeadline(deadline)
	if c.behindProxy() {
		if why := c.readProxyHeader(deadline); why != "" {
			return nil, "", why
		}
	}
	first, head, err := look(c.Conn, c.head, classify)
	c.head = head
	if err != nil {
		return nil, "", whyEnded(err)
	}
	switch {
	case first == speaksTLS && c.set.tls != nil:
		return c.identifyTLS()
	case first == speaksSTUN && c.set.TURN != nil:
		return c, kindTURNTCP, ""
	case first == speaksSTUN:
		return nil, "", nobodyTakes
	case first == speaksHTTP:
		if c.set.HTTP {
			c.answerPlainHTTP()
		}
		return nil, "", plainHTTP
	case first == speaksPROXY:
		return nil, "", unlistedProxyHeader
	}
	return nil, "", notOurs
}

// identifyTLS does the handshake and decides by ALPN, or without ALPN by the
// first bytes: browsers send none for TURN over TLS (RFC 7443 is for others).
func (c *conn) identifyTLS() (net.Conn, kind, reason) {
	poller.DeepStack()
	t := tls.Server(c, c.set.tls.config)
	if err := t.Handshake(); err != nil {
		why := whyEnded(err)
		switch {
		case errors.Is(err, errTooFast):
			why = tooFast
		case why == notOurs:
			why = badHandshake
		}
		return nil, "", why
	}
	state := t.ConnectionState()
	c.info.Transport, c.info.ServerName = "tls", state.ServerName
	switch state.NegotiatedProtocol {
	case protoTURN:
		return t, kindTURNTLS, ""
	case protoHTTP2, protoHTTP1:
		return t, kindHTTPS, ""
	case protoACME:
		t.Close() // the handshake was the answer
		return nil, "", challenged
	}
	first, head, err := look(t, nil, classifyInsideTLS)
	switch {
	case err != nil:
		return nil, "", whyEnded(err)
	case first == speaksSTUN && c.set.TURN != nil:
		return &tlsConn{t, head}, kindTURNTLS, ""
	case first == speaksHTTP && c.set.HTTP:
		return &tlsConn{t, head}, kindHTTPS, ""
	case first == speaksSTUN, first == speaksHTTP:
		return nil, "", nobodyTakes
	}
	return nil, "", notOurs
}

const plainHTTPAnswer = "HTTP/1.1 400 Bad Request\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"X-Content-Type-Options: nosniff\r\n" +
	"Connection: close\r\n\r\n" +
	"plain HTTP on the TLS port: use https:// or wss://\n"

// answerPlainHTTP tells whoever typed http:// what is wrong. The rest of the
// request is read, within limits: closing on unread bytes sends a reset, which
// makes the peer's kernel throw the answer away.
func (c *conn) answerPlainHTTP() {
	c.Conn.SetDeadline(time.Now().Add(c.set.Timeouts.Answer))
	if _, err := io.WriteString(c.Conn, plainHTTPAnswer); err != nil {
		return
	}
	if c.CloseWrite() == nil {
		io.CopyN(io.Discard, c.Conn, 64<<10)
	}
}

// whyEnded translates the error of a read or a handshake; notOurs is the
// peer's fault in any other way.
func whyEnded(err error) reason {
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return timedOut
	case errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe):
		return shuttingDown
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return wentAway
	case errors.As(err, &op) && op.Op == "read": // reset; crypto/tls uses other Ops for its own
		return wentAway
	}
	return notOurs
}

// protocol is what the first bytes of a stream look like.
type protocol int

const (
	undecided   protocol = iota // more bytes needed, at most lookSize
	speaksTLS                   // a TLS handshake record
	speaksSTUN                  // a STUN message with the magic cookie
	speaksHTTP                  // an HTTP method
	speaksPROXY                 // a PROXY protocol header, version 1 or 2
	unknown
)

// lookSize bytes decide in every case: the STUN header up to its cookie.
const lookSize = 8

// look reads from r until classify decides. It returns what it decided and all
// bytes read so far; head is what was read before.
func look(r io.Reader, head []byte, classify func([]byte) protocol) (protocol, []byte, error) {
	for {
		if p := classify(head); p != undecided {
			return p, head, nil
		}
		head = slices.Grow(head, lookSize-len(head))
		n, err := r.Read(head[len(head):lookSize])
		head = head[:len(head)+n]
		if n == 0 && err != nil {
			return unknown, head, err
		}
	}
}

// classify decides what the first bytes b of a TCP connection begin, as soon as
// they allow only one answer.
//
// A ChannelData message (0x40-0x4F) is never first, since a channel has to be
// bound by STUN messages before: those values are letters of HTTP methods.
func classify(b []byte) protocol {
	if len(b) == 0 {
		return undecided
	}
	switch {
	case b[0] == 0x16: // RFC 8446 section 5.1; as a STUN type it is unassigned
		return speaksTLS
	case b[0] == '\r':
		return prefixed(b, "\r\n\r\n\x00\r\nQ", speaksPROXY)
	case b[0] == 'P' && (len(b) < 2 || b[1] == 'R') && (len(b) < 3 || b[2] == 'O') &&
		(len(b) < 4 || b[3] == 'X'):
		if len(b) < 4 {
			return undecided // POST, PUT, PATCH, PRI, PROPFIND or PROXY
		}
		return prefixed(b, "PROXY ", speaksPROXY)
	case isUpper(b[0]):
		return methodLike(b)
	}
	return stunLike(b)
}

// classifyInsideTLS is classify for the first bytes inside TLS without ALPN.
// What cannot be STUN goes to HTTP, which has an answer for everything.
func classifyInsideTLS(b []byte) protocol {
	if len(b) > 0 && b[0]&0xC0 != 0 {
		return speaksHTTP
	}
	return stunLike(b)
}

// stunLike looks for two zero bits and the magic cookie (RFC 8489 section 5).
func stunLike(b []byte) protocol {
	const cookieAt, cookie = 4, "\x21\x12\xA4\x42"
	switch {
	case len(b) == 0:
		return undecided
	case b[0]&0xC0 != 0:
		return unknown
	case len(b) <= cookieAt:
		return undecided
	}
	return prefixed(b[cookieAt:], cookie, speaksSTUN)
}

// methodLike looks for four bytes of letters, or three and a blank.
func methodLike(b []byte) protocol {
	for i, ch := range b[:min(4, len(b))] {
		if !isUpper(ch) && (i < 3 || ch != ' ') {
			return unknown
		}
	}
	if len(b) < 4 {
		return undecided
	}
	return speaksHTTP
}

// prefixed answers p when b begins with want, undecided while it may still do so.
func prefixed(b []byte, want string, p protocol) protocol {
	n := min(len(b), len(want))
	switch {
	case string(b[:n]) != want[:n]:
		return unknown
	case n < len(want):
		return undecided
	}
	return p
}

func isUpper(ch byte) bool { return 'A' <= ch && ch <= 'Z' }
