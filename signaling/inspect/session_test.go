package inspect

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// frame is a client's frame with a mask of zeros.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	return append(append(b, 0, 0, 0, 0), payload...)
}

func deflated(t *testing.T, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write(p)
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func TestWhatAClientDoesWrong(t *testing.T) {
	const limit = 2048
	big := bytes.Repeat([]byte("x"), limit+1)
	for _, c := range []struct {
		name    string
		deflate bool
		send    func(t *testing.T) []byte
		code    int // 0: the message of the limit's size passes
		reason  string
	}{
		{"a message of the limit", false, func(*testing.T) []byte { return frame(0x81, big[1:]) }, 0, ""},
		{"one byte more", false, func(*testing.T) []byte { return frame(0x81, big) }, 1009, "message too big"},
		{"fragments of the limit", false, func(*testing.T) []byte {
			return append(frame(0x01, big[:1024]), frame(0x80, big[:1024])...)
		}, 0, ""},
		{"fragments of more", false, func(*testing.T) []byte {
			return append(frame(0x01, big[:1024]), frame(0x80, big[:1025])...)
		}, 1009, "message too big"},
		{"deflate within the limit", true, func(t *testing.T) []byte { return frame(0xc1, deflated(t, big[1:])) }, 0, ""},
		{"deflate that inflates to more", true, func(t *testing.T) []byte { return frame(0xc1, deflated(t, big)) }, 1009, "message too big"},
		{"a deflate bomb", true, func(t *testing.T) []byte {
			return frame(0xc1, deflated(t, make([]byte, 64<<20)))
		}, 1009, "message too big"},
		{"deflate that says nothing for ever", true, func(*testing.T) []byte {
			return frame(0xc1, bytes.Repeat([]byte{0, 0, 0, 0xff, 0xff}, 4096))
		}, 1009, "message too big"},
		{"deflate that is none", true, func(*testing.T) []byte { return frame(0xc1, []byte{0xff, 0xff, 0xff}) }, 1002, "protocol error"},
		{"deflate that was not agreed", false, func(t *testing.T) []byte { return frame(0xc1, deflated(t, big[1:])) }, 1002, "RSV1 set"},
		{"text that is not UTF-8", false, func(*testing.T) []byte { return frame(0x81, []byte("a\xff")) }, 1007, "text is not UTF-8"},
		{"an unknown opcode", false, func(*testing.T) []byte { return frame(0x83, nil) }, 1002, "bad opcode 3"},
		{"no mask", false, func(*testing.T) []byte { return []byte{0x81, 1, 'x'} }, 1002, "bad MASK"},
		{"nothing to continue", false, func(*testing.T) []byte { return frame(0x80, nil) }, 1002, "continuation after FIN"},
		{"a close code that cannot be", false, func(*testing.T) []byte { return frame(0x88, []byte{3, 237}) }, 1002, "protocol error"},
		{"the close code 1006", false, func(*testing.T) []byte { return frame(0x88, []byte{3, 238}) }, 1002, "protocol error"},
		{"the close code 1015", false, func(*testing.T) []byte { return frame(0x88, []byte{3, 247}) }, 1002, "protocol error"},
		{"the close code 2999", false, func(*testing.T) []byte { return frame(0x88, []byte{11, 183}) }, 1002, "protocol error"},
		{"the close code 5000", false, func(*testing.T) []byte { return frame(0x88, []byte{19, 136}) }, 1002, "protocol error"},
		{"a Close of one byte", false, func(*testing.T) []byte { return frame(0x88, []byte{3}) }, 1002, "protocol error"},
		{"a Close of 126 bytes", false, func(*testing.T) []byte { return frame(0x88, append([]byte{3, 232}, big[:124]...)) }, 1002, "protocol error"},
		{"a Close in fragments", false, func(*testing.T) []byte { return frame(0x08, []byte{3, 232}) }, 1002, "protocol error"},
		{"a Close without mask", false, func(*testing.T) []byte { return []byte{0x88, 2, 3, 232} }, 1002, "protocol error"},
		{"a close reason that is not UTF-8", false, func(*testing.T) []byte { return frame(0x88, []byte("\x03\xe8a\xff")) }, 1007, "text is not UTF-8"},
		{"a ping that is deflated", true, func(*testing.T) []byte { return frame(0xc9, []byte("p")) }, 1002, "protocol error"},
		{"a Close that is deflated", true, func(*testing.T) []byte { return frame(0xc8, nil) }, 1002, "protocol error"},
		{"a later fragment that is deflated", true, func(*testing.T) []byte {
			return append(frame(0x01, []byte("a")), frame(0xc0, []byte("b"))...)
		}, 1002, "protocol error"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, websocket.Upgrader{})
			rt := plainRoute(u)
			rt.Settings = Settings{MaxMessage: limit, ValidateUTF8: true, Compress: c.deflate}
			h := serve(t, rt)
			header := http.Header{}
			if c.deflate {
				header.Set("X-Test-Deflate", "yes")
			}
			message := c.send(t) // made before the deadlines of the two ends begin
			near := h.open(t, "/", header)
			far := u.next(t)
			if _, err := near.NetConn().Write(message); err != nil && c.code == 0 {
				t.Fatal(err)
			}
			if c.code == 0 {
				far.hears(string(big[1:]))
				return
			}
			// It may still be writing: the Close must arrive all the same.
			near.ends(c.code, closeReason(c.deflate && c.code == 1009, c.name, c.reason))
			far.ends(1001, "going away")
			h.vacant(t)
		})
	}
}

