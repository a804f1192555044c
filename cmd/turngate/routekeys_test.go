package main

import (
	"strings"
	"testing"
)

// What the file says of a WebSocket route is what its handshakes meet.
func TestKeysOfAWebSocketRoute(t *testing.T) {
	const cookie = "Cookie: a=b\r\n"
	for _, tt := range []struct {
		name, keys, fields string
		status             int
		upstream, not      string // in the head that the upstream gets
	}{
		{"names with underscores", "", "X_Site: 1\r\n", 101, "", "X_"},
		{"names with underscores that are kept", "keep_underscores = true", "X_Site: 1\r\nX_Real_IP: 6.6.6.6\r\n", 101, "X_site: 1\r\n", "6.6.6.6"},
		{"cookies", "keep_cookies = true", cookie, 101, cookie, ""},
		{"no cookies", "keep_cookies = false", cookie, 101, "", "Cookie"},
		{"a claim that is replaced", "xff = \"replace\"", "X-Forwarded-For: 6.6.6.6\r\n", 101, "X-Forwarded-For: 127.0.0.1\r\n", "6.6.6.6"},
		{"a claim that is added to", "xff = \"append\"", "X-Forwarded-For: 6.6.6.6\r\n", 101, "X-Forwarded-For: 6.6.6.6, 127.0.0.1\r\n", ""},
		{"no more names of the client than asked for", "identify = false", "X-Real-IP: 6.6.6.6\r\n", 101, "", "X-Real-IP"},
		{"fields of the route's own", "add_headers = { X-From = \"{client} {proto}\" }", "X-From: forged\r\n", 101, "X-From: 127.0.0.1 https\r\n", "forged"},
		{"a listed address", "clients = [\"127.0.0.1\"]", "", 101, "", ""},
		{"an address that is not listed", "clients = [\"192.0.2.1\"]", "", 403, "", ""},
		{"an address that is not listed and gets no answer", "clients = [\"192.0.2.1\"]\nsilent = [\"clients\"]", "", 0, "", ""},
		{"a claim to be listed", "clients = [\"192.0.2.1\"]", "X-Forwarded-For: 192.0.2.1\r\n", 403, "", ""},
		{"a listed page", "origins = [\"https://*.example.com\"]", "Origin: https://a.example.com\r\n", 101, "Origin: https://a.example.com\r\n", ""},
		{"a page that is not listed", "origins = [\"https://*.example.com\"]", "Origin: https://a.example.com.evil.test\r\n", 403, "", ""},
		{"an application that is not listed", "sdk_app_ids = [1400000001]", "", 403, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tg := attacked(t, "", "\n[[signaling]]\npath = \"/keys\"\nupstream = [\"https://signal.test/\"]\n"+tt.keys+"\n")
			status := tg.first(t, "GET /keys/marked HTTP/1.1\r\nHost: localhost\r\n"+tt.fields+upgradeFields+"\r\n")
			if status != tt.status {
				t.Errorf("got %d, want %d", status, tt.status)
			}
			all := tg.received("/marked")
			if len(all) > 1 || (len(all) == 1) != (tt.status == 101) {
				t.Fatalf("%d requests upstream", len(all))
			}
			for _, e := range all {
				if !strings.Contains(e.head, tt.upstream) || tt.not != "" && strings.Contains(e.head, tt.not) {
					t.Errorf("upstream received %q, want %q in it and not %q", e.head, tt.upstream, tt.not)
				}
			}
		})
	}
}
