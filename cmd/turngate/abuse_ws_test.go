package main

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// A request that is no WebSocket handshake is not forwarded, even if the upstream would say 101.
func TestHandshakesThatAreNone(t *testing.T) {
	tg := attacked(t, "", "")
	const (
		connection = "Connection: Upgrade\r\n"
		upgrade    = "Upgrade: websocket\r\n"
		version    = "Sec-WebSocket-Version: 13\r\n"
		key        = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		good       = connection + upgrade + version + key
	)
	tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
		io.WriteString(c, goodSwitch(e))
		return false
	})
	for _, row := range []struct{ name, line, fields string }{
		{"POST", "POST {path} HTTP/1.1", good + "Content-Length: 0\r\n"},
		{"HEAD", "HEAD {path} HTTP/1.1", good},
		{"OPTIONS", "OPTIONS {path} HTTP/1.1", good},
		{"CONNECT", "CONNECT {path} HTTP/1.1", good},
		{"HTTP/1.0", "GET {path} HTTP/1.0", good},
		{"no Upgrade", "", connection + version + key},
		{"no Connection", "", upgrade + version + key},
		{"Connection that only closes", "", "Connection: close\r\n" + upgrade + version + key},
		{"nothing of a handshake", "", ""},
		{"Upgrade foo", "", connection + "Upgrade: foo\r\n" + version + key},
		{"Upgrade h2c", "", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"},
		{"Upgrade h2c with a handshake", "", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + version + key},
		{"Upgrade to one of two", "", connection + "Upgrade: websocket, h2c\r\n" + version + key},
		{"two Upgrade fields", "", connection + upgrade + "Upgrade: h2c\r\n" + version + key},
		{"Upgrade with a version", "", connection + "Upgrade: websocket/13\r\n" + version + key},
		{"Upgrade TLS/1.0", "", connection + "Upgrade: TLS/1.0\r\n" + version + key},
		{"no key", "", connection + upgrade + version},
		{"an empty key", "", connection + upgrade + version + "Sec-WebSocket-Key: \r\n"},
		{"a short key", "", connection + upgrade + version + "Sec-WebSocket-Key: c2hvcnQ=\r\n"},
		{"a long key", "", connection + upgrade + version + "Sec-WebSocket-Key: " + strings.Repeat("YWFh", 300) + "\r\n"},
		{"a key that is no base64", "", connection + upgrade + version + "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!==\r\n"},
		{"two keys", "", good + key},
		{"no version", "", connection + upgrade + key},
		{"version 8", "", connection + upgrade + key + "Sec-WebSocket-Version: 8\r\n"},
		{"version 99", "", connection + upgrade + key + "Sec-WebSocket-Version: 99\r\n"},
		{"two versions", "", good + "Sec-WebSocket-Version: 8\r\n"},
		{"a body", "", good + "Content-Length: 5\r\n\r\nhello"},
		{"a chunked body", "", good + "Transfer-Encoding: chunked\r\n\r\n0\r\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, path := range wsPaths {
				if path == "/watchrtc/" && row.fields == "" {
					continue // it is a report
				}
				line := row.line
				if line == "" {
					line = "GET {path} HTTP/1.1"
				}
				status := tg.first(t, strings.ReplaceAll(line, "{path}", path)+"\r\nHost: localhost\r\nX-Marker: none\r\n"+row.fields+"\r\n")
				if status < 400 || status > 426 {
					t.Errorf("%s: got %d, want 400, 405 or 426", path, status)
				}
			}
			for _, e := range tg.received("X-Marker: none") {
				t.Errorf("upstream received %q", e.head)
			}
		})
	}
	// Where reports go, nothing is ever upgraded.
	for _, path := range plainPaths {
		if slices.Contains(wsPaths, path) {
			continue
		}
		for name, fields := range map[string]string{
			"WebSocket":                  good,
			"h2c":                        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
			"foo":                        "Connection: Upgrade\r\nUpgrade: foo\r\n",
			"Upgrade without Connection": "Upgrade: websocket\r\n",
		} {
			t.Run(name+" on "+path, func(t *testing.T) {
				if status := tg.first(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+fields+"\r\n"); status == 101 || status == 200 {
					t.Errorf("got %d, want a refusal", status)
				}
				for _, e := range tg.received("Upgrade: ") {
					t.Errorf("upstream received %q", e.head)
				}
			})
		}
	}
	tg.answer.Store(nil)
	tg.control(t)
	tg.blameless(t)
}