// closeReason knows that gorilla itself closes over its own limit, without a word.
func closeReason(deflate bool, name, reason string) string {
	if deflate && (strings.Contains(name, "bomb") || strings.Contains(name, "for ever")) {
		return ""
	}
	return reason
}

func TestWhatAnUpstreamDoesWrong(t *testing.T) {
	for _, c := range []struct {
		name      string
		send      string
		code      int
		reason    string
		farCode   int
		farReason string
	}{
		{"a message too big", "\x81\x7e\x08\x01" + strings.Repeat("x", 2049), 1011, "upstream: message too big", 1009, "message too big"},
		{"text that is not UTF-8", "\x81\x02a\xff", 1011, "upstream: text is not UTF-8", 1007, "text is not UTF-8"},
		{"a mask", "\x81\x81\x00\x00\x00\x00x", 1011, "upstream: protocol error", 1002, "bad MASK"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			u := newUpstream(t, websocket.Upgrader{})
			rt := plainRoute(u)
			rt.Settings = Settings{MaxUpstreamMessage: 2048, ValidateUpstreamUTF8: true}
			h := serve(t, rt)
			near := h.open(t, "/", nil)
			far := u.next(t)
			_, _ = io.WriteString(far.NetConn(), c.send)
			near.ends(c.code, c.reason)
			far.ends(c.farCode, c.farReason)
			h.vacant(t)
		})
	}
}

func TestTheUpstreamIsAskedFirst(t *testing.T) {
	silent := testnet.RawUpstream(t, nil, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	answer := func(head string) string {
		return "http://" + testnet.RawUpstream(t, nil, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, head)
		}).Addr
	}
	for _, c := range []struct {
		name, upstream string
		timeout        time.Duration
		status         int
		text           string
	}{
		{"nobody there", "http://127.0.0.1:1", patience, 502, "the upstream cannot be reached"},
		{"no answer", "http://" + silent.Addr, 300 * time.Millisecond, 504, "the upstream did not answer in time"},
		{"no HTTP", answer("hello\r\n\r\n"), patience, 502, "the upstream cannot be reached"},
		{"a refusal is passed on", answer("HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n\r\nno\r\n\n"), patience, 403, "no"},
		{"a 101 with a wrong key", answer("HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"), patience, 502, "the upstream cannot be reached"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := serve(t, Route{Route: entry.Route{Path: "/", Upstreams: []string{c.upstream}, HandshakeTimeout: c.timeout}})
			if status, text := h.refused(t, "/", nil); status != c.status || text != c.text {
				t.Errorf("got %d %q, want %d %q", status, text, c.status, c.text)
			}
		})
	}
	t.Run("the next upstream is tried", func(t *testing.T) {
		u := newUpstream(t, websocket.Upgrader{})
		h := serve(t, Route{Route: entry.Route{Path: "/", Upstreams: []string{"http://127.0.0.1:1", u.url()}}})
		h.open(t, "/", nil).say("hello")
		u.next(t).hears("hello")
	})
	t.Run("without upgrade", func(t *testing.T) {
		u := newUpstream(t, websocket.Upgrader{})
		h := serve(t, plainRoute(u))
		res, err := http.Get("http://" + h.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 426 || u.Conns.Load() != 0 {
			t.Errorf("got %d and %d connections, want 426 and none", res.StatusCode, u.Conns.Load())
		}
	})
}

