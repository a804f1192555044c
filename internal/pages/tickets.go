package pages

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"sync"
	"time"
)

// Tickets are the one-time links to the check page and the sessions that they
// opened. They outlive a reload and end with the process. Its methods may be
// called at once; what it holds is bounded.
type Tickets struct {
	mu       sync.Mutex // guards the fields below
	tickets  map[hash]*ticket
	sessions map[hash]*Session
	probes   map[string]*Session // by their probe key
}

// hash is that of a token: what is kept could not be used by who reads it, and
// looking one up tells nothing by the time it takes.
type hash [sha256.Size]byte

type ticket struct {
	made, expires time.Time
	used          bool
}

const (
	maxTickets  = 256 // used and expired ones included, the oldest goes first
	maxSessions = 64

	// sessionLife is how long a check may be repeated after its link was opened.
	sessionLife = 30 * time.Minute
)

// Why a link is not accepted.
var (
	ErrUnknown = errors.New("unknown") // of no ticket, or of a process before this one
	ErrUsed    = errors.New("used")
	ErrExpired = errors.New("expired")
)

// NewTickets returns an empty collection.
func NewTickets() *Tickets {
	return &Tickets{tickets: make(map[hash]*ticket), sessions: make(map[hash]*Session), probes: make(map[string]*Session)}
}

// Session is one browser that opened a link.
type Session struct {
	ID      string // for people: the report and our log name the check by it
	Expires time.Time

	probeKey string
	made     time.Time

	mu      sync.Mutex // guards the fields below
	probes  map[int]*Probe
	servers int // credentials handed out
	ends    int // results noted
}

// Issue makes a token that opens one session before its lifetime is over.
func (t *Tickets) Issue(life time.Duration) (token string, expires time.Time) {
	token = random(18)
	now := time.Now()
	expires = now.Add(life)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.tickets) >= maxTickets {
		drop(t.tickets, func(k *ticket) time.Time { return k.made })
	}
	t.tickets[sha256.Sum256([]byte(token))] = &ticket{made: now, expires: expires}
	return token, expires
}

// Redeem opens the session of a token. The key is what the browser shows from
// then on.
func (t *Tickets) Redeem(token string) (s *Session, key string, err error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.tickets[sha256.Sum256([]byte(token))]
	switch {
	case k == nil:
		return nil, "", ErrUnknown
	case k.used:
		return nil, "", ErrUsed
	case !now.Before(k.expires):
		return nil, "", ErrExpired
	}
	k.used = true
	t.sweep(now)
	s = &Session{ID: reportID(), Expires: now.Add(sessionLife), made: now, probeKey: random(12), probes: make(map[int]*Probe)}
	key = random(18)
	t.sessions[sha256.Sum256([]byte(key))] = s
	t.probes[s.probeKey] = s
	return s, key, nil
}

// Session returns the session of a key, nil when there is none any more.
func (t *Tickets) Session(key string) *Session {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.sessions[sha256.Sum256([]byte(key))]
	if s == nil || !time.Now().Before(s.Expires) {
		return nil
	}
	return s
}

// Open returns how many sessions are kept.
func (t *Tickets) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.sessions)
}

// sweep forgets the sessions that are over, and the oldest one if there are too
// many. t.mu is held.
func (t *Tickets) sweep(now time.Time) {
	for h, s := range t.sessions {
		if !now.Before(s.Expires) {
			delete(t.sessions, h)
		}
	}
	if len(t.sessions) >= maxSessions {
		drop(t.sessions, func(s *Session) time.Time { return s.made })
	}
	clear(t.probes)
	for _, s := range t.sessions {
		t.probes[s.probeKey] = s
	}
}

// drop removes the oldest.
func drop[T any](m map[hash]T, made func(T) time.Time) {
	var oldest hash
	var at time.Time
	for h, v := range m {
		if at.IsZero() || made(v).Before(at) {
			oldest, at = h, made(v)
		}
	}
	delete(m, oldest)
}

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// reportID is short enough to be read out on the phone, and without letters
// that look alike.
func reportID() string {
	b := make([]byte, 5)
	rand.Read(b)
	s := base32.NewEncoding("ABCDEFGHJKLMNPQRSTUVWXYZ23456789").EncodeToString(b)
	return s[:4] + "-" + s[4:]
}
