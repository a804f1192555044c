package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2 is an HTTP/2 client that sends any frame.
type h2 struct {
	*attacker
	*http2.Framer
	stream uint32
}

func (tg *target) dialH2(t testing.TB, settings ...http2.Setting) *h2 {
	t.Helper()
	a := tg.dial(t, "h2")
	c := &h2{attacker: a, Framer: http2.NewFramer(a.Conn, a.Conn), stream: 1}
	c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	a.send(http2.ClientPreface)
	c.WriteSettings(settings...)
	return c
}

// open sends HEADERS with exactly these fields on a new stream. Every block is
// encoded on its own, so that a field can be anything.
func (c *h2) open(end bool, fields ...hpack.HeaderField) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range fields {
		f.Sensitive = true // not for the dynamic table
		e.WriteField(f)
	}
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: block.Bytes(), EndStream: end, EndHeaders: true})
	c.stream += 2
}

// outcome reads until the last opened stream or the connection is over: the
// status, "reset", "goaway" or "closed"; "open" at the deadline.
func (c *h2) outcome() string {
	got := "closed"
	for {
		f, err := c.ReadFrame()
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			got = f.PseudoValue("status")
			if f.StreamEnded() {
				return got
			}
		case *http2.DataFrame:
			if f.StreamEnded() {
				return got
			}
		case *http2.RSTStreamFrame:
			if got == "closed" {
				return "reset"
			}
			return got
		case *http2.GoAwayFrame:
			return "goaway"
		}
		var se http2.StreamError
		if err != nil && !errors.As(err, &se) {
			if isTimeout(err) {
				return "open"
			}
			return got
		}
	}
}