func TestSubprotocolAndExtensions(t *testing.T) {
	u := newUpstream(t, websocket.Upgrader{Subprotocols: []string{"2.0"}, EnableCompression: true})
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("compress=%v", compress), func(t *testing.T) {
			rt := plainRoute(u)
			rt.Compress = compress
			h := serve(t, rt)
			c, res, err := h.try(t, "/", http.Header{"Sec-Websocket-Protocol": {"1.0", "2.0"}, "X-Test-Deflate": {"yes"}})
			if err != nil {
				t.Fatal(err)
			}
			if c.Subprotocol() != "2.0" || res.Header.Get("X-From-Upstream") != "yes" {
				t.Errorf("subprotocol %q, header %v; want the upstream's", c.Subprotocol(), res.Header)
			}
			if got := res.Header.Get("Sec-Websocket-Extensions"); (got != "") != compress {
				t.Errorf("extensions %q, want some: %v", got, compress)
			}
			if r := receive(t, u.requests, "no request"); r.Header.Get("Sec-Websocket-Extensions") != "" {
				t.Error("the offer reached the upstream")
			}
			near, far := newPeer(t, c), u.next(t)
			for _, text := range []string{"hello", strings.Repeat("hello ", 50_000), ""} {
				near.say(text)
				far.hears(text)
				far.say(text)
				near.hears(text)
			}
		})
	}
	// RFC 7692 section 7.1: what is void or cannot be kept is declined, and the next offer counts.
	for offer, agreed := range map[string]bool{
		"permessage-deflate":                                                         true,
		"permessage-deflate; client_max_window_bits":                                 true,
		"permessage-deflate; client_max_window_bits=9; client_no_context_takeover":   true,
		`permessage-deflate;client_max_window_bits="15"; server_no_context_takeover`: true,
		"x-unknown; a=b, permessage-deflate":                                         true,
		"permessage-deflate; server_max_window_bits=10, permessage-deflate":          true,
		"permessage-deflate; server_max_window_bits=10":                              false,
		"permessage-deflate; client_max_window_bits=16":                              false,
		"permessage-deflate; client_max_window_bits=7":                               false,
		"permessage-deflate; client_max_window_bits=010":                             false,
		"permessage-deflate; client_max_window_bits=":                                false,
		"permessage-deflate; client_no_context_takeover; client_no_context_takeover": false,
		"permessage-deflate; client_max_window_bits; client_max_window_bits=10":      false,
		"permessage-deflate; server_no_context_takeover=true":                        false,
		"permessage-deflate; unknown":                                                false,
		"permessage-deflate;":                                                        false,
		"x-permessage-deflate":                                                       false,
		"permessage-deflate2, permessage; permessage-deflate":                        false,
	} {
		t.Run("the offer "+offer, func(t *testing.T) {
			rt := plainRoute(u)
			rt.Compress = true
			h := serve(t, rt)
			w := h.wire(t)
			fmt.Fprintf(w, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
				"Sec-WebSocket-Extensions: %s\r\n\r\n", offer)
			res, err := http.ReadResponse(bufio.NewReader(w), nil)
			if err != nil || res.StatusCode != 101 {
				t.Fatalf("got %v, %v, want 101", res, err)
			}
			want := ""
			if agreed {
				want = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
			}
			if got := res.Header.Get("Sec-Websocket-Extensions"); got != want {
				t.Errorf("agreed on %q, want %q", got, want)
			}
		})
	}
}

