package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestPoolOfCandidates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := NewPool([]string{"https://a.example", "https://b.example"})
		if err != nil {
			t.Fatal(err)
		}
		order := func() string {
			s := ""
			for _, u := range p.Candidates() {
				s += u.Host[:1]
			}
			return s
		}
		a, b := p.ups[0], p.ups[1]
		if got := order(); got != "ab" {
			t.Errorf("healthy: order %s, want ab", got)
		}
		if !p.Failed(a, io.EOF) || p.Failed(a, io.EOF) {
			t.Error("Failed does not report the change once")
		}
		if got := order(); got != "ba" {
			t.Errorf("a is out: order %s, want ba", got)
		}
		p.Failed(b, io.EOF)
		if got := order(); got != "ab" {
			t.Errorf("all out: order %s, want each once", got)
		}
		p.Worked(b)
		time.Sleep(downTime)
		if got := order(); got != "ab" {
			t.Errorf("after ten seconds: order %s, want a trial of a", got)
		}
		if got := order(); got != "ba" {
			t.Errorf("during the trial: order %s, want ba", got)
		}
		p.Failed(a, context.Canceled)
		if got := order(); got != "ab" {
			t.Errorf("after a trial whose client left: order %s, want another trial", got)
		}
		if !p.Worked(a) || p.Worked(a) {
			t.Error("Worked does not report the change once")
		}
		if p.Failed(a, context.Canceled) || order() != "ab" {
			t.Error("a client that left took the upstream out")
		}
	})
}

func makePool(t testing.TB, b Balance, targets ...Target) *Pool {
	t.Helper()
	p, err := MakePool(PoolOptions{Targets: targets, Balance: b})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func named(names ...string) []Target {
	var list []Target
	for _, n := range names {
		list = append(list, Target{URL: "http://" + n + ".example"})
	}
	return list
}

// all empties a search as a request does for which no upstream works, and gives back
// what it took.
func all(s *Search) string {
	got := ""
	for u := s.Next(); u != nil; u = s.Next() {
		got += u.Host[:1]
		u.Release()
	}
	return got
}

// first returns the upstream that a request with this key gets.
func first(p *Pool, key string) *Upstream {
	u := p.Search(key).Next()
	u.Release()
	return u
}

func TestSearchAsksBackupsLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		targets := named("a", "b", "c", "d", "e")
		targets[0].Backup, targets[3].Backup, targets[4].Off = true, true, true
		p := makePool(t, InOrder, targets...)
		a, b, c := p.ups[0], p.ups[1], p.ups[2]
		down := errors.New("x")
		for _, step := range []struct {
			name string
			do   func()
			want string
		}{
			{"main ones in their order, then backups, and never what is switched off", func() {}, "bcad"},
			{"a main one that is out comes behind the backups", func() { b.Failed(down) }, "cadb"},
			{"without a main one the backups are first", func() { c.Failed(down) }, "adbc"},
			{"all out: each once all the same", func() { a.Failed(down); p.ups[3].Failed(down) }, "bcad"},
			{"one main one is back, and is first", func() { c.Worked() }, "cbad"},
		} {
			step.do()
			if got := all(p.Search("")); got != step.want {
				t.Errorf("%s: asked %s, want %s", step.name, got, step.want)
			}
		}
		time.Sleep(downTime)
		if got := all(p.Search("")); got != "bcad" {
			t.Errorf("trials due: asked %s, want bcad", got)
		}
		if got := all(p.Search("")); got != "cbad" {
			t.Errorf("during the trials: asked %s, want cbad", got)
		}
	})
}

func TestSearchSeesWhatHappensMeanwhile(t *testing.T) {
	p := makePool(t, InOrder, named("a", "b", "c")...)
	s := p.Search("")
	s.Next()
	p.ups[1].Failed(io.EOF) // another request's finding, while this one waited for a
	if u := s.Next(); u.Host != "c.example" {
		t.Errorf("second choice %s, want c: b went out meanwhile", u.Host)
	}
}

func TestByKeySpreadsByWeight(t *testing.T) {
	targets := named("a", "b", "c", "d")
	targets[0].Weight, targets[1].Weight, targets[2].Weight, targets[3].Off = 10, 30, 60, true
	p := makePool(t, ByKey, targets...)
	const n = 20000
	count := map[string]int{}
	for i := range n {
		count[first(p, fmt.Sprint(i)).Host[:1]]++
	}
	for host, want := range map[string]float64{"a": .1, "b": .3, "c": .6} {
		if got := float64(count[host]) / n; math.Abs(got-want) > .015 {
			t.Errorf("%s gets %.3f of the keys, want %.3f", host, got, want)
		}
	}
	if count["d"] != 0 {
		t.Errorf("what is switched off gets %d keys", count["d"])
	}
}

