package proxy

import (
	"context"
	"net/http"
	"net/netip"
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
		resp, err := c.RoundTrip(u, (&http.Request{Method: "GET", URL: u.URL("/"), Host: u.HostHeader(), Header: http.Header{}}).WithContext(t.Context()))
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
	deadline := time.Now().Add(10 * time.Second)
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
