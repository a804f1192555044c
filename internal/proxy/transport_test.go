package proxy

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

func TestClientFollowsAMoveOfTheUpstream(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	cert := ca.Issue(t, "logs.example.com")
	old := testnet.NewUpstream(t, cert, http.NotFoundHandler())
	var addr atomic.Pointer[netip.Addr]
	first, second := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	addr.Store(&first)
	d, err := NewDialer(DialOptions{CAFile: ca.File(t), Lookup: func(context.Context, string) ([]netip.Addr, error) {
		return []netip.Addr{*addr.Load()}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	var clock atomic.Int64 // seconds that have passed
	d.dns.now = func() time.Time { return time.Unix(1000+clock.Load(), 0) }
	c := NewClient(d)
	u := mustUpstream(t, "https://logs.example.com:"+old.Port())
	send := func() error {
		resp, err := c.RoundTrip(u, (&http.Request{Method: "GET", URL: u.URL("/"), Host: u.HostHeader(), Header: http.Header{}}).WithContext(t.Context()), nil)
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	for range 3 {
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	if n := old.Conns.Load(); n != 1 {
		t.Errorf("%d connections for three requests, want 1 kept", n)
	}
	addr.Store(&second) // nobody listens there
	deadline := time.Now().Add(time.Minute)
	for {
		clock.Add(10)
		if err := send(); err != nil {
			if cause := Classify(err); cause != CauseRefused {
				t.Errorf("cause %s (%v), want refused by the new address", cause, err)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("requests stay with the old address")
		}
	}
}

func TestClientNamesNoUserAgentOfItsOwn(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	seen := make(chan []string, 1)
	h := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header["User-Agent"] })
	overTLS := testnet.NewUpstream(t, ca.Issue(t, "127.0.0.1"), h)
	d, err := NewDialer(DialOptions{CAFile: ca.File(t)})
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{"https://" + overTLS.Addr, "http://" + testnet.PlainUpstream(t, h).Addr} {
		u := mustUpstream(t, base)
		for _, header := range []http.Header{{}, {"User-Agent": {"Mozilla/5.0"}}} {
			want := header["User-Agent"]
			c := NewClient(d)
			resp, err := c.RoundTrip(u, (&http.Request{Method: "GET", URL: u.URL("/"), Host: u.HostHeader(), Header: header}).WithContext(t.Context()), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			c.CloseIdle()
			if got := <-seen; !slices.Equal(got, want) {
				t.Errorf("%s: User-Agent %q, want %q", base, got, want)
			}
		}
	}
}

func TestClientTellsThePhasesOfARequest(t *testing.T) {
	ca := testnet.NewCA(t, "Root")
	secure := testnet.NewUpstream(t, ca.Issue(t, "logs.example.com"), http.NotFoundHandler())
	plain := testnet.PlainUpstream(t, http.NotFoundHandler())
	d, err := NewDialer(DialOptions{CAFile: ca.File(t), Resolve: map[string]string{"logs.example.com": "127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	c := NewClient(d)
	for name, tt := range map[string]struct {
		url   string
		first []string
	}{
		"TLS":   {"https://logs.example.com:" + secure.Port(), []string{"dial", "tls", "answer"}},
		"plain": {"http://" + plain.Addr, []string{"dial", "answer"}},
	} {
		u := mustUpstream(t, tt.url)
		for _, want := range [][]string{tt.first, {"answer"}} { // the second one finds the connection kept
			var got []string
			resp, err := c.RoundTrip(u, (&http.Request{Method: "GET", URL: u.URL("/"), Host: u.HostHeader(), Header: http.Header{}}).WithContext(t.Context()),
				func(phase string, took time.Duration) {
					if took <= 0 {
						t.Errorf("%s: %s took %v", name, phase, took)
					}
					got = append(got, phase)
				})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body) // so that it is kept
			resp.Body.Close()
			if !slices.Equal(got, want) {
				t.Errorf("%s: phases %v, want %v", name, got, want)
			}
		}
	}
}