func TestEarlyBytesAreNotLost(t *testing.T) {
	far := testnet.RawUpstream(t, nil, func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		_, key, _ := strings.Cut(string(buf[:n]), "Sec-WebSocket-Key: ")
		key, _, _ = strings.Cut(key, "\r\n")
		_, _ = io.WriteString(c, "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "+testnet.AcceptKey(key)+"\r\n\r\n\x81\x05hello")
		_, _ = io.Copy(c, c)
	})
	h := serve(t, Route{Route: entry.Route{Path: "/", Upstreams: []string{"http://" + far.Addr}}})
	w := h.wire(t)
	fmt.Fprintf(w, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n%s", frame(0x89, []byte("early")))
	got, _ := io.ReadAll(io.LimitReader(&until{w, "\x81\x05hello"}, 4096))
	if !strings.Contains(string(got), "\r\n\r\n\x81\x05hello") {
		t.Errorf("got %q, want the upstream's message behind the 101", got)
	}
}

// until ends a stream behind some bytes.
type until struct {
	net.Conn
	last string
}

func (u *until) Read(p []byte) (int, error) {
	n, err := u.Conn.Read(p)
	if strings.Contains(string(p[:n]), u.last) {
		return n, io.EOF
	}
	return n, err
}

func TestPingsGoEndToEnd(t *testing.T) {
	hook, calls := heldHook(t)
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound, rt.Outbound = &Hook{URL: hook, Timeout: patience}, &Hook{URL: hook, Timeout: patience}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	near.say("held by its hook")
	call := receive(t, calls, "the hook is not asked")
	for _, payload := range []string{"", "ping", strings.Repeat("x", 125)} {
		for _, side := range [][2]*peer{{near, far}, {far, near}} {
			from, to := side[0], side[1]
			pinged, ponged := make(chan string, 1), make(chan string, 1)
			to.SetPingHandler(func(data string) error {
				pinged <- data
				return to.WriteControl(websocket.PongMessage, []byte(data), time.Now().Add(patience))
			})
			from.SetPongHandler(func(data string) error { ponged <- data; return nil })
			if err := from.WriteControl(websocket.PingMessage, []byte(payload), time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			readUntil(to, pinged)
			readUntil(from, ponged)
			if got := receive(t, pinged, "no ping"); got != payload {
				t.Errorf("ping %q, want %q", got, payload)
			}
			if got := receive(t, ponged, "no pong"); got != payload {
				t.Errorf("pong %q, want %q", got, payload)
			}
		}
	}
	if n := len(calls); n != 0 {
		t.Errorf("%d pings were inspected", n)
	}
	call.status(200)
	far.SetPingHandler(nil)
	far.hears("held by its hook")
}

// readUntil reads control frames until a handler has put something there. gorilla
// reads them only while it waits for a message, so the wait is given up.
func readUntil(p *peer, c chan string) {
	p.t.Helper()
	raw := p.NetConn()
	for len(c) == 0 {
		// One control frame at a time, by hand: gorilla cannot go on after a deadline.
		head := make([]byte, 2)
		if _, err := io.ReadFull(raw, head); err != nil {
			p.t.Fatalf("no frame: %v", err)
		}
		n := int(head[1] & 0x7f)
		var mask [4]byte
		if head[1]&0x80 != 0 {
			_, _ = io.ReadFull(raw, mask[:])
		}
		data := make([]byte, n)
		_, _ = io.ReadFull(raw, data)
		for i := range data {
			data[i] ^= mask[i%4]
		}
		switch head[0] {
		case 0x89:
			_ = p.PingHandler()(string(data))
		case 0x8a:
			_ = p.PongHandler()(string(data))
		default:
			p.t.Fatalf("frame %x", head)
		}
	}
}

func TestIdle(t *testing.T) {
	// Where a session must go on, a machine that stops for a moment is no silence.
	const idle, long = 150 * time.Millisecond, 3 * time.Second
	chatter := func(p *peer, rounds int) {
		for range rounds {
			time.Sleep(idle / 3) // time is what is tested
			if p.WriteMessage(websocket.TextMessage, []byte("x")) != nil {
				return
			}
		}
	}
	t.Run("silence ends with 1000", func(t *testing.T) {
		t.Parallel()
		u := newUpstream(t, websocket.Upgrader{})
		rt := plainRoute(u)
		rt.IdleTimeout = idle
		h := serve(t, rt)
		near := h.open(t, "/", nil)
		far := u.next(t)
		near.ends(1000, "idle")
		far.ends(1000, "idle")
		h.vacant(t)
	})
	t.Run("the upstream's traffic counts", func(t *testing.T) {
		t.Parallel()
		u := newUpstream(t, websocket.Upgrader{})
		rt := plainRoute(u)
		rt.IdleTimeout = long
		h := serve(t, rt)
		near := h.open(t, "/", nil)
		far := u.next(t)
		go chatter(far, 80) // for 4 s
		for range 80 {
			near.hears("x")
		}
	})
	t.Run("unless the client's alone does", func(t *testing.T) {
		t.Parallel()
		u := newUpstream(t, websocket.Upgrader{})
		rt := plainRoute(u)
		rt.IdleTimeout, rt.IdleInbound = idle, true
		h := serve(t, rt)
		near := h.open(t, "/", nil)
		far := u.next(t)
		go chatter(far, 40)
		for {
			_, _, err := near.ReadMessage()
			if err == nil {
				continue
			}
			if !websocket.IsCloseError(err, 1000) {
				t.Errorf("got %v, want 1000", err)
			}
			break
		}
	})
	t.Run("a message that waits for its hook is no silence", func(t *testing.T) {
		t.Parallel()
		u := newUpstream(t, websocket.Upgrader{})
		hook, calls := heldHook(t)
		rt := plainRoute(u)
		rt.IdleTimeout, rt.Inbound = long, &Hook{URL: hook, Timeout: patience}
		h := serve(t, rt)
		h.open(t, "/", nil).say("slow")
		far := u.next(t)
		call := receive(t, calls, "the hook is not asked")
		time.Sleep(long + long/2)
		call.status(200)
		far.hears("slow")
	})
}

// Whatever ends the client, the upstream's connection ends too.
func TestTheUpstreamConnectionNeverLeaks(t *testing.T) {
	hook, _ := heldHook(t)
	for _, hooked := range []bool{false, true} {
		for _, c := range []struct {
			name string
			end  func(h *harness, near *peer)
			code int
		}{
			{"a close", func(_ *harness, near *peer) {
				_ = near.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""))
				near.ends(1000, "")
			}, 1000},
			{"a drop", func(_ *harness, near *peer) { near.Close() }, 1001},
			{"a reset", func(_ *harness, near *peer) {
				_ = near.NetConn().(*net.TCPConn).SetLinger(0)
				near.Close()
			}, 1001},
			{"a kick", func(h *harness, near *peer) {
				h.Kick(h.Sessions()[0].ID)
				near.ends(1008, "closed by the administrator")
			}, 1001},
		} {
			t.Run(fmt.Sprintf("%s, hook %v", c.name, hooked), func(t *testing.T) {
				t.Parallel()
				u := newUpstream(t, websocket.Upgrader{})
				rt := plainRoute(u)
				if hooked {
					rt.Outbound = &Hook{URL: hook, Timeout: patience}
				}
				h := serve(t, rt)
				near := h.open(t, "/", nil)
				far := u.next(t)
				if hooked {
					far.say("held by its hook for ever")
				}
				together(func() { c.end(h, near) }, func() {
					_, _, err := far.ReadMessage()
					var closed *websocket.CloseError
					if !errors.As(err, &closed) || closed.Code != c.code {
						t.Errorf("the upstream saw %v, want close %d", err, c.code)
					}
					far.Close()
				})
				h.vacant(t)
			})
		}
	}
}