func TestByKeyMovesNoKeyThatNeedNotMove(t *testing.T) {
	p := makePool(t, ByKey, named("a", "b", "c", "d")...)
	const n = 2000
	before := make([]*Upstream, n)
	for i := range n {
		before[i] = first(p, fmt.Sprint(i))
	}
	lost := p.ups[1]
	lost.Failed(io.EOF)
	heirs := map[*Upstream]int{}
	for i := range n {
		now := first(p, fmt.Sprint(i))
		switch {
		case now == lost:
			t.Fatalf("key %d goes to what is out", i)
		case before[i] == lost:
			heirs[now]++
		case now != before[i]:
			t.Errorf("key %d moved from %s to %s, though %s is there", i, before[i].Host, now.Host, before[i].Host)
		}
	}
	if len(heirs) != 3 {
		t.Errorf("the keys of what is out went to %d upstreams, want all 3 others", len(heirs))
	}
	lost.Worked()
	// Another process, with the list in another order and one more upstream.
	q := makePool(t, ByKey, named("e", "d", "c", "b", "a")...)
	moved := 0
	for i := range n {
		switch now := first(q, fmt.Sprint(i)); {
		case now.Host == before[i].Host:
		case now.Host == "e.example":
			moved++
		default:
			t.Errorf("key %d moved from %s to %s", i, before[i].Host, now.Host)
		}
	}
	if moved < n/8 || moved > n/3 {
		t.Errorf("%d of %d keys moved to the new one, want about a fifth", moved, n)
	}
}

func TestLeastConnections(t *testing.T) {
	targets := named("a", "b", "c")
	targets[0].Weight, targets[1].Weight, targets[2].Weight, targets[2].Backup = 50, 100, 100, true
	p := makePool(t, LeastConnections, targets...)
	got := ""
	var open []*Upstream
	for range 6 {
		u := p.Search("").Next()
		got += u.Host[:1]
		open = append(open, u)
	}
	if n := strings.Count(got, "a"); n != 2 || strings.Contains(got, "c") {
		t.Errorf("six connections went %s, want two of them to a and none to the backup", got)
	}
	for _, u := range open {
		u.Release()
	}
	for _, u := range p.ups {
		if n := u.Health().Connections; n != 0 {
			t.Errorf("%s counts %d connections, want 0", u.Name, n)
		}
	}
}

func TestChecked(t *testing.T) {
	p, err := MakePool(PoolOptions{Targets: named("a"), Checked: true})
	if err != nil {
		t.Fatal(err)
	}
	u, bad := p.ups[0], io.EOF
	for i, step := range []struct {
		err     error
		changed bool
		up      bool
	}{
		{bad, false, true}, {nil, false, true}, {bad, false, true}, {bad, true, false}, {bad, false, false},
		{nil, false, false}, {bad, false, false}, {nil, false, false}, {nil, true, true}, {nil, false, true},
	} {
		if got := u.Checked(step.err, 2, 2); got != step.changed || u.Health().Up != step.up {
			t.Errorf("check %d (%v): changed %v, up %v; want %v, %v", i, step.err, got, u.Health().Up, step.changed, step.up)
		}
	}
	if got := u.Health(); got.Cause != "" || got.Since.IsZero() {
		t.Errorf("up again: cause %q, since %v", got.Cause, got.Since)
	}
}

func TestChecksHaveTheirSayOnlyWhereTheyAreMade(t *testing.T) {
	old, err := MakePool(PoolOptions{Targets: named("a", "b"), Checked: true})
	if err != nil {
		t.Fatal(err)
	}
	old.ups[0].Checked(io.EOF, 1, 1)
	old.ups[1].Failed(io.EOF)
	off := makePool(t, InOrder, named("b", "a", "new")...)
	off.Inherit(old)
	for i, want := range []bool{false, true, true} { // b failed a request; a only checks
		if got := off.ups[i].Health().Up; got != want {
			t.Errorf("without checks: %s up is %v, want %v", off.ups[i].Name, got, want)
		}
	}
	on, _ := MakePool(PoolOptions{Targets: named("a"), Checked: true})
	on.Inherit(old)
	if on.ups[0].Health().Up {
		t.Error("a reload forgot what the checks found out")
	}
	again, _ := MakePool(PoolOptions{Targets: named("a"), Checked: true})
	again.Inherit(off)
	if !again.ups[0].Health().Up {
		t.Error("checks that were switched on again begin with the findings of earlier ones")
	}
	off.ups[1].Failed(io.EOF)
	if on.ups[0].Health().Up {
		t.Error("two pools disagree about an upstream they share")
	}
}

func TestPoolsAreRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		targets []Target
	}{
		{"none at all", nil},
		{"one twice", Targets("https://a.example/", "wss://A.example:443/")},
		{"a weight over 100", []Target{{URL: "https://a.example", Weight: 101}}},
		{"a negative weight", []Target{{URL: "https://a.example", Weight: -1}}},
		{"a server name without TLS", []Target{{URL: "http://a.example", ServerName: "b.example"}}},
		{"a server name that is none", []Target{{URL: "https://a.example", ServerName: "b example"}}},
		{"a host that is none", []Target{{URL: "https://a.example", Host: "b\r\nX: y"}}},
	} {
		if _, err := MakePool(PoolOptions{Targets: tt.targets}); err == nil {
			t.Errorf("%s: no error", tt.name)
		}
	}
	if _, err := MakePool(PoolOptions{Targets: []Target{{URL: "https://192.0.2.1"}, {URL: "https://192.0.2.1", ServerName: "b.example"}}}); err != nil {
		t.Errorf("one address for two names: %v", err)
	}
}
