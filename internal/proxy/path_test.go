package proxy

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestSplitTarget(t *testing.T) {
	for _, target := range []string{
		"/", "/ws", "/ws/?sdkAppId=1&userSig=eJw*-_", "/logger//v5/AVQualityReportSvc/C2S?random=1",
		"/a%20b", "/%E4%BD%A0", "/a;v=1/b", "/...", "/.well-known/x", "/a..b/..c", "/%25", "/%2541", "/x?", "/x??a=/../b",
		"/x?q=%2e%2e%2f", "/a%252b", "/a:b@c",
	} {
		path, query, err := SplitTarget(target)
		if err != nil {
			t.Errorf("SplitTarget(%q): %v, want no error", target, err)
		}
		if path+query != target {
			t.Errorf("SplitTarget(%q) = %q + %q, want the same bytes", target, path, query)
		}
	}
	for _, target := range []string{
		"", "*", "ws", "//../x", "/.", "/..", "/ws/..", "/ws/../etc", "/ws/./x", "/ws/%2e%2e/x", "/ws/.%2e/x", "/ws/%2E/x",
		"/ws/%252e%252e/x", "/ws/%252E./x", "/ws/..;/x", "/ws/.;a=b", "/ws/%2e%2e;x/y", "/ws/..%3b/x", "/ws/..%253bx",
		"/ws/..%2fx", "/ws/%2f", "/ws/%2F%2f", "/ws/%252fx", "/ws/%5cx", "/ws/%255cx", "/ws\\x", "/ws/%00", "/ws/%2500", "/ws/%0d%0a",
		"/ws/%c0%ae%c0%ae/x", "/ws/%e0%80%ae", "/ws/%", "/ws/%4", "/ws/%zz", "/ws/%u002e", "/ws/\xff", "/ws/\xc3\xa9", "/ws?\xff", "/ws?\x01",
		"/ws#x", "/ws?a#x", "/w s", "/ws/\x7f",
	} {
		if _, _, err := SplitTarget(target); !errors.Is(err, ErrTarget) {
			t.Errorf("SplitTarget(%q): error %v, want ErrTarget", target, err)
		}
	}
}