// An upstream that goes without a word, and one that goes on after the client's Close.
func TestUpstreamsThatDoNotFollow(t *testing.T) {
	t.Run("an upstream that drops", func(t *testing.T) {
		u := newUpstream(t, websocket.Upgrader{})
		h := serve(t, plainRoute(u))
		near := h.open(t, "/", nil)
		far := u.next(t)
		far.say("last words")
		far.Close()
		near.hears("last words")
		near.ends(1011, "upstream connection lost")
		h.vacant(t)
	})
	t.Run("an upstream that answers no Close", func(t *testing.T) {
		u := newUpstream(t, websocket.Upgrader{})
		h := serve(t, plainRoute(u))
		near := h.open(t, "/", nil)
		u.next(t) // and is not read
		_ = near.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(4000, "bye"))
		near.ends(4000, "bye")
		h.vacant(t)
	})
}

// A client that does not read is not sent for without end: the upstream is held back.
func TestAClientThatDoesNotReadHoldsTheUpstreamBack(t *testing.T) {
	hook := newHook(t, func(*http.Request, string, http.ResponseWriter) {})
	for _, hooked := range []bool{false, true} {
		t.Run(fmt.Sprintf("hook %v", hooked), func(t *testing.T) {
			u := newUpstream(t, websocket.Upgrader{})
			rt := plainRoute(u)
			if hooked {
				rt.Outbound = &Hook{URL: hook}
			}
			h := serve(t, rt)
			h.open(t, "/", nil) // and does not read
			far := u.next(t)
			message := bytes.Repeat([]byte("x"), 256<<10)
			_ = far.SetWriteDeadline(time.Now().Add(time.Second))
			sent := 0
			for far.WriteMessage(websocket.TextMessage, message) == nil {
				if sent += len(message); sent > 256<<20 {
					t.Fatal("256 MiB were taken for a client that does not read")
				}
			}
			if sent > 32<<20 {
				t.Errorf("%d MiB were taken for a client that does not read", sent>>20)
			}
		})
	}
}

