package proxy

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var dmz = Trust{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func TestClient(t *testing.T) {
	for _, tt := range []struct {
		name, peer string
		xff        []string
		want       string
	}{
		{"an untrusted peer is the client whatever it says", "203.0.113.9:1", []string{"1.2.3.4"}, "203.0.113.9"},
		{"a trusted peer names the client", "10.1.1.1:1", []string{"198.51.100.7"}, "198.51.100.7"},
		{"the walk goes from right to left", "10.1.1.1:1", []string{"6.6.6.6, 198.51.100.7, 10.2.2.2"}, "198.51.100.7"},
		{"several header lines are one list", "10.1.1.1:1", []string{"6.6.6.6", "198.51.100.7", "10.2.2.2"}, "198.51.100.7"},
		{"an element that is no address ends the walk", "10.1.1.1:1", []string{"198.51.100.7, unknown, 10.2.2.2"}, "10.2.2.2"},
		{"a chain of trusted proxies only: the left-most", "10.1.1.1:1", []string{"10.3.3.3, 10.2.2.2"}, "10.3.3.3"},
		{"ports and brackets are read", "10.1.1.1:1", []string{"[2001:db8::7]:443, [fd00::1], 10.2.2.2:99"}, "2001:db8::7"},
		{"a mapped address is the IPv4 one", "[::ffff:10.1.1.1]:1", []string{"::ffff:198.51.100.7"}, "198.51.100.7"},
		{"the zone of a peer is this host's matter", "[fe80::1%eth0]:1", nil, "fe80::1"},
		{"a zone is no address", "10.1.1.1:1", []string{"fe80::1%eth0"}, "10.1.1.1"},
		{"no header: the peer", "10.1.1.1:1", nil, "10.1.1.1"},
		{"an empty header: the peer", "10.1.1.1:1", []string{""}, "10.1.1.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr = tt.peer
			r.Header["X-Forwarded-For"] = tt.xff
			if got := dmz.Client(r).String(); got != tt.want {
				t.Errorf("client %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAPeerWithAZoneCanBeTrusted(t *testing.T) {
	r := httptest.NewRequest("GET", "/", nil)
	r.RemoteAddr = "[fe80::1%eth0]:1"
	r.Header.Set("X-Forwarded-For", "198.51.100.7")
	link := Trust{netip.MustParsePrefix("fe80::/10")}
	if got := link.Client(r); got != netip.MustParseAddr("198.51.100.7") {
		t.Errorf("client %v, want the one that the trusted peer names", got)
	}
	policy := HeaderPolicy{Trust: link}
	if got, want := policy.Request(r).Get("X-Forwarded-For"), "198.51.100.7, fe80::1"; got != want {
		t.Errorf("X-Forwarded-For %q, want %q", got, want)
	}
}

// FuzzClient compares the walk with the list spelled out.
func FuzzClient(f *testing.F) {
	f.Add("10.1.1.1", "6.6.6.6, 198.51.100.7, 10.2.2.2")
	f.Add("10.1.1.1", "[::1]:80,,x")
	f.Add("1.1.1.1", "10.0.0.1")
	f.Fuzz(func(t *testing.T, peer, xff string) {
		p, err := netip.ParseAddr(peer)
		if err != nil {
			return
		}
		p = p.Unmap()
		chain := []netip.Addr{p}
		elems := strings.Split(xff, ",")
		slices.Reverse(elems)
		for _, e := range elems {
			a, ok := parseElement(e)
			if !ok {
				break
			}
			chain = append(chain, a)
		}
		want := chain[len(chain)-1]
		for _, a := range chain {
			if !dmz.Contains(a) {
				want = a
				break
			}
		}
		if got := dmz.client(p, []string{xff}); got != want {
			t.Fatalf("client(%v, %q) = %v, want %v", p, xff, got, want)
		}
	})
}

func TestHeaderPolicy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy HeaderPolicy
		peer   string
		in     http.Header
		want   http.Header
	}{
		{
			"a client's forged and steering headers stop here",
			HeaderPolicy{}, "203.0.113.9:5",
			http.Header{
				"X-Forwarded-For": {"1.1.1.1"}, "Forwarded": {"for=1.1.1.1"}, "X-Real-Ip": {"1.1.1.1"}, "X-Request-Id": {"x"},
				"True-Client-Ip": {"1.1.1.1"}, "Cf-Connecting-Ip": {"1.1.1.1"}, "X-Forwarded-Host": {"e"}, "X-Forwarded-Proto": {"e"}, "X-Forwarded-Anything": {"e"},
				"X-Wsproxy-Upstream": {"e"}, "X-Accel-Redirect": {"/e"}, "X-Original-Url": {"/e"}, "X-Rewrite-Url": {"/e"}, "Proxy": {"e"},
				"X-Http-Method-Override": {"DELETE"}, "X-Qrator-Ip-Source": {"1.1.1.1"},
				"Origin": {"https://a.example"}, "User-Agent": {"ua"},
			},
			http.Header{"X-Forwarded-For": {"203.0.113.9"}, "Origin": {"https://a.example"}, "User-Agent": {"ua"}},
		},
		{
			"fields of one hop, underscores and credentials stop here",
			HeaderPolicy{}, "203.0.113.9:5",
			http.Header{
				"Connection": {"keep-alive, X-Private", "Upgrade, x-other"}, "X-Private": {"1"}, "X-Other": {"1"}, "Keep-Alive": {"1"}, "Te": {"trailers"},
				"Trailer": {"X"}, "Transfer-Encoding": {"chunked"}, "Proxy-Authorization": {"Basic x"}, "Proxy-Connection": {"x"}, "Upgrade": {"h2c"}, "Http2-Settings": {"x"},
				"Transfer_Encoding": {"chunked"}, "Content_Length": {"5"}, "Cookie": {"sso=1"}, "Authorization": {"Bearer x"}, "Expect": {"100-continue"},
				"Accept": {"*/*"},
			},
			http.Header{"X-Forwarded-For": {"203.0.113.9"}, "Accept": {"*/*"}},
		},
		{
			"Connection cannot remove what we add",
			HeaderPolicy{}, "203.0.113.9:5",
			http.Header{"Connection": {"X-Forwarded-For"}},
			http.Header{"X-Forwarded-For": {"203.0.113.9"}},
		},
		{
			"a trusted proxy's chain is kept and appended to",
			HeaderPolicy{Trust: dmz}, "10.1.1.1:5",
			http.Header{"X-Forwarded-For": {"198.51.100.7", "10.2.2.2"}, "X-Forwarded-Proto": {"https"}},
			http.Header{"X-Forwarded-For": {"198.51.100.7, 10.2.2.2, 10.1.1.1"}, "X-Forwarded-Proto": {"https"}},
		},
		{
			"append keeps an untrusted client's chain",
			HeaderPolicy{XFF: XFFAppend}, "203.0.113.9:5",
			http.Header{"X-Forwarded-For": {"180.166.146.241, 43.176.32.192"}},
			http.Header{"X-Forwarded-For": {"180.166.146.241, 43.176.32.192, 203.0.113.9"}},
		},
		{
			"credentials and underscores pass when the route says so",
			HeaderPolicy{KeepCredentials: true, KeepUnderscore: true}, "203.0.113.9:5",
			http.Header{"Cookie": {"a=1"}, "Authorization": {"Bearer x"}, "X_Y": {"1"}},
			http.Header{"Cookie": {"a=1"}, "Authorization": {"Bearer x"}, "X_Y": {"1"}, "X-Forwarded-For": {"203.0.113.9"}},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/", nil)
			r.RemoteAddr, r.Header = tt.peer, tt.in
			if diff := cmp.Diff(tt.want, tt.policy.Request(r)); diff != "" {
				t.Errorf("header towards the upstream (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHeaderPolicyIdentify(t *testing.T) {
	p := HeaderPolicy{Identify: true, Trust: dmz}
	r := httptest.NewRequest("GET", "https://proxy.example.com/", nil)
	r.RemoteAddr = "203.0.113.9:5"
	r.Header = http.Header{"X-Request-Id": {"forged"}, "X-Real-Ip": {"6.6.6.6"}}
	h := p.Request(r)
	if got := h.Get("X-Real-IP"); got != "203.0.113.9" {
		t.Errorf("X-Real-IP %q, want the peer", got)
	}
	if got := h.Get("X-Request-ID"); got == "" || got == "forged" {
		t.Errorf("X-Request-ID %q, want one of ours", got)
	}
	if h.Get("X-Forwarded-Host") != "proxy.example.com" || h.Get("X-Forwarded-Proto") != "https" {
		t.Errorf("X-Forwarded-Host %q, X-Forwarded-Proto %q", h.Get("X-Forwarded-Host"), h.Get("X-Forwarded-Proto"))
	}
}

func TestHeaderPolicyResponse(t *testing.T) {
	dst := http.Header{}
	p := HeaderPolicy{HideServer: true, KeepCredentials: true}
	p.Response(dst, http.Header{
		"Connection": {"close, X-Hop"}, "X-Hop": {"1"}, "Server": {"x/1.2"}, "X-Powered-By": {"y"}, "Keep-Alive": {"5"},
		"Access-Control-Allow-Origin": {"https://a.example", "*"}, "Set-Cookie": {"a=1", "b=2"},
		"Strict-Transport-Security": {"max-age=1; includeSubDomains"}, "Alt-Svc": {`h3=":443"`},
	})
	want := http.Header{"Access-Control-Allow-Origin": {"https://a.example"}, "Set-Cookie": {"a=1", "b=2"}}
	if diff := cmp.Diff(want, dst); diff != "" {
		t.Errorf("header towards the client (-want +got):\n%s", diff)
	}
	strict := http.Header{}
	(&HeaderPolicy{}).Response(strict, dst)
	if _, there := strict["Set-Cookie"]; there {
		t.Error("a policy that drops cookies lets the upstream set them")
	}
	DropCORS(dst)
	if dst.Get("Access-Control-Allow-Origin") != "" || len(dst["Set-Cookie"]) != 2 {
		t.Errorf("DropCORS left %v", dst)
	}
}

func TestOrigins(t *testing.T) {
	o, err := ParseOrigins([]string{"https://app.example.com", "http://localhost:3000", "https://*.corp.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		origin string
		want   bool
	}{
		{"https://app.example.com", true}, {"https://APP.example.com:443", true}, {"http://localhost:3000", true},
		{"https://a.corp.example", true}, {"https://a.b.corp.example", true},
		{"http://app.example.com", false}, {"https://app.example.com:8443", false}, {"https://corp.example", false}, {"https://evilcorp.example", false},
		{"https://a.corp.example.evil", false}, {"https://app.example.com/", false}, {"https://x@app.example.com", false}, {"null", false}, {"", false},
	} {
		if got := o.Allow([]string{tt.origin}); got != tt.want {
			t.Errorf("Allow(%q) = %v, want %v", tt.origin, got, tt.want)
		}
	}
	if o.Allow(nil) || o.Allow([]string{"https://app.example.com", "https://app.example.com"}) {
		t.Error("a request without exactly one Origin is allowed")
	}
	if all := (Origins{}); !all.Allow(nil) {
		t.Error("without a list a request is refused")
	}
	for _, bad := range []string{"app.example.com", "https://", "https://*", "https://a.*.example", "https://*example.com", "https://a/x", "https://a:0", "https://a:b"} {
		if _, err := ParseOrigins([]string{bad}); err == nil {
			t.Errorf("ParseOrigins(%q): no error", bad)
		}
	}
}

func TestAppID(t *testing.T) {
	for _, tt := range []struct {
		query string
		id    uint64
		ok    bool
	}{
		{"?sdkAppId=1400000001&userSig=x", 1400000001, true},
		{"random=1&sdkappid=37", 37, true},
		{"?sdkAppId=1&sdkappid=2", 1, false},
		{"?sdkAppId=1&%73dkAppId=2", 1, false},
		{"?x=1;sdkAppId=2&sdkAppId=1", 2, false},
		{"?sdkAppId=1&x=y;z;%73dkAppId=2", 1, false},
		{"?sdkAppId=1;x=y", 0, false},
		{"?x=1;sdkAppId=2", 2, true},
		{"?sdkAppId=1&userSig=a;b;&;", 1, true},
		{"?sdkAppId=1x", 0, false},
		{"?sdkAppId=", 0, false},
		{"?a=b", 0, true},
	} {
		if id, ok := AppID(tt.query); id != tt.id || ok != tt.ok {
			t.Errorf("AppID(%q) = %d, %v, want %d, %v", tt.query, id, ok, tt.id, tt.ok)
		}
	}
	list := NewAppIDs([]uint64{1400000001})
	if !list.Allow(1400000001, true) || list.Allow(1400000001, false) || list.Allow(0, true) || !NewAppIDs(nil).Allow(0, false) {
		t.Error("the allow-list does not decide as listed")
	}
}

func TestHostList(t *testing.T) {
	l, err := ParseHostList([]string{"*.rtc.qq.com", "signal.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ in, want string }{
		{"signaling.rtc.qq.com", "signaling.rtc.qq.com"}, {"A.B.rtc.QQ.com:443", "a.b.rtc.qq.com"}, {"signal.example.com", "signal.example.com"},
		{"rtc.qq.com", ""}, {"evilrtc.qq.com", ""}, {"x.rtc.qq.com.evil", ""}, {"x.rtc.qq.com:80", ""}, {"x.rtc.qq.com:443:443", ""}, {"u@x.rtc.qq.com", ""}, {"x.rtc.qq.com/a", ""},
		{"x.rtc.qq.com.", ""}, {".rtc.qq.com", ""}, {"127.0.0.1", ""}, {"[::1]", ""}, {"127.1", ""}, {"", ""}, {"x_y.rtc.qq.com", ""}, {"a b.rtc.qq.com", ""}, {"%2e.rtc.qq.com", ""},
	} {
		got, ok := l.Host(tt.in)
		if got != tt.want || ok != (tt.want != "") {
			t.Errorf("Host(%q) = %q, %v, want %q", tt.in, got, ok, tt.want)
		}
	}
	for _, bad := range []string{"*", "*.", "*.com", "a.*.b", "10.0.0.1", "*.0.0.1", ""} {
		if _, err := ParseHostList([]string{bad}); err == nil {
			t.Errorf("ParseHostList(%q): no error", bad)
		}
	}
}

func TestHostOnly(t *testing.T) {
	for _, c := range []struct{ name, cookie, want string }{
		{"nothing to remove", "a=b; Path=/; Secure", "a=b; Path=/; Secure"},
		{"the domain goes", "a=b; Domain=example.com; Path=/", "a=b; Path=/"},
		{"in any spelling", "a=b;DOMAIN = .example.com ;HttpOnly", "a=b;HttpOnly"},
		{"each of two", "a=b; domain=x; domain=y", "a=b"},
		{"without a value", "a=b; Domain", "a=b"},
		{"a value that looks like one stays", "a=Domain=x", "a=Domain=x"},
	} {
		if got := HostOnly(c.cookie); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}
