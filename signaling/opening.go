package signaling

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/turngate/turngate/internal/proxy"
)

// The opening handshake, for those who carry a WebSocket in another way than as
// a tunnel of bytes.

// A Refusal is an answer of ours to a handshake that goes no further.
type Refusal struct {
	Status int
	Result string // a label for metrics
	Text   string
}

// CheckOpening holds the rules for a client's opening handshake; nil is a good one.
func CheckOpening(r *http.Request) *Refusal {
	if no := checkHandshake(r); no != nil {
		return &Refusal{no.status, no.result, no.text}
	}
	return nil
}

// AsksUpgrade reports whether a request is meant as an upgrade of any kind.
func AsksUpgrade(r *http.Request) bool { return asksUpgrade(r) }

// An Opened is an upstream's answer to an opening handshake, and the connection it
// came on, which belongs to the caller.
type Opened struct {
	Conn   net.Conn
	Status int
	Header http.Header
	Rest   []byte // bytes that came behind the head

	answer *answer
}

// Open performs the opening handshake with one upstream: dial, TLS, request, and
// an answer that is checked if it is a 101. ctx bounds all of it; it is made of
// parent, whose end means that the client went away. header must hold
// Sec-Websocket-Key. The error is a [*proxy.Error]. With a 101 the connection has
// no deadline.
func Open(parent, ctx context.Context, d *proxy.Dialer, u *proxy.Upstream, header http.Header, rest, query string, phase func(name string, took time.Duration)) (*Opened, error) {
	conn, a, err := open(parent, ctx, d, nil, u, header, rest, query, phase)
	if err != nil {
		return nil, err
	}
	return &Opened{Conn: conn, Status: a.status, Header: a.header, Rest: a.rest, answer: a}, nil
}

// Relay passes an answer that is not 101 on to the client as plain HTTP, within
// limit, and reports whether it could: otherwise nothing was written.
func (o *Opened) Relay(w http.ResponseWriter, r *http.Request, headers *proxy.HeaderPolicy, limit time.Duration) bool {
	return o.answer.relay(w, r, o.Conn, headers, limit, false)
}

// AcceptKey computes Sec-WebSocket-Accept of a client's key.
func AcceptKey(key string) string { return acceptKey(key) }

// A Balance is how a route chooses among its upstreams; the zero value is their order.
type Balance struct{ b balance }

// ParseBalance reads the word of Route.Balance.
func ParseBalance(s string) (Balance, error) {
	b, err := parseBalance(s)
	return Balance{b}, err
}

// Order is what to make the pool with.
func (b Balance) Order() proxy.Balance { return b.b.order }

// Key is what to begin a request's search with.
func (b Balance) Key(r *http.Request, query string, trust proxy.Trust) string {
	return b.b.key(r, query, trust)
}
