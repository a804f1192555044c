package main

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// No answer of an upstream sends a client elsewhere or sets a cookie for more than
// this host, and a page cannot take a redirect for a delivery.
func TestUpstreamsThatRedirect(t *testing.T) {
	tg := attacked(t, "", `
[[logger]]
path = "/plain/"
upstream = ["https://log.test/"]
keep_cookies = true

[[signaling]]
path = "/plainws/"
upstream = ["https://signal.test/"]
keep_cookies = true
`)
	const fields = "Location: https://evil.test/\r\nContent-Location: https://log.test/x\r\nRefresh: 0; url=https://evil.test/\r\n" +
		"Access-Control-Allow-Origin: *\r\nSet-Cookie: a=b; Domain=example.com; Path=/\r\nSet-Cookie: c=d; domain=.com\r\n"
	status := "302 Found"
	tg.answerWith(t, func(c net.Conn, e *forwarded) bool {
		if status[0] == '1' {
			head := strings.TrimSuffix(goodSwitch(e), "\r\n")
			io.WriteString(c, head+fields+"\r\n")
			io.Copy(io.Discard, c)
			return false
		}
		io.WriteString(c, "HTTP/1.1 "+status+"\r\n"+fields+"Content-Length: 0\r\n\r\n")
		return true
	})
	for _, status = range []string{"301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect", "201 Created", "101 Switching Protocols"} {
		requests := allPaths()
		requests["/plain/"] = "GET /plain/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
		requests["/plainws/"] = upgradeRequest("/plainws/")
		for path, request := range requests {
			if status[0] == '1' && !strings.Contains(request, "Upgrade") {
				continue
			}
			a := tg.dial(t)
			a.send(request)
			got, h, _ := a.response()
			a.NetConn().Close()
			if got/100 != int(status[0]-'0') {
				t.Errorf("%s: got %d, want %s", path, got, status)
			}
			for _, name := range []string{"Location", "Content-Location", "Refresh"} {
				if v := h.Get(name); v != "" {
					t.Errorf("%s, %s: %s: %s", path, status, name, v)
				}
			}
			// A page of watchRTC wants to see every status; TRTC's must not.
			report := !strings.HasPrefix(path, "/plain") && path != "/watchrtc/" && strings.HasPrefix(request, "GET") && !strings.Contains(request, "Upgrade")
			if readable := h.Get("Access-Control-Allow-Origin") != ""; report && status[0] == '3' && readable {
				t.Errorf("%s: a page can read the redirect", path)
			}
			cookies := h.Values("Set-Cookie")
			switch plain := strings.HasPrefix(path, "/plain"); {
			case plain && (len(cookies) != 2 || cookies[0] != "a=b; Path=/" || cookies[1] != "c=d"):
				t.Errorf("%s, %s: cookies %q, want them without a domain", path, status, cookies)
			case !plain && len(cookies) > 0:
				t.Errorf("%s, %s: cookies %q, want none", path, status, cookies)
			}
		}
	}
	tg.answer.Store(nil)
	if status := tg.first(t, "GET /plain/ HTTP/1.1\r\nHost: localhost\r\n\r\n"); status != http.StatusOK {
		t.Errorf("afterwards: got %d, want 200", status)
	}
	tg.control(t)
}
