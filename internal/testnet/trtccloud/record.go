package trtccloud

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"
)

// Request is one HTTP request as it arrived, WebSocket handshakes included.
type Request struct {
	Time   time.Time
	Method string
	Target string // request target, byte for byte
	Path   string
	Query  string // raw
	Host   string
	SNI    string // empty when the client sent none
	Header http.Header
	Remote string
}

// ScheduleRequest is one question to the scheduler.
type ScheduleRequest struct {
	Host string
	Form url.Values
}

// Report is one log report.
type Report struct {
	Host     string
	CmdType  string
	SDKAppID string
	Gzip     string // the gzip parameter: "", "0", "1"
	Body     []byte // unpacked when Gzip is "1"
	Status   int    // what the cloud answered
}

// Command is one message a client sent over signaling.
type Command struct {
	User string
	Name string
	Seq  int64
	Data json.RawMessage
}

// Join is one accepted join.
type Join struct {
	User, Room, SDKAppID string
	Version              string // of the SDK
	V5                   bool   // join/v2
	Data                 json.RawMessage
}

// Media is one media connection (a PeerConnection of a client).
type Media struct {
	User, Room string
	State      string // of the connection, as pion names it
	Video      Track
	Audio      Track
	Messages   int // on the data channel
}

// Track counts what was received of one kind.
type Track struct {
	Codec     string
	Packets   int
	Bytes     int // RTP payload
	Keyframes int // H.264 and VP8
}

// State is everything the cloud has seen. Slices are in order of arrival.
type State struct {
	Requests   []Request
	Schedules  []ScheduleRequest
	Reports    []Report
	Commands   []Command
	Hellos     int // signaling connections accepted
	Joins      []Join
	Reconnects []Command // "reconnect" commands and rc=1 handshakes that found their seat
	Publishes  []Command // publish/v2 and publish
	Leaves     []Command
	Media      []Media

	// Sources counts the datagrams that the media server received, by where they
	// came from: the relays, if nothing else is used.
	Sources map[netip.AddrPort]int
}

// Signals returns the WebSocket handshakes among the requests.
func (s State) Signals() []Request {
	var out []Request
	for _, r := range s.Requests {
		if r.Header.Get("Upgrade") != "" {
			out = append(out, r)
		}
	}
	return out
}

// ReportsOf returns the accepted reports of the kind, for example "jssdk_log".
func (s State) ReportsOf(cmdType string) []Report {
	var out []Report
	for _, r := range s.Reports {
		if r.CmdType == cmdType && r.Status == http.StatusOK {
			out = append(out, r)
		}
	}
	return out
}

// Summary is a line for failure messages.
func (s State) Summary() string {
	return fmt.Sprintf("%d requests, %d schedules, %d hellos, %d joins, %d reconnects, %d publishes, %d leaves, %d reports, %d commands, media %+v",
		len(s.Requests), len(s.Schedules), s.Hellos, len(s.Joins), len(s.Reconnects), len(s.Publishes), len(s.Leaves),
		len(s.Reports), len(s.Commands), s.Media)
}

// State returns a copy of what the cloud has seen so far.
func (c *Cloud) State() State { return c.recorder.snapshot() }

// Wait blocks until ok accepts the state, and returns it. When ctx ends first
// the error says what had been seen.
func (c *Cloud) Wait(ctx context.Context, what string, ok func(State) bool) (State, error) {
	for {
		changed := c.recorder.next()
		s := c.recorder.snapshot()
		if ok(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s, fmt.Errorf("waiting for %s: %w; seen: %s", what, context.Cause(ctx), s.Summary())
		}
	}
}

type recorder struct {
	mu      sync.Mutex // guards the fields below
	state   State
	changed chan struct{} // closed and forgotten at a change; nil when nobody waits
}

func (r *recorder) add(change func(*State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.state)
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// quiet changes the state without waking anybody, for counters that move per packet.
func (r *recorder) quiet(change func(*State)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.state)
}

func (r *recorder) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

func (r *recorder) snapshot() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Requests = slices.Clone(s.Requests)
	s.Schedules = slices.Clone(s.Schedules)
	s.Reports = slices.Clone(s.Reports)
	s.Commands = slices.Clone(s.Commands)
	s.Joins = slices.Clone(s.Joins)
	s.Reconnects = slices.Clone(s.Reconnects)
	s.Publishes = slices.Clone(s.Publishes)
	s.Leaves = slices.Clone(s.Leaves)
	s.Media = slices.Clone(s.Media)
	s.Sources = maps.Clone(s.Sources)
	return s
}
