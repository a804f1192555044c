// Package watchrtc is a fake watchRTC service: the WebSocket that the SDK sends
// statistics to and the HTTPS requests beside it, as the SDK expects them.
package watchrtc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
)

// Hosts of the service, by environment.
const (
	Production       = "watchrtc-server.cyara.com"
	Staging          = "watchrtc.spearline.dev"
	ProductionLegacy = "watchrtc.testrtc.com"
	StagingLegacy    = "watchrtc-staging2.testrtc.com"
)

// APIKey is the only key that is let in.
const APIKey = "00000000-test-key"

// Backend is a running service. Its methods may be called at once.
type Backend struct {
	*testnet.Upstream
	CA *testnet.CA

	origin string

	mu      sync.Mutex // guards the fields below
	state   State
	changed chan struct{} // closed and forgotten at a change; nil when nobody waits
	sockets map[*websocket.Conn]bool
}

// State is what the backend has seen, in order of arrival.
type State struct {
	Sockets  []Request // WebSocket handshakes
	Records  []Record  // what came over them
	Requests []Request // HTTPS requests, preflights included
	Open     int       // WebSockets
}

// Request is a request or handshake as it arrived.
type Request struct {
	Method, Host, SNI string
	Target            string // byte for byte
	Header            http.Header
	Body              []byte
	Status            int // what was answered
}

// Record is one record of a message: name, peer connection, data, time.
type Record struct {
	Socket     int // index in Sockets
	Name       string
	Compressed bool // came as LZ-string
	Data       json.RawMessage
}

// Start starts a backend on loopback that takes pages of one origin, as the vendor's
// does whose customer has listed it. It ends with the test.
func Start(t testing.TB, origin string) *Backend {
	t.Helper()
	b := &Backend{CA: testnet.NewCA(t, "watchRTC test authority"), origin: origin, sockets: make(map[*websocket.Conn]bool)}
	b.Upstream = testnet.NewUpstream(t, b.CA.Issue(t, Production, Staging, ProductionLegacy, StagingLegacy), http.HandlerFunc(b.serve))
	return b
}

// State returns a copy of what was seen so far.
func (b *Backend) State() State {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.state
	s.Sockets, s.Records, s.Requests = slices.Clone(s.Sockets), slices.Clone(s.Records), slices.Clone(s.Requests)
	s.Open = len(b.sockets)
	return s
}

// Wait blocks until ok accepts the state, and returns it.
func (b *Backend) Wait(ctx context.Context, what string, ok func(State) bool) (State, error) {
	for {
		b.mu.Lock()
		if b.changed == nil {
			b.changed = make(chan struct{})
		}
		changed := b.changed
		b.mu.Unlock()
		s := b.State()
		if ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			var names []string
			for _, r := range s.Records {
				names = append(names, r.Name)
			}
			return s, fmt.Errorf("waiting for %s: %w; seen %d sockets, records %v, requests %+v", what, context.Cause(ctx), len(s.Sockets), names, s.Requests)
		}
	}
}

// Drop cuts every WebSocket without a close frame, as a backend does that dies.
func (b *Backend) Drop() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(b.sockets)
	for c := range b.sockets {
		_ = c.NetConn().Close()
	}
	return n
}

func (b *Backend) change(f func(*State)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(&b.state)
	if b.changed != nil {
		close(b.changed)
		b.changed = nil
	}
}

