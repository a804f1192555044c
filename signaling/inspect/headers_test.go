package inspect

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
)

func TestParseWish(t *testing.T) {
	const up = "ws://app.example.com"
	for _, c := range []struct {
		name   string
		header map[string]string
		check  func(t *testing.T, w wish)
		err    string // a part of it
	}{
		{"the defaults of WsProxy", map[string]string{"upstream": up}, func(t *testing.T, w wish) {
			if w.idle != time.Minute || w.maxFrame != 2048 || w.compress || w.validateUTF8 || w.inbound != nil || w.outbound != nil {
				t.Errorf("got %+v, want 60 s, 2048 bytes and nothing else", w)
			}
		}, ""},
		{"path and query of the upstream are ignored", map[string]string{"upstream": "wss://APP.example.com:8443/a/b?c=d"}, func(t *testing.T, w wish) {
			if w.upstream.Name != "app.example.com:8443" || !w.upstream.TLS || w.upstream.Path != "" {
				t.Errorf("got %+v", w.upstream)
			}
		}, ""},
		{"a hook with everything", map[string]string{"upstream": up, "inboundhook": "https://waf.example.com/x?y", "inboundhook-method": "pAtCh", "inboundhook-headers": "a=1, B=2=3,,c="},
			func(t *testing.T, w wish) {
				if w.inbound.Method != "PATCH" || w.inbound.to.Name != "waf.example.com:443" || w.inbound.Timeout != 15*time.Second ||
					w.inbound.OnError != OnErrorClose || w.inbound.Binary != BinaryDeny || w.inbound.target != "" {
					t.Errorf("got %+v", w.inbound)
				}
				if diff := cmp.Diff(http.Header{"A": {"1"}, "B": {"2=3"}, "C": {""}}, w.inbound.Headers); diff != "" {
					t.Error(diff)
				}
			}, ""},
		{"every option of the socket", map[string]string{"upstream": up, "compress": "true", "idletimeout": "1500", "maxframesize": "65536", "validateutf8": "true"},
			func(t *testing.T, w wish) {
				if !w.compress || w.idle != 1500*time.Millisecond || w.maxFrame != 65536 || !w.validateUTF8 {
					t.Errorf("got %+v", w)
				}
			}, ""},
		{"an unknown option is ignored", map[string]string{"upstream": up, "colour": "blue"}, func(*testing.T, wish) {}, ""},
		{"headers of a hook that is not named", map[string]string{"upstream": up, "outboundhook-method": "put"}, func(t *testing.T, w wish) {
			if w.outbound != nil {
				t.Errorf("got %+v, want no hook", w.outbound)
			}
		}, ""},

		{"no upstream", map[string]string{"compress": "true"}, nil, "x-wsproxy-upstream is missing"},
		{"an empty upstream", map[string]string{"upstream": ""}, nil, "x-wsproxy-upstream"},
		{"an upstream without scheme", map[string]string{"upstream": "app.example.com"}, nil, "x-wsproxy-upstream"},
		{"another scheme", map[string]string{"upstream": "ftp://app.example.com"}, nil, "x-wsproxy-upstream"},
		{"a port out of range", map[string]string{"upstream": up + ":65536"}, nil, "x-wsproxy-upstream"},
		{"a password in the upstream", map[string]string{"upstream": "ws://u:p@app.example.com"}, nil, "user"},
		{"an empty hook", map[string]string{"upstream": up, "inboundhook": ""}, nil, "x-wsproxy-inboundhook"},
		{"a hook on ws", map[string]string{"upstream": up, "inboundhook": "ws://waf"}, nil, "want http or https"},
		{"an unknown method", map[string]string{"upstream": up, "inboundhook": "http://waf", "inboundhook-method": "connect"}, nil, "inboundhook-method"},
		{"an unknown method of a hook that is not named", map[string]string{"upstream": up, "inboundhook-method": "brew"}, nil, "inboundhook-method"},
		{"a field without value", map[string]string{"upstream": up, "inboundhook": "http://waf", "inboundhook-headers": "a"}, nil, "inboundhook-headers"},
		{"a field that is no token", map[string]string{"upstream": up, "inboundhook": "http://waf", "inboundhook-headers": "a b=c"}, nil, "inboundhook-headers"},
		{"a field that frames the request", map[string]string{"upstream": up, "inboundhook": "http://waf", "inboundhook-headers": "content-length=5"}, nil, "cannot be set"},
		{"a field of ours", map[string]string{"upstream": up, "inboundhook": "http://waf", "inboundhook-headers": "x-turngate-seq=5"}, nil, "cannot be set"},
		{"compress with another word", map[string]string{"upstream": up, "compress": "yes"}, nil, "x-wsproxy-compress"},
		{"validateutf8 in capitals", map[string]string{"upstream": up, "validateutf8": "TRUE"}, nil, "x-wsproxy-validateutf8"},
		{"an idle timeout that is no number", map[string]string{"upstream": up, "idletimeout": "abc"}, nil, "x-wsproxy-idletimeout"},
		{"a negative idle timeout", map[string]string{"upstream": up, "idletimeout": "-5"}, nil, "x-wsproxy-idletimeout"},
		{"an idle timeout of zero", map[string]string{"upstream": up, "idletimeout": "0"}, nil, "x-wsproxy-idletimeout"},
		{"an idle timeout that overflows", map[string]string{"upstream": up, "idletimeout": "9223372036854775807"}, nil, "x-wsproxy-idletimeout"},
		{"a frame size with a unit", map[string]string{"upstream": up, "maxframesize": "1k"}, nil, "x-wsproxy-maxframesize"},
		{"a frame size above the route's", map[string]string{"upstream": up, "maxframesize": "1048577"}, nil, "x-wsproxy-maxframesize"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := make(http.Header)
			for name, value := range c.header {
				h.Set("x-wsproxy-"+name, value)
			}
			w, err := parseWish(h, 1<<20)
			switch {
			case c.err == "" && err != nil:
				t.Fatalf("got %v", err)
			case c.err == "":
				c.check(t, w)
			case err == nil || !strings.Contains(err.Error(), c.err):
				t.Errorf("got %v, want an error with %q", err, c.err)
			}
		})
	}
	t.Run("an option twice", func(t *testing.T) {
		if _, err := parseWish(http.Header{headerUpstream: {up, "ws://other"}}, 0); err == nil || !strings.Contains(err.Error(), "twice") {
			t.Errorf("got %v, want an error", err)
		}
	})
}

