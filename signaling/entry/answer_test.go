package entry

import (
	"bytes"
	"net/http"
	"testing"
)

const testKey = "dGhlIHNhbXBsZSBub25jZQ=="

// FuzzFindHead holds the reader of upstream answers to: no panic, no head that a
// lenient reader would end elsewhere, and the same result for every cut.
func FuzzFindHead(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + AcceptKey(testKey) + "\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"))
	f.Add([]byte("HTTP/1.1 200\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 101 x\r\nA:\tb\r\n c\r\n\r\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		end, err := findHead(p)
		for i := range p {
			e, er := findHead(p[:i])
			if er != nil {
				if err == nil {
					t.Fatalf("%d bytes fail (%v), the whole does not", i, er)
				}
				return
			}
			if e != 0 && (e != end || err != nil) {
				t.Fatalf("%d bytes give a head of %d, the whole one of %d, %v", i, e, end, err)
			}
		}
		if err != nil || end == 0 {
			return
		}
		head := p[:end]
		if !bytes.HasSuffix(head, []byte("\r\n\r\n")) || bytes.Count(head, []byte("\n")) != bytes.Count(head, []byte("\r\n")) || bytes.Contains(head[:end-2], []byte("\r\n\r\n")) {
			t.Fatalf("head %q", head)
		}
		a, err := parseHead(head)
		if err != nil {
			return
		}
		if a.Status < 100 || a.Status > 999 {
			t.Fatalf("status %d from %q", a.Status, head)
		}
		for name, values := range a.Header {
			for _, v := range values {
				if bytes.ContainsAny([]byte(name+v), "\r\n\x00") {
					t.Fatalf("field %q: %q", name, v)
				}
			}
		}
		_ = a.check(testKey, a.Header)
	})
}

func TestDeflates(t *testing.T) {
	for _, tt := range []struct {
		fields []string
		want   bool
	}{
		{nil, false},
		{[]string{"permessage-deflate"}, true},
		{[]string{"permessage-deflate ; server_no_context_takeover; client_max_window_bits=15"}, true},
		{[]string{"permessage-deflate, x"}, false},
		{[]string{"x; y=permessage-deflate"}, false},
		{[]string{"permessage-deflate", "x"}, false},
	} {
		a := &Answer{Header: http.Header{"Sec-Websocket-Extensions": tt.fields}}
		if got := a.Deflates(); got != tt.want {
			t.Errorf("%q: %v, want %v", tt.fields, got, tt.want)
		}
	}
}
