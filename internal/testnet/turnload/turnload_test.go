package main

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestPercentilesAreWithinOneSixtyFourth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []time.Duration
	for range 20000 {
		d := time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, share := range []float64{0.001, 0.5, 0.9, 0.99, 0.9999, 1} {
		want := all[max(0, int(share*float64(len(all))+0.9999)-1)]
		if got := h.at(share); got < want || got > want+want/64+1 {
			t.Errorf("percentile %v: got %v, want %v or up to 1/64 more", 100*share, got, want)
		}
	}
	if got := h.at(1); got != all[len(all)-1] {
		t.Errorf("maximum: got %v, want %v exactly", got, all[len(all)-1])
	}
}

func TestBucketsOfAHistogram(t *testing.T) {
	for _, v := range []uint64{0, 1, 63, 64, 127, 128, 129, 255, 256, 1 << 20, 1<<20 + 1<<13, 1<<44 - 1} {
		b := bucketOf(v)
		if high := highest(b); high < v || bucketOf(high) != b || bucketOf(high+1) != b+1 {
			t.Errorf("%d is in bucket %d, which ends with %d (in %d; the next in %d)", v, b, high, bucketOf(high), bucketOf(high+1))
		}
	}
	var a, b, empty histogram
	a.add(time.Second)
	b.add(-time.Second) // a clock that was set
	b.add(48 * time.Hour)
	a.merge(&b)
	if a.count != 3 || a.max != 48*time.Hour || a.at(0.1) != 0 || a.at(1) != 48*time.Hour {
		t.Errorf("merged: %d values, maximum %v, from %v to %v", a.count, a.max, a.at(0.1), a.at(1))
	}
	if got := empty.at(0.99); got != 0 {
		t.Errorf("percentile of nothing: got %v, want 0", got)
	}
}

func TestSequenceNumbers(t *testing.T) {
	type seen struct {
		n           uint64
		fresh, late bool
	}
	for _, c := range []struct {
		name string
		in   []seen
	}{
		{"in order", []seen{{0, true, false}, {1, true, false}, {2, true, false}}},
		{"one twice", []seen{{0, true, false}, {0, false, true}, {1, true, false}, {0, false, true}}},
		{"two swapped", []seen{{0, true, false}, {2, true, false}, {1, true, true}, {1, false, true}}},
		{"after a gap as long as the window", []seen{{5, true, false}, {5 + window, true, false}, {5 + window - 1, true, true}, {6, true, true}, {6, false, true}}},
		{"older than the window is taken for fresh", []seen{{3 * window, true, false}, {7, true, true}, {7, true, true}}},
		{"a slot that was used a window ago", []seen{{1, true, false}, {window, true, false}, {window + 1, true, false}, {window + 1, false, true}}},
	} {
		var s sequence
		for i, want := range c.in {
			if fresh, late := s.see(want.n); fresh != want.fresh || late != want.late {
				t.Errorf("%s: number %d (%d): fresh %v, late %v, want %v, %v", c.name, i, want.n, fresh, late, want.fresh, want.late)
			}
		}
	}
}

func TestATallyCountsOnlyWhatCameRight(t *testing.T) {
	const size = 40
	var y tally
	y.begin(7, 2)
	payload := func(s stamp, n int) []byte {
		b := make([]byte, n)
		s.put(b)
		return b
	}
	right := func(int) bool { return true }
	y.count(payload(stamp{7, 0, 0, 1000}, size), size, 3000, right)
	y.count(payload(stamp{7, 0, 2, 1000}, size), size, 4000, right)
	y.count(payload(stamp{7, 0, 1, 1000}, size), size, 5000, right)
	y.count(payload(stamp{7, 0, 1, 1000}, size), size, 5000, right)
	y.count(payload(stamp{7, 1, 0, 1000}, size), size, 6000, right)
	y.count(payload(stamp{6, 1, 1, 1000}, size), size, 6000, right)                           // of the step before
	y.count(payload(stamp{7, 2, 0, 1000}, size), size, 6000, right)                           // no such flow
	y.count(payload(stamp{7, 1, 1, 1000}, size+1), size, 6000, right)                         // longer
	y.count(payload(stamp{7, 1, 1, 1000}, size), size, 6000, func(int) bool { return false }) // at the wrong place
	y.count([]byte("what"), size, 6000, right)
	if y.delivered != 4 || y.reordered != 1 || y.duplicated != 1 || y.misdirected != 4 || y.latency.count != 4 || y.latency.max != 5000 {
		t.Errorf("delivered %d, reordered %d, duplicated %d, misdirected %d, %d latencies up to %v; want 4, 1, 1, 4, 4 up to 5µs",
			y.delivered, y.reordered, y.duplicated, y.misdirected, y.latency.count, y.latency.max)
	}
}