func FuzzParseWish(f *testing.F) {
	f.Add("ws://app.example.com:80/x", "http://waf/", "post", "a=b,c=d", "60000", "2048", "true")
	f.Add("wss://[::1]:443", "https://[fe80::1%25eth0]", "HEAD", "=,=,", "0", "-1", "")
	f.Add("http://%41:0x1", "http:opaque", "\x00", "a=\r\nb: c", "18446744073709551616", " 1 ", "TRUE")
	f.Fuzz(func(t *testing.T, upstream, hook, method, fields, idle, size, flag string) {
		h := http.Header{
			headerUpstream: {upstream}, headerInbound: {hook}, headerInbound + "-Method": {method}, headerInbound + "-Headers": {fields},
			headerIdle: {idle}, headerMaxFrame: {size}, headerCompress: {flag}, headerUTF8: {flag},
		}
		w, err := parseWish(h, 1<<20)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\r\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		if w.upstream == nil || w.upstream.Port == 0 || w.inbound == nil || w.idle <= 0 || w.idle > longestIdle || w.maxFrame < 1 || w.maxFrame > 1<<20 {
			t.Errorf("accepted %+v", w)
		}
		for name, values := range w.inbound.Headers {
			for _, v := range values {
				if err := checkField(name, v); err != nil {
					t.Errorf("accepted %q: %q: %v", name, v, err)
				}
			}
		}
		// What was accepted must be a request that net/http takes.
		c := caller{hook: w.inbound, target: "/", key: "k", direction: "inbound", route: "/"}
		req := c.request(t.Context(), []*message{{seq: 1, kind: websocket.TextMessage, data: []byte("x")}})
		if err := req.Write(io.Discard); err != nil {
			t.Errorf("the request cannot be written: %v", err)
		}
	})
}