func TestAClientThatIsStuckIsCut(t *testing.T) {
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.WriteTimeout = 200 * time.Millisecond
	h := serve(t, rt)
	h.open(t, "/", nil) // and does not read
	far := u.next(t)
	message := bytes.Repeat([]byte("x"), 1<<20)
	for far.WriteMessage(websocket.TextMessage, message) == nil {
	}
	h.vacant(t)
	if log := h.logs.String(); !strings.Contains(log, "reason=stuck") {
		t.Errorf("log: %s, want the reason stuck", log)
	}
}

func TestDrainAndShutdown(t *testing.T) {
	t.Run("a drain closes all with 1012", func(t *testing.T) {
		u := newUpstream(t, websocket.Upgrader{})
		h := serve(t, plainRoute(u))
		one, two := h.open(t, "/", nil), h.open(t, "/", nil)
		farOne, farTwo := u.next(t), u.next(t)
		together(func() { one.ends(1012, "service restart") }, func() { two.ends(1012, "service restart") },
			func() { farOne.ends(1001, "going away") }, func() { farTwo.ends(1001, "going away") }, func() {
				if err := h.Drain(soon(t), 10*time.Millisecond); err != nil {
					t.Error(err)
				}
			})
		if status, _ := h.refused(t, "/", nil); status != 503 {
			t.Errorf("a handshake while draining: %d, want 503", status)
		}
	})
	t.Run("peers that do not answer are cut at its end", func(t *testing.T) {
		u := newUpstream(t, websocket.Upgrader{})
		h := serve(t, plainRoute(u))
		h.open(t, "/", nil)
		u.next(t)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := h.Drain(ctx, time.Minute); err == nil {
			t.Error("no word about sessions that were cut")
		}
		h.vacant(t)
	})
}

func TestReconfigureEndsNothing(t *testing.T) {
	hook := newHook(t, func(*http.Request, string, http.ResponseWriter) {})
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	if err := h.Reconfigure(Options{Routes: []Route{{Route: entry.Route{Path: "/", Upstreams: []string{"nonsense"}}}}}); err == nil {
		t.Error("a bad route was taken")
	}
	if err := h.Reconfigure(Options{}); err != nil {
		t.Fatal(err)
	}
	near.say("still here")
	far.hears("still here")
	if status, _ := h.refused(t, "/", nil); status != 404 {
		t.Errorf("the route that is gone: %d, want 404", status)
	}
}

func TestDescriptorsComeBack(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			testnet.Lacks(t, "linux", "there is no /proc to count descriptors in")
		}
		return len(entries)
	}
	u := newUpstream(t, websocket.Upgrader{})
	h := serve(t, plainRoute(u))
	cycle := func() {
		near := h.open(t, "/", nil)
		far := u.next(t)
		near.Close()
		far.ends(1001, "client connection lost")
		far.Close()
		h.vacant(t)
	}
	cycle()
	before := count()
	for range 50 {
		cycle()
	}
	if after := count(); after > before+5 {
		t.Errorf("%d descriptors after 50 sessions, %d before", after, before)
	}
}