func TestAPlanKeepsItsRateForEveryLane(t *testing.T) {
	for _, c := range []struct {
		name         string
		lanes, burst int
		rate         float64
	}{
		{"one flow in bursts", 1, 30, 30000},
		{"many flows", 500, 1, 25000},
		{"many flows in bursts", 50, 10, 100000},
	} {
		const start, tick = 1e9, int64(100 * time.Microsecond)
		p := newPlan(start, c.lanes, c.burst, c.rate, 2*time.Second, time.Duration(tick))
		lanes := make([][]int64, c.lanes)
		last, packets := int64(0), 0
		for lane, due, ok := p.next(); ok; lane, due, ok = p.next() {
			if due < last || (due-start)%tick != 0 {
				t.Fatalf("%s: due at %d after %d, with a tick of %d", c.name, due, last, tick)
			}
			last = due
			lanes[lane] = append(lanes[lane], due)
			packets += c.burst
			p.advance()
		}
		if want := int(2 * c.rate); packets < want-c.burst || packets > want+c.burst {
			t.Errorf("%s: %d packets, want %d", c.name, packets, want)
		}
		if over := last - start; over > int64(2*time.Second)+tick {
			t.Errorf("%s: the last is due after %v, want 2s", c.name, time.Duration(over))
		}
		period := int64(float64(c.lanes*c.burst) / c.rate * 1e9)
		for i, due := range lanes {
			for j := 1; j < len(due); j++ {
				if d := due[j] - due[j-1]; d < period-tick-1 || d > period+tick+1 {
					t.Fatalf("%s: lane %d pauses for %d, want %d", c.name, i, d, period)
				}
			}
		}
		again := newPlan(start, c.lanes, c.burst, c.rate, 2*time.Second, time.Duration(tick))
		if !slices.Equal(p.phases, again.phases) {
			t.Errorf("%s: the same plan is another one", c.name)
		}
	}
}

func TestSearchFindsTheHighestRate(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name    string
		try     func(n int, rate float64) (trial, error)
		low     float64
		high    float64
		ceiling bool
		err     error
	}{
		{"a server that bears 123,456", func(_ int, r float64) (trial, error) { return verdict(r <= 123456), nil }, 123456 / 1.05, 123456, false, nil},
		{"one that bears less than the beginning", func(_ int, r float64) (trial, error) { return verdict(r <= 777), nil }, 777 / 1.05, 777, false, nil},
		{"one that bears nothing", func(int, float64) (trial, error) { return lost, nil }, 0, 0, false, nil},
		{"one that bears all", func(int, float64) (trial, error) { return passed, nil }, 1e6, 1e6, true, nil},
		{"every other attempt is spoilt", func(n int, r float64) (trial, error) { return verdict(r <= 50000 && n%2 == 1), nil }, 50000 / 1.05, 50000, false, nil},
		{"the generator ends first", func(_ int, r float64) (trial, error) {
			if r > 90000 {
				return limited, nil
			}
			return passed, nil
		}, 90000 / 1.05, 90000, true, nil},
		{"an error ends it", func(int, float64) (trial, error) { return lost, broken }, 0, 0, false, broken},
	} {
		n := 0
		got, ceiling, err := search(10000, 1e6, 0.05, func(rate float64) (trial, error) {
			if n++; n > 100 {
				t.Fatalf("%s: does not end", c.name)
			}
			return c.try(n-1, rate)
		})
		if got < c.low || got > c.high || ceiling != c.ceiling || !errors.Is(err, c.err) {
			t.Errorf("%s: got %.0f, %v, %v; want %.0f to %.0f, %v, %v", c.name, got, ceiling, err, c.low, c.high, c.ceiling, c.err)
		}
	}
}