func TestHeadersSteerOnlyForTrustedPeers(t *testing.T) {
	u := newUpstream(t, websocket.Upgrader{})
	other := newUpstream(t, websocket.Upgrader{})
	t.Run("a trusted peer is listened to", func(t *testing.T) {
		h := serve(t, headersRoute())
		header := wants(u, "Inboundhook-Method", "post", "Secret", "x")
		header.Set("User-Agent", "the client's")
		header.Set("Cookie", strings.Repeat("c", 8000))
		c := h.open(t, "/any/path?a=%2F&b", header)
		c.say("hello")
		u.next(t).hears("hello")
		r := <-u.requests
		if r.RequestURI != "/any/path?a=%2F&b" {
			t.Errorf("target %q, want the client's", r.RequestURI)
		}
		for name := range r.Header {
			if strings.HasPrefix(name, "X-Wsproxy") || name == "Sec-Websocket-Extensions" {
				t.Errorf("%s reached the upstream", name)
			}
		}
		if got := r.Header["User-Agent"]; len(got) != 1 || got[0] != "the client's" {
			t.Errorf("User-Agent %q, want the client's alone", got)
		}
		if r.Header.Get("X-Forwarded-For") != "127.0.0.1" {
			t.Errorf("X-Forwarded-For %q, want the peer", r.Header.Get("X-Forwarded-For"))
		}
	})
	t.Run("without query the target has no question mark", func(t *testing.T) {
		h := serve(t, headersRoute())
		h.open(t, "/plain", wants(u))
		u.next(t)
		if r := <-u.requests; r.RequestURI != "/plain" {
			t.Errorf("target %q, want /plain", r.RequestURI)
		}
	})
	t.Run("another peer is refused", func(t *testing.T) {
		rt := headersRoute()
		rt.ByHeaders.Trusted = nil
		h := serve(t, rt)
		for _, header := range []http.Header{wants(u), {}} {
			if status, _ := h.refused(t, "/", header); status != 403 {
				t.Errorf("got %d, want 403", status)
			}
		}
	})
	t.Run("another peer is stripped where the route says so", func(t *testing.T) {
		rt := headersRoute()
		rt.ByHeaders.Trusted, rt.ByHeaders.Strip, rt.Upstreams = nil, true, []string{other.url()}
		h := serve(t, rt)
		c := h.open(t, "/", wants(u))
		c.say("hello")
		other.next(t).hears("hello")
		if r := <-other.requests; r.Header.Get("X-Wsproxy-Upstream") != "" {
			t.Error("the header reached the upstream")
		}
	})
	t.Run("a route of its own takes no notice", func(t *testing.T) {
		h := serve(t, plainRoute(other))
		c := h.open(t, "/", wants(u))
		c.say("hello")
		other.next(t).hears("hello")
		if r := <-other.requests; r.Header.Get("X-Wsproxy-Upstream") != "" {
			t.Error("the header reached the upstream")
		}
	})
	t.Run("bad options are 400 with their name", func(t *testing.T) {
		h := serve(t, headersRoute())
		status, text := h.refused(t, "/", wants(u, "Compress", "yes"))
		if status != 400 || !strings.Contains(text, "x-wsproxy-compress") {
			t.Errorf("got %d %q, want 400 with the option", status, text)
		}
	})
	if n := len(u.peers); n != 0 {
		t.Errorf("%d connections reached the upstream of a header that must not count", n)
	}
}