// slowCheck decides about a path the long way, as a reference for SplitTarget.
func slowCheck(target string) bool {
	for _, c := range []byte(target) {
		if c <= 0x20 || c >= 0x7f || c == '#' {
			return false
		}
	}
	path := strings.SplitN(target, "?", 2)[0]
	if !strings.HasPrefix(path, "/") {
		return false
	}
	once, err := url.PathUnescape(path)
	if err != nil {
		return false
	}
	// The second server may be lenient: whatever is a good escape is decoded.
	twice := ""
	for i := 0; i < len(once); i++ {
		if i+3 <= len(once) {
			if d, err := url.PathUnescape(once[i : i+3]); err == nil && len(d) == 1 {
				twice += d
				i += 2
				continue
			}
		}
		twice += once[i : i+1]
	}
	for _, p := range []string{path, once, twice} {
		if strings.Contains(p, `\`) || strings.Count(p, "/") != strings.Count(path, "/") || !utf8.ValidString(p) {
			return false
		}
		for _, c := range []byte(p) {
			if c < 0x20 || c == 0x7f {
				return false
			}
		}
		for _, seg := range strings.Split(p, "/") {
			if seg = strings.Split(seg, ";")[0]; seg == "." || seg == ".." {
				return false
			}
		}
	}
	return true
}

func FuzzSplitTarget(f *testing.F) {
	for _, s := range []string{"/ws/?a=b", "/logger//v5/x", "/ws/%2e%2e/x", "/ws/..;/x", "/%252f", "/%25%32%65", "/a%", "/%2%35%32e", "/x;%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, query, err := SplitTarget(target)
		if got, want := err == nil, slowCheck(target); got != want {
			t.Fatalf("SplitTarget(%q): accepted %v (%v), want %v", target, got, err, want)
		}
		if err == nil && path+query != target {
			t.Fatalf("SplitTarget(%q) = %q, %q", target, path, query)
		}
	})
}

func TestRouter(t *testing.T) {
	var rt Router[string]
	for _, p := range []string{"/ws/", "/logger", "/ws/v2", "/u/"} {
		if err := rt.Add(nil, p, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []string{"/ws", "x", "", "/a/../b", "/a?b", "/a%20b"} {
		if err := rt.Add(nil, bad, "bad"); err == nil {
			t.Errorf("Add(%q): no error, want one", bad)
		}
	}
	for _, tt := range []struct{ path, value, rest string }{
		{"/ws", "/ws/", ""},
		{"/ws/", "/ws/", "/"},
		{"/ws/a", "/ws/", "/a"},
		{"/ws//a", "/ws/", "//a"},
		{"/ws/v2", "/ws/v2", ""},
		{"/ws/v2x", "/ws/", "/v2x"},
		{"/logger//v5/x", "/logger", "//v5/x"},
		{"/u", "/u/", ""},
		{"/wsx", "", ""}, {"/w", "", ""}, {"/", "", ""}, {"//ws", "", ""}, {"/WS", "", ""}, {"/%77s", "", ""},
	} {
		value, rest, ok := rt.Match("", tt.path)
		if value != tt.value || rest != tt.rest || ok != (tt.value != "") {
			t.Errorf("Match(%q) = %q, %q, %v, want %q, %q", tt.path, value, rest, ok, tt.value, tt.rest)
		}
	}
	if err := rt.Add(nil, "/", "root"); err != nil {
		t.Fatal(err)
	}
	if v, rest, ok := rt.Match("", "/other"); v != "root" || rest != "/other" || !ok {
		t.Errorf(`Match("/other") = %q, %q, %v, want the root route`, v, rest, ok)
	}
}

// FuzzRouter compares with the rule spelled out.
func FuzzRouter(f *testing.F) {
	f.Add("/ws/a")
	f.Add("/wsx")
	f.Add("/ws/v2/x")
	prefixes := []string{"/ws", "/ws/v2", "/logger", "/w"}
	var rt Router[string]
	for _, p := range prefixes {
		if err := rt.Add(nil, p+"/", p); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, path string) {
		want, wantRest := "", ""
		for _, p := range prefixes {
			if (path == p || strings.HasPrefix(path, p+"/")) && len(p) > len(want) {
				want, wantRest = p, path[len(p):]
			}
		}
		got, rest, ok := rt.Match("", path)
		if got != want || rest != wantRest || ok != (want != "") {
			t.Fatalf("Match(%q) = %q, %q, %v, want %q, %q", path, got, rest, ok, want, wantRest)
		}
	})
}

func TestJoin(t *testing.T) {
	for _, tt := range []struct{ base, rest, want string }{
		{"", "", "/"}, {"/", "", "/"}, {"", "/", "/"}, {"/", "/a", "/a"}, {"", "//v5/x", "/v5/x"}, {"/", "///v5//x/", "/v5//x/"},
		{"/v1", "", "/v1"}, {"/v1/", "", "/v1/"}, {"/v1", "/", "/v1/"}, {"/v1/", "/trace", "/v1/trace"}, {"/v1", "//trace", "/v1/trace"},
		{"/a%20b", "/c%2Bd", "/a%20b/c%2Bd"},
	} {
		if got := Join(tt.base, tt.rest); got != tt.want {
			t.Errorf("Join(%q, %q) = %q, want %q", tt.base, tt.rest, got, tt.want)
		}
	}
}

func TestRawTarget(t *testing.T) {
	for _, tt := range []struct{ uri, want string }{
		{"/a//b?c=%2A*", "/a//b?c=%2A*"},
		{"http://other.example/ws?x", "/ws?x"},
		{"HTTPS://other.example", "/"},
		{"http://other.example?x=1", "/?x=1"},
		{"*", "*"},
		{"other:443", "other:443"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RequestURI = tt.uri
		if got := RawTarget(r); got != tt.want {
			t.Errorf("RawTarget(%q) = %q, want %q", tt.uri, got, tt.want)
		}
	}
	r, _ := http.NewRequest("GET", "http://h/a%2Fb/c?d=*", nil)
	if got := RawTarget(r); got != "/a%2Fb/c?d=*" {
		t.Errorf("RawTarget of a request without RequestURI = %q", got)
	}
}
