package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

const iceToken = "a token of the test, no spaces"

var iceConfig = fmt.Sprintf(`
[turn.api]
path = "/ice"
tokens = ["another-token-of-the-test", %q]
origins = ["https://app.example.com", "https://*.example.org"]
rate = 0
`, strings.ReplaceAll(iceToken, " ", "-"))

// ice asks for iceServers; headers come as name, value, name, value.
func (g *gate) ice(t *testing.T, method, target string, headers ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(deadline(t), method, "https://"+g.https.String()+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: g.trust(t), ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

func TestICEServersForWhoeverShowsAToken(t *testing.T) {
	g := startGate(t, iceConfig)
	good := "Bearer " + strings.ReplaceAll(iceToken, " ", "-")
	page := "https://app.example.com"
	for _, tt := range []struct {
		name, method, target string
		headers              []string
		status               int
		origin               string // allowed in the answer
		header, value        string // of the answer
	}{
		{"a server with a token", "GET", "/ice?user=alice", []string{"Authorization", good}, 200, "", "Cache-Control", "no-store"},
		{"with the other token", "POST", "/ice?user=alice", []string{"Authorization", "Bearer another-token-of-the-test"}, 200, "", "Content-Type", "application/json"},
		{"the scheme in other letters", "GET", "/ice", []string{"Authorization", "bearer" + good[6:]}, 200, "", "X-Content-Type-Options", "nosniff"},
		{"a page of a listed origin", "GET", "/ice", []string{"Authorization", good, "Origin", page}, 200, page, "Vary", "Origin"},
		{"a page below a listed domain", "GET", "/ice", []string{"Authorization", good, "Origin", "https://a.b.example.org"}, 200, "https://a.b.example.org", "", ""},
		{"a page of another origin", "GET", "/ice", []string{"Authorization", good, "Origin", "https://evil.example.net"}, 403, "", "", ""},
		{"a page without an origin", "GET", "/ice", []string{"Authorization", good, "Origin", "null"}, 403, "", "", ""},
		{"two origins", "GET", "/ice", []string{"Authorization", good, "Origin", page, "Origin", page}, 403, "", "", ""},
		{"no token", "GET", "/ice", nil, 401, "", "WWW-Authenticate", `Bearer realm="turngate"`},
		{"no token, of a page", "GET", "/ice", []string{"Origin", page}, 401, page, "", ""},
		{"a wrong token", "GET", "/ice", []string{"Authorization", "Bearer wrong"}, 401, "", "WWW-Authenticate", `Bearer realm="turngate", error="invalid_token"`},
		{"a token with an end", "GET", "/ice", []string{"Authorization", good + "x"}, 401, "", "", ""},
		{"the beginning of a token", "GET", "/ice", []string{"Authorization", good[:len(good)-1]}, 401, "", "", ""},
		{"an empty token", "GET", "/ice", []string{"Authorization", "Bearer "}, 401, "", "", ""},
		{"another scheme", "GET", "/ice", []string{"Authorization", "Basic" + good[6:]}, 401, "", "", ""},
		{"two tokens", "GET", "/ice", []string{"Authorization", good, "Authorization", good}, 401, "", "", ""},
		{"a token in the query", "GET", "/ice?token=" + good[7:] + "&access_token=" + good[7:], nil, 401, "", "", ""},
		{"a preflight", "OPTIONS", "/ice", []string{"Origin", page, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization"}, 204, page, "Access-Control-Allow-Headers", "Authorization, Content-Type"},
		{"a preflight of another origin", "OPTIONS", "/ice", []string{"Origin", "https://evil.example.net", "Access-Control-Request-Method", "GET"}, 403, "", "Access-Control-Allow-Headers", ""},
		{"another method", "DELETE", "/ice", []string{"Authorization", good}, 405, "", "Allow", "GET, POST, OPTIONS"},
		{"a name with a control character", "GET", "/ice?user=a%0ab", []string{"Authorization", good}, 400, "", "", ""},
		{"a long name", "GET", "/ice?user=" + strings.Repeat("a", 500), []string{"Authorization", good}, 400, "", "", ""},
		{"two names", "GET", "/ice?user=a&user=b", []string{"Authorization", good}, 400, "", "", ""},
		{"a path below it", "GET", "/ice/x", []string{"Authorization", good}, 404, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := g.ice(t, tt.method, tt.target, tt.headers...)
			if resp.StatusCode != tt.status {
				t.Fatalf("got %d %q, want %d", resp.StatusCode, body, tt.status)
			}
			if got := resp.Header.Get("Access-Control-Allow-Origin"); got != tt.origin {
				t.Errorf("Access-Control-Allow-Origin: got %q, want %q", got, tt.origin)
			}
			if tt.header != "" && resp.Header.Get(tt.header) != tt.value {
				t.Errorf("%s: got %q, want %q", tt.header, resp.Header.Get(tt.header), tt.value)
			}
			if tt.status != 200 && strings.Contains(body, "credential") {
				t.Errorf("a refusal holds a credential: %s", body)
			}
		})
	}
	if log := g.logs.String(); strings.Contains(log, good[7:]) || strings.Contains(log, "another-token") {
		t.Error("a token is in the log")
	}
}

// What is handed out works, and is what RTCPeerConnection takes.
func TestICEServersLetAClientIn(t *testing.T) {
	g := startGate(t, iceConfig+`ttl = "10m"`)
	resp, body := g.ice(t, "GET", "/ice?user=alice", "Authorization", "Bearer another-token-of-the-test")
	if resp.StatusCode != 200 {
		t.Fatal(resp.Status)
	}
	var answer struct {
		ICEServers []struct {
			URLs                 []string
			Username, Credential string
		} `json:"iceServers"`
		TTL int64
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || len(answer.ICEServers) != 1 || answer.TTL != 600 {
		t.Fatalf("got %s, %v; want one server and a ttl of 600", body, err)
	}
	s := answer.ICEServers[0]
	if want := fmt.Sprintf("turn:127.0.0.1:%d?transport=udp", g.turnUDP.Port()); len(s.URLs) != 3 || s.URLs[0] != want {
		t.Errorf("urls: got %q, want three, first %q", s.URLs, want)
	}
	if !strings.HasSuffix(s.Username, ":alice") {
		t.Errorf("username: got %q, want one of alice", s.Username)
	}
	ctx := deadline(t)
	c, err := tc.Dial(ctx, "udp", g.turnUDP.String(), tc.Auth{User: s.Username, Password: s.Credential})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Allocate(ctx); err != nil {
		t.Error(err)
	}
}

func TestTokensCannotBeTriedFast(t *testing.T) {
	g := startGate(t, strings.Replace(iceConfig, "rate = 0", "rate = 1", 1))
	limited := 0
	for range 10 {
		resp, _ := g.ice(t, "GET", "/ice", "Authorization", "Bearer guess")
		switch resp.StatusCode {
		case http.StatusUnauthorized:
		case http.StatusTooManyRequests:
			limited++
			if resp.Header.Get("Retry-After") == "" {
				t.Error("429 without Retry-After")
			}
		default:
			t.Errorf("got %s", resp.Status)
		}
	}
	if limited == 0 {
		t.Error("ten guesses at once, and none was refused for being too many")
	}
}

func TestWithoutATokenListThereIsNoSuchAddress(t *testing.T) {
	g := startGate(t, "")
	if resp, _ := g.ice(t, "GET", "/ice"); resp.StatusCode != http.StatusNotFound {
		t.Errorf("got %s, want 404", resp.Status)
	}
	// A reload switches it on.
	text, err := os.ReadFile(g.file())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.file(), append(text, iceConfig...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := g.reload(); err != nil {
		t.Fatal(err)
	}
	resp, _ := g.ice(t, "GET", "/ice", "Authorization", "Bearer another-token-of-the-test", "Origin", "https://app.example.com")
	if resp.StatusCode != http.StatusOK {
		t.Errorf("after the reload: got %s, want 200", resp.Status)
	}
}

func TestICEServersEndWithTheDrain(t *testing.T) {
	g := startGate(t, iceConfig)
	g.draining.Store(true)
	defer g.draining.Store(false)
	resp, _ := g.ice(t, "GET", "/ice", "Authorization", "Bearer another-token-of-the-test")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %s, want 503", resp.Status)
	}
}