func verdict(ok bool) trial {
	if ok {
		return passed
	}
	return lost
}

func TestFlagsOfBench(t *testing.T) {
	o, asJSON, err := parseBench([]string{"-server", "127.0.0.1:21900", "-u", "U", "-w", "P", "-direction", "both", "-rate", "search", "-json"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !asJSON || o.rate != 0 || !o.up || !o.down || o.auth.User != "U" || o.auth.Password != "P" || o.direction() != "both" ||
		o.clientNet != netip.MustParsePrefix("127.1.0.0/16") || o.peerNet != netip.MustParsePrefix("127.2.0.0/16") {
		t.Errorf("got %+v, JSON %v", o, asJSON)
	}
	for _, server := range []string{"192.0.2.1:3478", "[::1]:3478"} {
		if o, _, err := parseBench([]string{"-server", server}, io.Discard); err != nil || o.clientNet.IsValid() || o.peerNet.IsValid() {
			t.Errorf("%s: networks %v and %v, %v; want a socket for each", server, o.clientNet, o.peerNet, err)
		}
	}
	for _, wrong := range [][]string{
		{"-server", "localhost"}, {"-rate", "0"}, {"-rate", "NaN"}, {"-rate", "-1"}, {"-rate", "fast"}, {"-direction", "left"},
		{"-transport", "sctp"}, {"-size", "27"}, {"-size", "1401"}, {"-allocations", "0"}, {"-burst", "0"}, {"-duration", "0s"},
		{"-tick", "0s"}, {"-client-net", "127.1.0.0/30", "-allocations", "3"}, {"-peer-net", "::/64"}, {"-peer-addr", "x"},
		{"-within", "0"}, {"-from", "5", "-most", "4"}, {"argument"}, {"-unknown"},
	} {
		if _, _, err := parseBench(wrong, io.Discard); err == nil {
			t.Errorf("%v: no error", wrong)
		}
	}
}

func TestAddressesOfClients(t *testing.T) {
	p := netip.MustParsePrefix("127.1.0.0/16")
	for i, want := range map[int]string{0: "127.1.0.1", 254: "127.1.0.255", 255: "127.1.1.0", 1999: "127.1.7.208"} {
		a := nth(p, i)
		if a.String() != want || indexOf(p, a) != i {
			t.Errorf("address %d: got %v, which is number %d, want %s", i, a, indexOf(p, a), want)
		}
	}
	if got := indexOf(p, netip.MustParseAddr("127.2.0.1")); got >= 0 {
		t.Errorf("a foreign address is number %d", got)
	}
	if got := indexOf(netip.Prefix{}, netip.MustParseAddr("127.2.0.1")); got >= 0 {
		t.Errorf("an address is number %d of no prefix", got)
	}
}

func TestFramesOfAStream(t *testing.T) {
	frame := func(channel, n int, padded bool) []byte {
		b := append([]byte{byte(channel >> 8), byte(channel), byte(n >> 8), byte(n)}, bytes.Repeat([]byte{1}, n)...)
		for padded && len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	stun := append([]byte{1, 1, 0, 4, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 16)...)
	stream := slices.Concat(frame(0x4000, 5, true), stun, frame(0x4001, 8, true))
	for cut := range len(stream) + 1 { // however it is cut, the frames are the same
		var got []int
		rest := []byte(nil)
		for _, piece := range [][]byte{stream[:cut], stream[cut:]} {
			rest = append(rest, piece...)
			for {
				frame, r, err := cutFrame(rest)
				if err != nil {
					t.Fatal(err)
				}
				if rest = r; frame == nil {
					break
				}
				got = append(got, len(frame))
			}
		}
		if want := []int{12, 24, 12}; !slices.Equal(got, want) || len(rest) > 0 {
			t.Fatalf("cut at %d: frames of %v and %d bytes more, want %v", cut, got, len(rest), want)
		}
	}
	if _, _, err := cutFrame([]byte{0x80, 0, 0, 0}); err == nil {
		t.Error("a frame that is neither passes")
	}
	for _, c := range []struct {
		name    string
		in      []byte
		channel uint16
		payload int
		ok      bool
	}{
		{"bare", frame(0x4002, 5, false), 0x4002, 5, true},
		{"padded", frame(0x4002, 5, true), 0x4002, 5, true},
		{"longer than it says", append(frame(0x4002, 4, true), 0, 0, 0, 0), 0, 0, true},
		{"shorter than it says", frame(0x4002, 5, false)[:8], 0, 0, true},
		{"a STUN message", stun, 0, 0, false},
		{"nothing", nil, 0, 0, false},
	} {
		if ch, p, ok := channelData(c.in); ch != c.channel || len(p) != c.payload || ok != c.ok {
			t.Errorf("%s: channel %#x, %d bytes, %v; want %#x, %d, %v", c.name, ch, len(p), ok, c.channel, c.payload, c.ok)
		}
	}
}

func TestWhatProcSays(t *testing.T) {
	stat := "42 (a ) (b) S 1 42 42 0 -1 4194304 100 0 0 0 250 150 0 0 20 0 5 0 100 1000 10"
	if got, err := parseStat([]byte(stat)); got != 4e9 || err != nil {
		t.Errorf("CPU time: %d, %v, want 4 s", got, err)
	}
	if _, err := parseStat([]byte("42 (x) S 1")); err == nil {
		t.Error("half a line passes")
	}
	comm := func() map[int]string { return map[int]string{5: "napi/veth0-1", 6: "napi/veth1-1", 7: "ksoftirqd/0"} }
	for in, want := range map[string][]int{"": nil, "napi/veth0": {5}, "12, napi/": {5, 6, 12}, "none": nil, ",": nil} {
		got := pidsOf(in, comm)
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("-cpu-of %q: %v, want %v", in, got, want)
		}
	}
}

func TestVerdictsOfTheComparison(t *testing.T) {
	step := func(cpu, loss float64) *result {
		r := &result{LossShare: loss}
		r.CPU.Server = cpu
		return r
	}
	for _, c := range []struct {
		name             string
		turngate, coturn []*result
		target           float64
		more             bool
		want             bool
	}{
		{"cheaper", []*result{step(3, 0)}, []*result{step(6, 0)}, 0.7, false, true},
		{"one bad round of three", []*result{step(3, 0), step(30, 0), step(4, 0)}, []*result{step(6, 0)}, 0.7, false, true},
		{"dearer", []*result{step(6, 0)}, []*result{step(6, 0)}, 0.7, false, false},
		{"cheap by losing", []*result{step(3, 0.1)}, []*result{step(6, 0)}, 0.7, false, false},
		{"more", []*result{step(9, 0)}, []*result{step(6, 0)}, 1.5, true, true},
		{"not enough", []*result{step(8, 0)}, []*result{step(6, 0)}, 1.5, true, false},
		{"nothing came through", []*result{step(0, 1)}, []*result{step(6, 0)}, 0.7, false, false},
	} {
		k := &comparison{log: io.Discard}
		r := k.add(c.name, "us", [2][]*result{c.turngate, c.coturn}, costOf, c.target, c.more)
		if *r.Passed != c.want {
			t.Errorf("%s: passed %v, want %v (%+v)", c.name, *r.Passed, c.want, r)
		}
	}
}