func (b *Backend) serve(w http.ResponseWriter, r *http.Request) {
	req := Request{Method: r.Method, Host: r.Host, Target: r.RequestURI, Header: r.Header.Clone()}
	if r.TLS != nil {
		req.SNI = r.TLS.ServerName
	}
	if r.Header.Get("Upgrade") != "" {
		b.socket(w, r, req)
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	if err != nil {
		return
	}
	req.Body = body
	// The vendor answers for pages of the customer's; the proxy adds nothing to it.
	w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	w.Header().Set("Access-Control-Expose-Headers", "X-Watchrtc-Test")
	w.Header().Set("X-Watchrtc-Test", "as it was sent")
	w.Header().Set("Vary", "Origin")
	known := slices.Contains([]string{"/trace", "/error"}, r.URL.EscapedPath())
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Access-Control-Allow-Methods", "POST")
		w.Header().Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
		req.Status = http.StatusNoContent
	case r.Method == http.MethodGet && r.URL.EscapedPath() == "/get-qualityrtc-config":
		req.Status = http.StatusOK
	case !known:
		req.Status = http.StatusNotFound
	case r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || !json.Valid(body):
		req.Status = http.StatusBadRequest
	default:
		req.Status = http.StatusOK
	}
	w.WriteHeader(req.Status)
	b.change(func(s *State) { s.Requests = append(s.Requests, req) })
}

func (b *Backend) socket(w http.ResponseWriter, r *http.Request, req Request) {
	up := websocket.Upgrader{
		Subprotocols:      []string{"2.0"},
		EnableCompression: true,
		CheckOrigin:       func(r *http.Request) bool { return b.origin == "" || r.Header.Get("Origin") == b.origin },
		Error: func(w http.ResponseWriter, r *http.Request, status int, _ error) {
			req.Status = status
			b.change(func(s *State) { s.Sockets = append(s.Sockets, req) })
			w.WriteHeader(status)
		},
	}
	if r.URL.EscapedPath() != "/" || !slices.Equal(websocket.Subprotocols(r), []string{"2.0"}) {
		up.Error(w, r, http.StatusBadRequest, nil)
		return
	}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	req.Status = http.StatusSwitchingProtocols
	index := 0
	b.change(func(s *State) {
		index = len(s.Sockets)
		s.Sockets = append(s.Sockets, req)
		b.sockets[c] = true
	})
	defer b.change(func(*State) { delete(b.sockets, c) })
	hello := map[string]any{"projectId": "project", "connectionId": fmt.Sprint("connection-", index), "interval": 500, "collectConsoleLogEnabled": false}
	if r.URL.Query().Get("apiKey") != APIKey {
		hello = map[string]any{"error": "unknown key"}
	}
	if c.WriteJSON(hello) != nil {
		return
	}
	for {
		_, message, err := c.ReadMessage()
		if err != nil {
			return
		}
		records := parse(message)
		for i := range records {
			records[i].Socket = index
		}
		b.change(func(s *State) { s.Records = append(s.Records, records...) })
	}
}

// parse reads a message: one record or a list of them as JSON, or a list as LZ-string.
func parse(message []byte) []Record {
	text, compressed := string(message), false
	if !strings.HasPrefix(text, "[") {
		plain, err := decompress(text)
		if err != nil {
			return []Record{{Name: "broken: " + err.Error()}}
		}
		text, compressed = plain, true
	}
	var list []json.RawMessage
	if err := json.Unmarshal([]byte(text), &list); err != nil || len(list) == 0 {
		return []Record{{Name: "broken: no list"}}
	}
	if !strings.HasPrefix(string(list[0]), "[") { // one record
		list = []json.RawMessage{json.RawMessage(text)}
	}
	var records []Record
	for _, raw := range list {
		var fields []json.RawMessage
		r := Record{Compressed: compressed, Data: raw}
		if json.Unmarshal(raw, &fields) != nil || len(fields) == 0 || json.Unmarshal(fields[0], &r.Name) != nil {
			r.Name = "broken: no record"
		}
		records = append(records, r)
	}
	return records
}

// Of returns the records of a name.
func (s State) Of(name string) []Record {
	var out []Record
	for _, r := range s.Records {
		if r.Name == name {
			out = append(out, r)
		}
	}
	return out
}

// To returns the HTTPS requests of a method to a target.
func (s State) To(method, target string) []Request {
	var out []Request
	for _, r := range s.Requests {
		if r.Method == method && r.Target == target {
			out = append(out, r)
		}
	}
	return out
}
