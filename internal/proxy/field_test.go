package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"testing"
)

func TestAddedFields(t *testing.T) {
	p := HeaderPolicy{Trust: Trust{netip.MustParsePrefix("10.0.0.0/8")}, Identify: true, KeepUnderscore: true}
	for _, f := range []Field{
		{"X-Qrator-IP-Source", "{client}"}, {"X-Q-DomId", "4711"}, {"X-Qrator-RequestID", "{id}"},
		{"X-Way", "{client} by {peer} to {host} over {proto}"},
	} {
		field, err := ParseField(f.Name, f.Value)
		if err != nil {
			t.Fatal(err)
		}
		p.Add = append(p.Add, field)
	}
	r := httptest.NewRequest("GET", "/ws", nil)
	r.RemoteAddr = "10.1.1.1:99"
	r.Host = "proxy.example.com"
	r.Header = http.Header{"X-Forwarded-For": {"198.51.100.7"}, "X-Q-Domid": {"1", "2"}, "X_way": {"forged"}, "X-Qrator-Ip-Source": {"forged"}, "X_other": {"kept"}}
	h := p.Request(r)
	for name, want := range map[string]string{
		"X-Qrator-Ip-Source": "198.51.100.7", "X-Q-Domid": "4711", "X-Way": "198.51.100.7 by 10.1.1.1 to proxy.example.com over http",
		"X_way": "", "X-Forwarded-For": "198.51.100.7, 10.1.1.1", "X_other": "kept",
	} {
		got := ""
		if v := h[name]; len(v) == 1 {
			got = v[0]
		} else if len(v) > 1 {
			t.Errorf("%s: %q, want one value", name, v)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	id := h.Get("X-Qrator-RequestID")
	if !regexp.MustCompile("^[0-9a-f]{32}$").MatchString(id) || id != h.Get("X-Request-ID") {
		t.Errorf("X-Qrator-RequestID %q, X-Request-ID %q: want the same 32 digits", id, h.Get("X-Request-ID"))
	}
	if again := p.Request(r).Get("X-Qrator-RequestID"); again == id {
		t.Error("two requests have the same id")
	}
	for name, want := range map[string]string{"X-Qrator-Requestid": "X-Qrator-RequestID", "X-Real-Ip": "X-Real-IP", "X-Other": "X-Other"} {
		if got := p.Spelling(name); got != want {
			t.Errorf("%s is written %s, want %s", name, got, want)
		}
	}
	own := http.Header{}
	p.AddStatic(own)
	if len(own) != 1 || own.Get("X-Q-DomId") != "4711" {
		t.Errorf("in requests of our own: %v, want X-Q-DomId alone", own)
	}
}

func TestFieldsThatAreRefused(t *testing.T) {
	for _, f := range []Field{
		{"", "x"}, {"A B", "x"}, {"A:", "x"}, {"Host", "x"}, {"connection", "close"}, {"Upgrade", "h2c"}, {"content-length", "1"},
		{"Sec-WebSocket-Key", "x"}, {"Transfer-Encoding", "chunked"}, {"X-Forwarded-For", "{client}"},
		{"A", "x\r\nB: y"}, {"A", "{ip}"}, {"A", "{client"}, {"A", "client}"},
	} {
		if _, err := ParseField(f.Name, f.Value); err == nil {
			t.Errorf("%q: %q: no error", f.Name, f.Value)
		}
	}
}

// With underscores kept, a name that an upstream may read as one of ours is as good as
// that name itself.
func TestUnderscoresDoNotDisguiseAName(t *testing.T) {
	p := HeaderPolicy{KeepUnderscore: true}
	r := httptest.NewRequest("GET", "/ws", nil)
	for _, name := range []string{"X_forwarded_for", "X_real_ip", "X-Real_ip", "Forwarded_", "True_client_ip", "X_wsproxy_upstream",
		"X_original_url", "Proxy_", "Content_length", "Transfer_encoding", "Cookie_", "X_qrator_ip_source"} {
		r.Header[name] = []string{"forged"}
	}
	r.Header["X_y"] = []string{"kept"}
	got := p.Request(r)
	for name := range got {
		switch name {
		case "X_y", "X-Forwarded-For", "Forwarded_", "Proxy_", "Cookie_": // a name of its own with the underscore
		default:
			t.Errorf("%s reaches the upstream", name)
		}
	}
	if got.Get("X_y") == "" && got["X_y"] == nil {
		t.Error("X_y does not reach the upstream")
	}
}

func TestNobodySaysWhoHeIs(t *testing.T) {
	p := HeaderPolicy{KeepUnderscore: true, KeepCredentials: true}
	forged := []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Original-Forwarded-For", "Forwarded", "X-Real-IP", "X-Request-ID", "True-Client-IP",
		"CF-Connecting-IP", "CF-Connecting-IPv6", "Cf-Pseudo-IPv4", "Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "WL-Proxy-Client-IP",
		"Ali-CDN-Real-IP", "EO-Client-IP", "X-Azure-ClientIP", "X-Azure-SocketIP", "X-Appengine-User-IP", "Incap-Client-IP", "X-Originating-IP",
		"X-Remote-Addr", "Remote-Addr", "X-Envoy-External-Address", "CloudFront-Viewer-Address", "Via", "x_real_ip", "True-Client_IP"}
	own := []string{"X-Membership", "X-Ipad", "X-Email-Address", "User-Agent", "X-Trip"}
	r := &http.Request{RemoteAddr: "192.0.2.1:5", Header: http.Header{}}
	for _, name := range append(forged, own...) {
		r.Header.Set(name, "198.51.100.1")
	}
	got := p.Request(r)
	for _, name := range forged {
		if v := got.Get(name); v != "" && v != "192.0.2.1" {
			t.Errorf("%s: %q passes from a stranger", name, v)
		}
	}
	for _, name := range own {
		if got.Get(name) == "" {
			t.Errorf("%s does not pass", name)
		}
	}
	p.Trust = Trust{netip.MustParsePrefix("192.0.2.0/24")}
	if v := p.Request(r).Get("True-Client-IP"); v == "" {
		t.Error("True-Client-IP of a trusted proxy does not pass")
	}
}