// An upstream that says 101 and does not mean it opens no tunnel.
func TestUpstreamsThatFakeTheUpgrade(t *testing.T) {
	tg := attacked(t, "", "")
	const head = "HTTP/1.1 101 Switching Protocols\r\n"
	accept := func(e *forwarded) string {
		_, line, _ := strings.Cut(goodSwitch(e), "Sec-WebSocket-Accept: ")
		line, _, _ = strings.Cut(line, "\r\n")
		return line
	}
	for _, row := range []struct {
		name, answer string // {accept} is the right one
		want         int
	}{
		{"a wrong accept", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n", 502},
		{"an accept in lower case", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {lower}\r\n\r\n", 502},
		{"two accepts", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Accept: x\r\n\r\n", 502},
		{"no accept", head + "Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502},
		{"no Upgrade", head + "Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 502},
		{"no Connection", head + "Upgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 502},
		{"nothing", head + "\r\n", 502},
		{"Upgrade foo", head + "Upgrade: foo\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 502},
		{"Upgrade h2c", head + "Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 502},
		{"HTTP/1.0", "HTTP/1.0 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 502},
		{"an extension nobody offered", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 502},
		{"a subprotocol nobody offered", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: evil\r\n\r\n", 502},
		{"a transfer coding", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nTransfer-Encoding: chunked\r\n\r\n", 502},
		{"bare LF", strings.ReplaceAll(head+"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", "\r", ""), 502},
		{"a folded line", head + "Upgrade:\r\n websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 502},
		{"a CR in a value", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nX: a\rSet-Cookie: b\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 502},
		{"a NUL in a value", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nX: a\x00b\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 502},
		{"a plain 200", "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\nContent-Length: 0\r\n\r\n", 200},
		{"HTTP/2 instead", "\x00\x00\x00\x04\x00\x00\x00\x00\x00", 502},
		{"a WebSocket frame instead", "\x81\x05hello", 502},
		{"a good one", head + "Upgrade: websocket\r\nConnection: Upgrade\r\nServer: secret-engine\r\nSec-WebSocket-Accept: {accept}\r\n\r\n", 101},
	} {
		t.Run(row.name, func(t *testing.T) {
			opened := make(chan string, len(wsPaths))
			tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
				io.WriteString(c, strings.NewReplacer("{accept}", accept(e), "{lower}", strings.ToLower(accept(e))).Replace(row.answer))
				b, _ := io.ReadAll(c) // whatever a tunnel would carry
				opened <- string(b)
				return false
			})
			for _, path := range wsPaths {
				a := tg.dial(t)
				a.send(upgradeRequest(path))
				status, h, _ := a.response()
				if status != row.want {
					t.Errorf("%s: got %d, want %d", path, status, row.want)
				}
				if h.Get("Server") != "" {
					t.Errorf("%s: Server of the upstream: %q", path, h.Get("Server"))
				}
				a.send(maskedFrame(0x81, "through the tunnel"))
				a.NetConn().Close()
				if got := <-opened; (got != "") != (row.want == 101) {
					t.Errorf("%s: the tunnel carried %q", path, got)
				}
			}
		})
	}
	tg.answer.Store(nil)
	tg.control(t)
	tg.blameless(t)
}

// A client that breaks the frame rules of RFC 6455 loses its own connection
// within two seconds and nobody else's.
func TestFrames(t *testing.T) {
	tg := attacked(t, "", "")
	neighbour := tg.upgrade(t, "/ws/")
	huge := func(length uint64) string {
		return string(binary.BigEndian.AppendUint64([]byte{0x82, 0x80 | 127}, length)) + "\x00\x00\x00\x00"
	}
	for _, row := range []struct {
		name, bytes string
		code        uint16
	}{
		{"a frame without mask", "\x81\x05hello", 1002},
		{"a length of 2^63", huge(1 << 63), 1002},
		{"a length of 2^64-1", huge(1<<64 - 1), 1002},
		{"a length of 2^62", huge(1 << 62), 1009},
		{"a ping of 200 bytes", maskedHead(0x89, 200) + strings.Repeat("x", 200), 1002},
		{"a close of 126 bytes", maskedHead(0x88, 126) + strings.Repeat("x", 126), 1002},
		{"a ping in fragments", maskedFrame(0x09, "a") + maskedFrame(0x80, "b"), 1002},
		{"opcode B", maskedFrame(0x8b, "x"), 1002},
		{"opcode 3", maskedFrame(0x83, "x"), 1002},
		{"a reserved bit", maskedFrame(0xc1, "x"), 1002},
		{"a continuation of nothing", maskedFrame(0x80, "x"), 1002},
		{"a message within a message", maskedFrame(0x01, "a") + maskedFrame(0x81, "b"), 1002},
		{"a message of 64 MiB", huge(64<<20) + strings.Repeat("x", 4<<20), 1009},
		{"a message of 64 MiB in fragments", maskedHead(0x02, 900_000) + strings.Repeat("x", 900_000) + maskedHead(0x00, 64<<20), 1009},
		{"fragments without end", maskedFrame(0x01, "a") + strings.Repeat(maskedHead(0x00, 60_000)+strings.Repeat("x", 60_000), 40), 1009},
		{"HTTP instead of frames", "GET /logger/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n", 1002},
		{"TLS instead of frames", "\x16\x03\x01\x02\x00\x01\x00", 1002},
		{"a reserved bit of a ping", maskedFrame(0xd9, "x"), 1002},
		{"a reserved bit in a fragment", maskedFrame(0x01, "a") + maskedFrame(0xa0, "b"), 1002},
		{"an announced length of 64 KiB and no mask", "\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", 1002},
		{"a second frame without mask", maskedFrame(0x81, "a") + "\x81\x01b", 1002},
		{"a fragment without mask", maskedFrame(0x01, "a") + "\x80\x01b", 1002},
		{"a Close in fragments", maskedFrame(0x08, "\x03\xe8"), 1002},
		{"a continuation behind the end", maskedFrame(0x01, "a") + maskedFrame(0x80, "b") + maskedFrame(0x80, "c"), 1002},
	} {
		t.Run(row.name, func(t *testing.T) {
			tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
				io.WriteString(c, goodSwitch(e))
				io.Copy(io.Discard, c)
				return false
			})
			for _, path := range wsPaths {
				a := tg.upgrade(t, path)
				go a.send(row.bytes) // more than the gate takes
				ended, last := a.ended(time.Minute)
				if !ended {
					t.Errorf("%s: still open after a minute", path)
				}
				code := row.code
				if path == "/inspect/" && strings.HasPrefix(row.name, "a length of") {
					code = 1009 // gorilla takes what no frame can have for too much
				}
				if len(last) < 4 || last[0] != 0x88 || binary.BigEndian.Uint16(last[2:]) != code {
					t.Errorf("%s: got %q, want a Close with %d", path, last, code)
				}
				a.NetConn().Close()
			}
			if !neighbour.echoes("still here") {
				t.Error("the neighbour's socket is gone")
			}
		})
	}
	tg.answer.Store(nil)
	tg.control(t)
	tg.blameless(t)
}

// Sixteen clients announce 64 MiB each and send as fast as they can: none of it is kept.
func TestHugeMessagesAreNotHeld(t *testing.T) {
	tg := attacked(t, "", "")
	tg.costs(t, 16<<10, 8<<10, func(held func()) {
		block := strings.Repeat("x", 900_000)
		var clients []*attacker
		for range 16 {
			a := tg.upgrade(t, "/ws/held")
			// Below the limit, and never finished: it may be under way, not in memory.
			a.send(maskedHead(0x82, 1<<20) + block)
			clients = append(clients, a)
		}
		held()
		for _, a := range clients {
			a.NetConn().Close()
		}
	})
}

// Sessions whose upstream or whose client is lost end, and give everything back.
func TestLostSessions(t *testing.T) {
	tg := attacked(t, "", "")
	tg.costs(t, 16<<10, 8<<10, func(held func()) {
		var clients []*attacker
		for range 20 {
			clients = append(clients, tg.upgrade(t, "/ws/"))
		}
		held()
		began := time.Now()
		tg.CloseConnections()
		for _, a := range clients {
			if ended, _ := a.ended(20*time.Second - time.Since(began)); !ended {
				t.Error("the upstream is lost, and after 20 s the client does not know")
			}
			a.NetConn().Close()
		}
		clients = clients[:0]
		for range 50 {
			clients = append(clients, tg.upgrade(t, "/ws/"))
		}
		for _, a := range clients {
			a.NetConn().(*net.TCPConn).SetLinger(0)
			a.NetConn().Close()
		}
		eventually(t, func() string {
			if n := tg.signaling.Count(); n > 0 {
				return "sessions are left of clients that vanished"
			}
			return ""
		})
	})
}

// What RFC 6455 and RFC 9110 allow in a handshake opens a WebSocket, and what steers stays here.
func TestHandshakesThatAreOdd(t *testing.T) {
	tg := attacked(t, "", "")
	const (
		version = "Sec-WebSocket-Version: 13\r\n"
		key     = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
		rest    = version + key
	)
	for n, row := range []struct {
		name, fields string
		want         int
		upstream     string // in the head that the upstream gets
	}{
		{"Connection as Firefox writes it", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" + rest, 101, ""},
		{"two Connection fields", "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + rest, 101, ""},
		{"other letters", "CONNECTION: UPGRADE\r\nupgrade: WebSocket\r\nsec-websocket-version: 13\r\nSEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n", 101, ""},
		{"empty elements in Connection", "Connection: ,, Upgrade ,\r\nUpgrade: websocket\r\n" + rest, 101, ""},
		{"Connection that names X-Forwarded-For", "Connection: Upgrade, X-Forwarded-For\r\nUpgrade: websocket\r\n" + rest, 101, "X-Forwarded-For: 127.0.0.1\r\n"},
		{"Connection that names Host and Origin", "Connection: Upgrade, Host, Sec-WebSocket-Version\r\nUpgrade: websocket\r\n" + rest, 101, "Sec-WebSocket-Version: 13\r\n"},
		{"a length of none", "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n" + rest, 101, ""},
		{"Expect: 100-continue", "Connection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n" + rest, 101, ""},
		{"another expectation", "Connection: Upgrade\r\nUpgrade: websocket\r\nExpect: 200-ok\r\n" + rest, 417, ""},
		{"blanks around values", "Connection:   Upgrade  \r\nUpgrade:\twebsocket\t\r\n" + rest, 101, ""},
		{"extensions in two fields", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Extensions: x; y=\"a,b\"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n" + rest, 101, ""},
		{"subprotocols in two fields", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b, c\r\n" + rest, 101, "Sec-WebSocket-Protocol: b, c\r\n"},
		{"a trailer announced", "Connection: Upgrade\r\nUpgrade: websocket\r\nTrailer: X-A\r\n" + rest, 101, ""},
		{"TE", "Connection: Upgrade, TE\r\nUpgrade: websocket\r\nTE: trailers\r\n" + rest, 101, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			for m, path := range wsPaths {
				marker := "odd" + strings.Repeat("i", n) + strings.Repeat("j", m) + "."
				a := tg.dial(t)
				a.send("GET " + path + marker + " HTTP/1.1\r\nHost: localhost\r\n" + row.fields + "\r\n")
				if status, _, _ := a.response(); status != row.want {
					t.Errorf("%s: got %d, want %d", path, status, row.want)
				}
				a.NetConn().Close()
				all := tg.received(marker)
				if opened := len(all) == 1; opened != (row.want == 101) {
					t.Errorf("%s: %d requests upstream", path, len(all))
					continue
				}
				for _, e := range all {
					for _, name := range []string{"Expect", "Trailer", "Te", "Content-Length"} {
						if e.Header.Get(name) != "" {
							t.Errorf("%s: upstream received %s", path, name)
						}
					}
					if !strings.Contains(e.head, row.upstream) {
						t.Errorf("%s: upstream received %q, want %q in it", path, e.head, row.upstream)
					}
				}
			}
		})
	}
	tg.blameless(t)
}

// Control frames between the fragments of a message pass, and so do close codes and reasons.
func TestFramesThatAreOdd(t *testing.T) {
	tg := attacked(t, "", "")
	tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
		io.WriteString(c, goodSwitch(e))
		// The upstream says what it gets, in one message, as soon as the client closes.
		kinds := ""
		for {
			var head [6]byte
			if _, err := io.ReadFull(c, head[:]); err != nil {
				return false
			}
			p := make([]byte, head[1]&0x7f)
			io.ReadFull(c, p)
			for i := range p {
				p[i] ^= head[2+i%4]
			}
			if head[0]&0x0f == 8 {
				io.WriteString(c, "\x81"+string(rune(len(kinds)))+kinds+"\x88"+string(rune(len(p)))+string(p))
				return false
			}
			kinds += string(rune('a'+head[0]&0x0f)) + string(p)
		}
	})
	for _, path := range wsPaths {
		a := tg.upgrade(t, path)
		a.send(maskedFrame(0x01, "one ") + maskedFrame(0x89, "!") + maskedFrame(0x00, "two ") + maskedFrame(0x8a, "?") + maskedFrame(0x80, "three") +
			maskedFrame(0x88, "\x0f\xa5gone"))
		_, got := a.ended(time.Minute)
		// Messages that are read are written whole again; their ping goes first.
		want := "bone j!atwo k?athree"
		if path == "/inspect/" {
			want = "j!k?bone two three"
		}
		if !strings.Contains(string(got), want) || !strings.Contains(string(got), "\x0f\xa5gone") {
			t.Errorf("%s: got %q, want %q and the Close", path, got, want)
		}
	}
	tg.answer.Store(nil)
	tg.blameless(t)
}
