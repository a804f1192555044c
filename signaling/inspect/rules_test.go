package inspect

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

// pieces is a connection that brings bytes a few at a time.
type pieces struct {
	net.Conn
	left string
	cut  int
}

func (c *pieces) Read(p []byte) (int, error) {
	if c.left == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), c.cut)], c.left)
	c.left = c.left[n:]
	return n, nil
}

func TestRulesForEveryCut(t *testing.T) {
	masked := func(first byte, payload string) string { return string(frame(first, []byte(payload))) }
	said := func(code int, text string) error { return &websocket.CloseError{Code: code, Text: text} }
	long, longer := strings.Repeat("x", 300), strings.Repeat("x", 70_000)
	for _, tt := range []struct {
		name   string
		rules  rules
		passes string // to gorilla
		behind string
		want   error
	}{
		{"messages of each length", rules{masked: true}, masked(0x81, "\x88\x02\x03\xe8") + masked(0x82, long) + masked(0x81, longer) + masked(0x89, ""), "", io.EOF},
		{"a Close behind messages", rules{masked: true}, masked(0x81, long) + masked(0x02, ""), masked(0x88, "\x03\xe8done") + "whatever", said(1000, "done")},
		{"a Close with a mask", rules{masked: true}, "", "\x88\x84\x01\x02\x03\x04\x02\xeaaa", said(1000, "be")},
		{"a Close without a code", rules{masked: true}, "", masked(0x88, ""), said(1005, "")},
		{"a Close of an upstream", rules{}, "\x81\x02hi", "\x88\x0c\x0f\xa1come again", said(4001, "come again")},
		{"a Close with the code for a bad gateway", rules{}, "", "\x88\x02\x03\xf6", said(1014, "")},
		{"the longest Close", rules{}, "", "\x88\x7d\x03\xe8" + long[:123], said(1000, long[:123])},
		{"half a Close", rules{}, "", "\x88\x05\x03", io.EOF},
		{"a Close of one byte", rules{}, "", "\x88\x01\x03", errProtocol},
		{"a Close that is too long", rules{}, "", "\x88\x7e\x00\x02\x03\xe8", errProtocol},
		{"a Close with a reserved bit", rules{}, "", "\x98\x02\x03\xe8", errProtocol},
		{"a Close with a mask from an upstream", rules{}, "", masked(0x88, "\x03\xe8"), errProtocol},
		{"a code of nothing", rules{}, "", "\x88\x02\x00\x00", errProtocol},
		{"a reason that is not UTF-8", rules{}, "", "\x88\x04\x03\xe8\xc3\x28", errUTF8},
		{"a deflated message in fragments", rules{masked: true, deflate: true}, masked(0x41, "a") + masked(0x89, "p") + masked(0x80, "b") + masked(0xc2, long), "", io.EOF},
		{"a deflated continuation", rules{masked: true, deflate: true}, masked(0x01, "a"), masked(0xc0, "b") + masked(0x81, "c"), errProtocol},
		{"a deflated pong", rules{masked: true, deflate: true}, "", masked(0xca, "p"), errProtocol},
	} {
		for _, cut := range []int{1, 2, 3, 7, 4096, 1 << 20} {
			tp := &tap{Conn: &pieces{left: tt.passes + tt.behind, cut: cut}, rules: tt.rules}
			var got strings.Builder
			buf := make([]byte, 4096)
			var err error
			for err == nil {
				var n int
				n, err = tp.Read(buf)
				got.Write(buf[:n])
			}
			if got.String() != tt.passes {
				t.Errorf("%s, %d bytes at once: gorilla gets %.100q, want %.100q", tt.name, cut, got.String(), tt.passes)
			}
			if fmt.Sprint(err) != fmt.Sprint(tt.want) {
				t.Errorf("%s, %d bytes at once: %v, want %v", tt.name, cut, err, tt.want)
			}
			if _, again := tp.Read(buf); tt.want != io.EOF && !errors.Is(again, err) && fmt.Sprint(again) != fmt.Sprint(err) {
				t.Errorf("%s: then %v, want the same again", tt.name, again)
			}
		}
	}
}

// What gorilla would refuse is still a code of the registry.
func TestTheCodeForABadGatewayPasses(t *testing.T) {
	const end = "\x88\x05\x03\xf6bad"
	far := testnet.RawUpstream(t, nil, func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		_, key, _ := strings.Cut(string(buf[:n]), "Sec-WebSocket-Key: ")
		key, _, _ = strings.Cut(key, "\r\n")
		_, _ = io.WriteString(c, "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Accept: "+testnet.AcceptKey(key)+"\r\n\r\n"+end)
		_, _ = io.Copy(io.Discard, c)
	})
	h := serve(t, Route{Route: entry.Route{Path: "/", Upstreams: []string{"http://" + far.Addr}}})
	w := h.wire(t)
	fmt.Fprint(w, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	got, _ := io.ReadAll(w)
	if !strings.HasSuffix(string(got), "\r\n\r\n"+end) {
		t.Errorf("got %q, want the upstream's Close behind the 101", got)
	}
}
