package turn

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/limit"
	"github.com/turngate/turngate/turn/wire"
)

// session is one allocation as the edge knows it. It holds what it was made
// with and no settings, so that a reload cannot reach into it.
type session struct {
	s         *Server
	id        string
	user      string
	key       wire.Key
	algorithm wire.Algorithm // of the key
	realm     string
	legs      []*leg // one or two; fixed once started
	created   time.Time
	log       *slog.Logger

	at   atomic.Pointer[place] // changed with s.mu held
	next atomic.Pointer[place] // where the client is moving to; the same

	source  netip.Prefix // see joined; guarded by s.mu
	budgets sessionBudgets
	rates   rates

	mu      sync.Mutex // one request at a time; guards the fields below
	request wire.TransactionID
	answer  []byte // of the Allocate, for its retransmissions
	expires time.Time

	reason  atomic.Pointer[string] // why it ends; first writer wins
	removed atomic.Bool
}

// session returns the session of a five-tuple.
func (s *Server) session(t fiveTuple) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ses := s.sessions[t]; ses != nil {
		return ses
	}
	return s.moving[t]
}

// end ends the allocation for the reason given. It returns when the relay
// socket is closed and the port is free.
func (ses *session) end(reason string) {
	ses.reason.CompareAndSwap(nil, &reason)
	for _, l := range ses.live() {
		_ = l.alloc.Close() // the allocator being closed says the same
	}
}

// ended is called when the last leg is gone.
func (ses *session) ended() {
	if ses.removed.Swap(true) {
		return
	}
	expired := "expired"
	ses.reason.CompareAndSwap(nil, &expired)
	s := ses.s
	s.mu.Lock()
	if next := ses.next.Load(); next != nil {
		s.stay(ses, next)
	}
	at := ses.at.Load()
	if s.sessions[at.tuple] == ses {
		delete(s.sessions, at.tuple)
		delete(s.tickets, at.ticket)
		at.from.closed()
		s.metrics.closed(ses)
		s.left(ses)
	}
	drop(s.perUser, ses.user)
	drop(s.perSource, limit.Source(at.tuple.client.Addr()))
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
	if at.tuple.transport == UDP {
		s.table.Delete(at.path(), ses.legs[0].relay)
	}

	sum := ses.traffic()
	ses.log.LogAttrs(context.Background(), slog.LevelInfo, "allocation closed",
		slog.String("reason", *ses.reason.Load()),
		slog.Uint64("bytes_up", sum.bytes[0]),
		slog.Uint64("bytes_down", sum.bytes[1]),
		slog.Uint64("dropped", sum.unpermitted[0]+sum.unpermitted[1]),
		slog.Duration("duration", time.Since(ses.created).Round(time.Millisecond)))
}

func drop[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] <= 0 {
		delete(counts, k)
	}
}

func newID() string {
	var b [6]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// printable cuts a user name that a stranger chose to what a log line bears.
func printable(user string) string {
	const most = 64
	if len(user) > most {
		return user[:most] + "…"
	}
	return user
}

// Session describes a live allocation.
type Session struct {
	ID          string           `json:"id"`
	Transport   Transport        `json:"transport"`
	Client      netip.AddrPort   `json:"client"`
	Server      netip.AddrPort   `json:"server"`
	Away        bool             `json:"away,omitempty"` // its connection is lost, and it may come back with a ticket
	User        string           `json:"user"`
	Relays      []netip.AddrPort `json:"relays"` // one, or one of each family
	Created     time.Time        `json:"created"`
	Expires     time.Time        `json:"expires"`
	Permissions int              `json:"permissions"`
	Channels    int              `json:"channels"`
	BytesUp     uint64           `json:"bytes_up"`
	BytesDown   uint64           `json:"bytes_down"`
	PacketsUp   uint64           `json:"packets_up"`
	PacketsDown uint64           `json:"packets_down"`
	Dropped     uint64           `json:"dropped"`    // no permission, no channel
	OverBudget  uint64           `json:"over_limit"` // dropped for a limit of bandwidth

	// Bytes a second, the mean of the last seconds.
	RateUp   float64 `json:"rate_up"`
	RateDown float64 `json:"rate_down"`
	Peers    []Peer  `json:"peers"`

	InKernel int `json:"in_kernel"` // channels that the kernel relays
}

// Peer is an address that may send to a client, or one with a channel.
type Peer struct {
	Address netip.AddrPort `json:"address"` // port 0 without a channel
	Channel uint16         `json:"channel,omitempty"`
	Until   time.Time      `json:"until"`
}

// Sessions describes the live allocations, in no order.
func (s *Server) Sessions() []Session {
	live := s.snapshot()
	all := make([]Session, 0, len(live))
	for _, ses := range live {
		all = append(all, ses.describe())
	}
	return all
}

func (ses *session) describe() Session {
	sum := ses.traffic()
	permits, channels := ses.counts()
	inKernel := 0
	for _, l := range ses.legs {
		inKernel += l.inKernel()
	}
	ses.mu.Lock()
	expires := ses.expires
	ses.mu.Unlock()
	up, down := ses.rates.last(sum.bytes[0], sum.bytes[1])
	tuple := ses.at.Load().tuple
	return Session{
		ID: ses.id, Transport: tuple.transport, Client: tuple.client, Server: tuple.server, Away: tuple.away != 0,
		User: ses.user, Relays: ses.relayed(), Created: ses.created, Expires: expires,
		Permissions: permits, Channels: channels,
		BytesUp: sum.bytes[0], BytesDown: sum.bytes[1],
		PacketsUp: sum.packets[0], PacketsDown: sum.packets[1],
		Dropped:    sum.unpermitted[0] + sum.unpermitted[1],
		OverBudget: sum.limited[0] + sum.limited[1],
		RateUp:     up, RateDown: down,
		Peers:    ses.peers(),
		InKernel: inKernel,
	}
}

// Kick ends the allocations that match reports true for and returns how many
// those were.
func (s *Server) Kick(match func(Session) bool) int {
	n := 0
	for _, ses := range s.snapshot() {
		if match(ses.describe()) {
			ses.end("kicked")
			n++
		}
	}
	return n
}

// transactionIDs makes the transaction ids of Data indications: a random
// beginning and a counter, which differ as RFC 8489 section 5 wants and cost
// nothing per packet.
type transactionIDs struct {
	base  wire.TransactionID
	count atomic.Uint64
}

func newTransactionIDs() *transactionIDs { return &transactionIDs{base: wire.NewTransactionID()} }

func (t *transactionIDs) next() wire.TransactionID {
	id := t.base
	n := t.count.Add(1) + binary.BigEndian.Uint64(id[4:])
	binary.BigEndian.PutUint64(id[4:], n)
	return id
}
