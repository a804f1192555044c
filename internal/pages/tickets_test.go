package pages

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestALinkOpensOneSession(t *testing.T) {
	tickets := NewTickets()
	token, _ := tickets.Issue(time.Minute)
	s, key, err := tickets.Redeem(token)
	if err != nil {
		t.Fatal(err)
	}
	if got := tickets.Session(key); got != s {
		t.Errorf("the session's key leads to %v, want %v", got, s)
	}
	if tickets.Session(token) != nil {
		t.Error("the token itself is a key")
	}
	if _, _, err := tickets.Redeem(token); !errors.Is(err, ErrUsed) {
		t.Errorf("the second time: %v, want %v", err, ErrUsed)
	}
	for _, guess := range []string{"", "x", token + "x", token[1:], key} {
		if _, _, err := tickets.Redeem(guess); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v, want %v", guess, err, ErrUnknown)
		}
	}
}

func TestLinksAndSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tickets := NewTickets()
		early, expires := tickets.Issue(time.Minute)
		if want := time.Now().Add(time.Minute); !expires.Equal(want) {
			t.Errorf("expires %v, want %v", expires, want)
		}
		late, _ := tickets.Issue(time.Minute)
		time.Sleep(time.Minute - 1)
		_, key, err := tickets.Redeem(early)
		if err != nil {
			t.Fatalf("just in time: %v", err)
		}
		time.Sleep(time.Nanosecond)
		if _, _, err := tickets.Redeem(late); !errors.Is(err, ErrExpired) {
			t.Errorf("a moment too late: %v, want %v", err, ErrExpired)
		}
		time.Sleep(sessionLife)
		if tickets.Session(key) != nil {
			t.Error("the session goes on for ever")
		}
	})
}

func TestMemoryOfLinksIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tickets := NewTickets()
		first, _ := tickets.Issue(time.Hour)
		for range 4 * maxTickets {
			time.Sleep(time.Millisecond)
			token, _ := tickets.Issue(time.Hour)
			if _, _, err := tickets.Redeem(token); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(tickets.tickets); n > maxTickets {
			t.Errorf("%d links are kept, want at most %d", n, maxTickets)
		}
		if n := tickets.Open(); n > maxSessions || len(tickets.probes) != n {
			t.Errorf("%d sessions and %d probe keys, want at most %d of each", n, len(tickets.probes), maxSessions)
		}
		if _, _, err := tickets.Redeem(first); !errors.Is(err, ErrUnknown) {
			t.Errorf("the oldest of too many: %v, want %v", err, ErrUnknown)
		}
	})
}

func TestProbesTellWhatBecameOfThem(t *testing.T) {
	tickets := NewTickets()
	token, _ := tickets.Issue(time.Minute)
	s, _, err := tickets.Redeem(token)
	if err != nil {
		t.Fatal(err)
	}
	mark := fmt.Sprintf("%s=%s.7", ProbeParameter, s.probeKey)
	for _, c := range []struct{ name, query, rest string }{
		{"no mark", "?a=b", "?a=b"},
		{"no query", "", ""},
		{"a mark of nobody", "?" + ProbeParameter + "=guess.1&a=b", "?" + ProbeParameter + "=guess.1&a=b"},
		{"a mark without a number", "?" + ProbeParameter + "=" + s.probeKey, "?" + ProbeParameter + "=" + s.probeKey},
		{"a negative number", "?" + ProbeParameter + "=" + s.probeKey + ".-1", "?" + ProbeParameter + "=" + s.probeKey + ".-1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if p, rest := tickets.Probe(c.query); p != nil || rest != c.rest {
				t.Errorf("got %v and %q, want none and %q", p, rest, c.rest)
			}
		})
	}
	if got := s.result(t.Context(), 7); got != (Result{}) {
		t.Errorf("before it arrived: %+v, want nothing", got)
	}
	p, rest := tickets.Probe("?a=b&" + mark + "&c=d")
	if p == nil || rest != "?a=b&c=d" {
		t.Fatalf("got %v and %q, want a probe and the query without its mark", p, rest)
	}
	if again, _ := tickets.Probe("?" + mark); again != nil {
		t.Error("one number made two probes")
	}
	p.End(Result{Status: 403, Upstream: "a.example.com:443"})
	if got, want := s.result(t.Context(), 7), (Result{Arrived: true, Ended: true, Status: 403, Upstream: "a.example.com:443"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	for n := range 2 * maxProbes {
		tickets.Probe(fmt.Sprintf("?%s=%s.%d", ProbeParameter, s.probeKey, n))
	}
	if len(s.probes) > maxProbes {
		t.Errorf("%d probes are kept, want at most %d", len(s.probes), maxProbes)
	}
}