func fields(pairs ...string) (list []hpack.HeaderField) {
	for i := 0; i < len(pairs); i += 2 {
		list = append(list, hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return list
}

// What HTTP/2 lets through as bytes and HTTP/1.1 would read as syntax does not
// pass from one to the other.
func TestSmugglingOverHTTP2(t *testing.T) {
	tg := attacked(t, "", "")
	plain := func(path string, more ...string) []hpack.HeaderField {
		return fields(append([]string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", path}, more...)...)
	}
	const hidden = "\r\n\r\nGET /logger/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for n, row := range []struct {
		name   string
		fields func(path string) []hpack.HeaderField
		body   string
		ok     bool // it may be forwarded
	}{
		{"a good request", func(p string) []hpack.HeaderField { return plain(p) }, "hello", true},
		{"a good length", func(p string) []hpack.HeaderField { return plain(p, "content-length", "5") }, "hello", true},
		{"a Host beside the authority", func(p string) []hpack.HeaderField { return plain(p, "host", "evil.example") }, "hello", true},
		{"TE trailers", func(p string) []hpack.HeaderField { return plain(p, "te", "trailers") }, "hello", true},
		{"CR LF in a value", func(p string) []hpack.HeaderField { return plain(p, "x-a", "b"+hidden) }, "hello", false},
		{"LF in a value", func(p string) []hpack.HeaderField { return plain(p, "x-a", "b\nx-smuggled: smuggled") }, "hello", false},
		{"NUL in a value", func(p string) []hpack.HeaderField { return plain(p, "x-a", "b\x00c") }, "hello", false},
		{"CR LF in a name", func(p string) []hpack.HeaderField { return plain(p, "x-a\r\nx-smuggled", "b") }, "hello", false},
		{"a colon in a name", func(p string) []hpack.HeaderField { return plain(p, "x-a:", "b") }, "hello", false},
		{"a blank in a name", func(p string) []hpack.HeaderField { return plain(p, "x a", "b") }, "hello", false},
		{"upper case in a name", func(p string) []hpack.HeaderField { return plain(p, "X-A", "b") }, "hello", false},
		{"an empty name", func(p string) []hpack.HeaderField { return plain(p, "", "b") }, "hello", false},
		{"Transfer-Encoding", func(p string) []hpack.HeaderField { return plain(p, "transfer-encoding", "chunked") }, "0" + hidden, false},
		{"Connection", func(p string) []hpack.HeaderField { return plain(p, "connection", "close") }, "hello", false},
		{"Upgrade", func(p string) []hpack.HeaderField { return plain(p, "upgrade", "websocket") }, "hello", false},
		{"Proxy-Connection", func(p string) []hpack.HeaderField { return plain(p, "proxy-connection", "keep-alive") }, "hello", false},
		{"Keep-Alive", func(p string) []hpack.HeaderField { return plain(p, "keep-alive", "x") }, "hello", false},
		{"TE gzip", func(p string) []hpack.HeaderField { return plain(p, "te", "gzip") }, "hello", false},
		{"a length too short", func(p string) []hpack.HeaderField { return plain(p, "content-length", "1") }, "hello" + hidden, false},
		{"a length too long", func(p string) []hpack.HeaderField { return plain(p, "content-length", "500") }, "hello", false},
		{"two lengths", func(p string) []hpack.HeaderField { return plain(p, "content-length", "5", "content-length", "6") }, "hello", false},
		{"a length that is none", func(p string) []hpack.HeaderField { return plain(p, "content-length", "+5") }, "hello", false},
		{"CR LF in the path", func(p string) []hpack.HeaderField { return plain(p + " HTTP/1.1" + hidden) }, "hello", false},
		{"a blank in the path", func(p string) []hpack.HeaderField { return plain(p + " HTTP/1.1") }, "hello", false},
		{"a tab in the path", func(p string) []hpack.HeaderField { return plain(p + "\tx") }, "hello", false},
		{"8 bits in the path", func(p string) []hpack.HeaderField { return plain(p + "\xff") }, "hello", false},
		{"a fragment in the path", func(p string) []hpack.HeaderField { return plain(p + "#x") }, "hello", false},
		{"a path without slash", func(p string) []hpack.HeaderField { return plain(p[1:]) }, "hello", false},
		{"an absolute path", func(p string) []hpack.HeaderField { return plain("https://127.0.0.1:1" + p) }, "hello", true},
		{"an asterisk", func(p string) []hpack.HeaderField { return plain("*") }, "hello", false},
		{"an escaped dot segment", func(p string) []hpack.HeaderField { return plain(p + "/%2e%2e/x") }, "hello", false},
		{"an empty path", func(p string) []hpack.HeaderField { return plain("") }, "hello", false},
		{"two paths", func(p string) []hpack.HeaderField { return append(fields(":path", "/logger/smuggled"), plain(p)...) }, "hello", false},
		{"two methods", func(p string) []hpack.HeaderField { return append(fields(":method", "GET"), plain(p)...) }, "hello", false},
		{"two authorities", func(p string) []hpack.HeaderField { return append(fields(":authority", "evil.example"), plain(p)...) }, "hello", false},
		{"a path behind the fields", func(p string) []hpack.HeaderField { return plain(p, "x-a", "b", ":path", "/logger/smuggled") }, "hello", false},
		{"an unknown pseudo field", func(p string) []hpack.HeaderField { return append(fields(":evil", "x"), plain(p)...) }, "hello", false},
		{"a pseudo field of answers", func(p string) []hpack.HeaderField { return append(fields(":status", "200"), plain(p)...) }, "hello", false},
		{"no method", func(p string) []hpack.HeaderField {
			return fields(":scheme", "https", ":authority", "localhost", ":path", p)
		}, "hello", false},
		{"a method with a blank", func(p string) []hpack.HeaderField {
			return fields(":method", "GET /logger/smuggled HTTP/1.1\r\n", ":scheme", "https", ":authority", "localhost", ":path", p)
		}, "hello", false},
		{"an authority with CR LF", func(p string) []hpack.HeaderField {
			return fields(":method", "POST", ":scheme", "https", ":authority", "localhost"+hidden, ":path", p)
		}, "hello", false},
		{"CONNECT", func(p string) []hpack.HeaderField { return fields(":method", "CONNECT", ":authority", "127.0.0.1:1") }, "hello", false},
		{"extended CONNECT", func(p string) []hpack.HeaderField {
			return fields(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "localhost", ":path", "/ws/")
		}, "hello", false},
		{"extended CONNECT for UDP", func(p string) []hpack.HeaderField {
			return fields(":method", "CONNECT", ":protocol", "connect-udp", ":scheme", "https", ":authority", "localhost", ":path", "/.well-known/masque/udp/127.0.0.1/1/")
		}, "hello", false},
		{"2000 fields", func(p string) []hpack.HeaderField {
			list := plain(p)
			for i := range 2000 {
				list = append(list, hpack.HeaderField{Name: fmt.Sprint("x-", i), Value: "1"})
			}
			return list
		}, "hello", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			for m, prefix := range append(slices.Clone(plainPaths), "/ws/") {
				marker := fmt.Sprintf("h2row%d-%d.", n, m)
				c := tg.dialH2(t)
				c.SetDeadline(time.Now().Add(5 * time.Second))
				if row.ok {
					c.SetDeadline(time.Now().Add(time.Minute))
				}
				c.open(false, row.fields(prefix+marker)...)
				c.WriteData(c.stream-2, true, []byte(row.body))
				got := c.outcome()
				c.NetConn().Close()
				if row.ok {
					if prefix != "/ws/" && got != "200" {
						t.Errorf("%s: got %s, want 200", prefix, got)
					}
				} else if got == "open" || strings.HasPrefix(got, "2") {
					t.Errorf("%s: got %s, want a refusal", prefix, got)
				}
				for _, e := range tg.received(marker) {
					if e.body != row.body && !strings.HasPrefix(e.body, "cut: ") || !row.ok && !strings.HasPrefix(e.body, "cut: ") {
						t.Errorf("%s: upstream received %q %q", prefix, e.head, e.body)
					}
				}
			}
		})
	}
	tg.control(t)
	tg.blameless(t)
}

// Floods of cheap frames end the connection or are borne; others are served,
// and no goroutine is left.
func TestFloodsOverHTTP2(t *testing.T) { onEveryListener(t, floodsOverHTTP2) }

func floodsOverHTTP2(t *testing.T, attacked func(t testing.TB, https, extra string) *target) {
	tg := attacked(t, "", "")
	held, left := 32<<10, 12<<10
	if tg.addr != tg.https {
		held, left = 0, 0 // what a turngate before this one left would be counted too
	}
	request := func(path string) []hpack.HeaderField {
		return fields(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", path)
	}
	for _, row := range []struct {
		name  string
		flood func(c *h2)
	}{
		{"3000 rapid resets of reports", func(c *h2) {
			for range 3000 {
				c.open(true, request("/logger/reset")...)
				c.WriteRSTStream(c.stream-2, http2.ErrCodeCancel)
			}
		}},
		{"3000 rapid resets of nothing", func(c *h2) {
			for range 3000 {
				c.open(true, request("/healthz")...)
				c.WriteRSTStream(c.stream-2, http2.ErrCodeCancel)
			}
		}},
		{"3000 streams that are made to be reset", func(c *h2) { // CVE-2025-8671
			for range 3000 {
				c.open(true, request("/healthz")...)
				c.WriteWindowUpdate(c.stream-2, 0x7fffffff)
			}
		}},
		{"3000 streams at once", func(c *h2) {
			for range 3000 {
				c.open(false, request("/logger/open")...)
			}
		}},
		{"5000 SETTINGS", func(c *h2) {
			for range 5000 {
				c.WriteSettings()
			}
		}},
		{"5000 SETTINGS of the table size", func(c *h2) {
			for i := range 5000 {
				c.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(i)})
			}
		}},
		{"5000 PING", func(c *h2) {
			for range 5000 {
				c.WritePing(false, [8]byte{})
			}
		}},
		{"5000 PRIORITY", func(c *h2) {
			for i := range 5000 {
				c.WritePriority(uint32(2*i+1), http2.PriorityParam{StreamDep: uint32(2*i + 3)})
			}
		}},
		{"5000 empty DATA", func(c *h2) {
			c.open(false, fields(":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/logger/empty")...)
			for range 5000 {
				c.WriteData(1, false, nil)
			}
		}},
		{"5000 WINDOW_UPDATE", func(c *h2) {
			for range 5000 {
				c.WriteWindowUpdate(0, 1)
			}
		}},
		{"a window that overflows", func(c *h2) {
			c.WriteWindowUpdate(0, 0x7fffffff)
			c.WriteWindowUpdate(0, 0x7fffffff)
		}},
		{"CONTINUATION without end", func(c *h2) { // CVE-2023-45288
			var block bytes.Buffer
			e := hpack.NewEncoder(&block)
			for _, f := range request("/logger/continued") {
				e.WriteField(f)
			}
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes()})
			block.Reset()
			for i := range 200 {
				e.WriteField(hpack.HeaderField{Name: fmt.Sprint("x-", i), Value: strings.Repeat("y", 50), Sensitive: true})
			}
			for range 500 {
				if c.WriteContinuation(1, false, block.Bytes()) != nil {
					return
				}
			}
		}},
		{"a header bomb", func(c *h2) { // one entry of the table, named 16 bits at a time
			big := hpack.HeaderField{Name: "x-bomb", Value: strings.Repeat("y", 3900)}
			var block bytes.Buffer
			e := hpack.NewEncoder(&block)
			for range 20 {
				for _, f := range request("/logger/bomb") {
					e.WriteField(f)
				}
				for range 10_000 {
					e.WriteField(big)
				}
				c.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
				c.stream += 2
				block.Reset()
			}
		}},
		{"a frame of 16 MiB", func(c *h2) {
			c.send("\xff\xff\xff\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", 1<<20))
		}},
		{"frames of unknown types", func(c *h2) {
			for range 5000 {
				c.WriteRawFrame(0xee, 0xff, 0, []byte("unknown"))
			}
		}},
		{"a push of the client's", func(c *h2) {
			c.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			tg.costs(t, held, left, func(held func()) {
				c := tg.dialH2(t)
				c.SetDeadline(time.Now().Add(15 * time.Second))
				read := make(chan struct{})
				go func() {
					defer close(read)
					io.Copy(io.Discard, c.Conn)
				}()
				row.flood(c)
				tg.control(t)
				held()
				c.NetConn().Close()
				<-read
			})
		})
	}
	tg.blameless(t)
}

// A client that opens streams and lets no answer out has them for a while only.
func TestAnswersNobodyTakesOverHTTP2(t *testing.T) {
	t.Parallel()
	onEveryListener(t, answersNobodyTakesOverHTTP2)
}

func answersNobodyTakesOverHTTP2(t *testing.T, attacked func(t testing.TB, https, extra string) *target) {
	t.Parallel()
	tg := attacked(t, "", "")
	c := tg.dialH2(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.SetDeadline(time.Now().Add(time.Minute))
	const streams = 90
	for i := range streams {
		path := []string{"/logger/untaken", "/schedule/api/v1/config", "/nowhere"}[i%3]
		c.open(true, fields(":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", path)...)
	}
	tg.control(t)
	over := 0
	for over < streams {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatalf("%d of %d streams are over: %v", over, streams, err)
		}
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			over++
		case *http2.GoAwayFrame:
			return
		case *http2.PingFrame:
			if !f.IsAck() {
				c.WritePing(true, f.Data)
			}
		}
	}
	tg.control(t)
	tg.blameless(t)
}