func TestMetricsCountWhatPassed(t *testing.T) {
	hook := newHook(t, func(_ *http.Request, body string, w http.ResponseWriter) {
		if body == "bad" {
			w.WriteHeader(403)
		}
	})
	u := newUpstream(t, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.Inbound = &Hook{URL: hook}
	h := serve(t, rt)
	near := h.open(t, "/", nil)
	far := u.next(t)
	near.say("good")
	far.hears("good")
	near.say("bad")
	near.ends(1008, "message denied")
	far.ends(1001, "going away")
	h.vacant(t)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(h.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			switch {
			case m.Counter != nil:
				got[name] = m.Counter.GetValue()
			case m.Gauge != nil:
				got[name] = m.Gauge.GetValue()
			case m.Histogram != nil:
				got[name] = float64(m.Histogram.GetSampleCount())
			}
		}
	}
	for name, want := range map[string]float64{
		"turngate_inspect_handshakes_total result=ok route=/":                       1,
		"turngate_inspect_messages_total direction=inbound route=/":                 2,
		"turngate_inspect_message_bytes_total direction=inbound route=/":            7,
		"turngate_inspect_verdicts_total direction=inbound route=/ verdict=forward": 1,
		"turngate_inspect_verdicts_total direction=inbound route=/ verdict=deny":    1,
		"turngate_inspect_hook_seconds direction=inbound route=/":                   2,
		"turngate_inspect_hook_calls direction=inbound route=/":                     0,
		"turngate_inspect_closes_total reason=denied route=/":                       1,
		"turngate_inspect_sessions":                                                 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s: got %v (%v), want %v", name, v, ok, want)
		}
	}
}

func BenchmarkMessages(b *testing.B) {
	var asked atomic.Int64
	hook := newHook(b, func(*http.Request, string, http.ResponseWriter) { asked.Add(1) })
	u := newUpstream(b, websocket.Upgrader{})
	for _, c := range []struct {
		name string
		hook *Hook
	}{
		{"hook=none", nil},
		{"hook=one", &Hook{URL: hook}},
		{"hook=one/inflight=1", &Hook{URL: hook, InFlight: 1}},
		{"hook=batch32", &Hook{URL: hook, BatchMessages: 32}},
	} {
		b.Run(c.name+"/size=200", func(b *testing.B) {
			rt := plainRoute(u)
			rt.Inbound = c.hook
			h := serve(b, rt)
			near := h.open(b, "/", nil)
			far := u.next(b)
			_ = near.SetWriteDeadline(time.Time{})
			_ = far.SetReadDeadline(time.Time{})
			message := []byte(strings.Repeat("x", 200))
			b.ReportAllocs()
			b.ResetTimer()
			go func() {
				for range b.N {
					if near.WriteMessage(websocket.TextMessage, message) != nil {
						return
					}
				}
			}()
			for range b.N {
				if _, _, err := far.ReadMessage(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

// BenchmarkLargeMessage carries messages of the largest size, which are held whole.
func BenchmarkLargeMessage(b *testing.B) {
	u := newUpstream(b, websocket.Upgrader{})
	rt := plainRoute(u)
	rt.MaxMessage, rt.MaxUpstreamMessage = 16<<20, 16<<20
	h := serve(b, rt)
	near, far := h.open(b, "/", nil), u.next(b)
	_ = near.SetWriteDeadline(time.Time{})
	_ = far.SetReadDeadline(time.Time{})
	message := []byte(strings.Repeat("x", 16<<20))
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		go func() { _ = near.WriteMessage(websocket.TextMessage, message) }()
		if _, data, err := far.ReadMessage(); err != nil || len(data) != len(message) {
			b.Fatalf("%d bytes, %v", len(data), err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkIdleConnection reports the memory that one more inspected session holds, with both ends
// of the test.
func BenchmarkIdleConnection(b *testing.B) {
	u := newUpstream(b, websocket.Upgrader{})
	h := serve(b, plainRoute(u))
	inUse := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before, n := inUse(), 0
	for b.Loop() {
		h.open(b, "/", nil).say(strings.Repeat("x", 2<<10))
		_, _, _ = u.next(b).ReadMessage()
		n++
	}
	b.ReportMetric(float64(inUse()-before)/float64(n), "B/connection")
}
