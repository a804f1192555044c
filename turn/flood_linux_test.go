package turn_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// spoofer sends UDP datagrams on loopback from addresses that are not its own.
type spoofer struct {
	fd   int
	to   netip.AddrPort
	sent atomic.Int64
}

func newSpoofer(t *testing.T, to netip.AddrPort) *spoofer {
	t.Helper()
	testnet.Need(t, "netns") // root
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
	must(t, err)
	t.Cleanup(func() { syscall.Close(fd) })
	return &spoofer{fd: fd, to: to}
}

func (s *spoofer) send(from netip.AddrPort, payload []byte) {
	const headers = 20 + 8
	var space [256]byte
	p := append(space[:headers], payload...)
	p[0], p[8], p[9] = 0x45, 64, syscall.IPPROTO_UDP // the kernel fills in length, id and checksum
	src, dst := from.Addr().As4(), s.to.Addr().As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], s.to.Port())
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload))) // checksum 0: none
	if syscall.Sendto(s.fd, p, 0, &syscall.SockaddrInet4{Addr: dst}) == nil {
		s.sent.Add(1)
	}
}

// flood sends Allocates without a credential at 100,000 a second, or as many
// as the machine can, until ctx ends.
func (s *spoofer) flood(ctx context.Context, from func() netip.AddrPort) {
	const perSecond, slice = 100_000, 10 * time.Millisecond
	request := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP)).Bytes()
	ticker := time.NewTicker(slice)
	defer ticker.Stop()
	began, sent := time.Now(), 0
	for ctx.Err() == nil {
		for due := int(perSecond * time.Since(began).Seconds()); sent < due && ctx.Err() == nil; sent++ {
			binary.BigEndian.PutUint64(request[8:], rand.Uint64())
			s.send(from(), request)
			if sent%1000 == 0 {
				runtime.Gosched()
			}
		}
		<-ticker.C
	}
}

// resident returns the resident memory of this process in bytes, after a
// garbage collection.
func resident(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	statm, err := os.ReadFile("/proc/self/statm")
	must(t, err)
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	must(t, err)
	return pages * int64(os.Getpagesize())
}

// floodFor is how long a flood lasts: seconds, or what TURNGATE_TEST_FLOOD
// says for a measurement.
func floodFor(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("TURNGATE_TEST_FLOOD")
	if text == "" {
		return 3 * time.Second
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

// TestAFloodOfSpoofedAllocates comes from millions of sources while a client
// is served.
func TestAFloodOfSpoofedAllocates(t *testing.T) {
	logs := &lockedBuffer{}
	s, addr := start(t, func(o *turn.Options) {
		o.Limits.UnauthenticatedAnswers, o.Limits.AuthFailures = 50, 100
		o.Log = slog.New(slog.NewJSONHandler(logs, nil))
	})
	flooder := newSpoofer(t, addr)
	anyone := func() netip.AddrPort {
		r := rand.Uint32()
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 64 | byte(r>>24)&0x3F, byte(r >> 16), byte(r >> 8)}), uint16(rand.Uint32N(60000)+1024))
	}
	serves(t, s, addr)
	echo := tc.NewEcho(t, "127.0.0.1")
	sessions := s.Allocations()
	run := func(d time.Duration, meanwhile func(context.Context)) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		done := make(chan struct{})
		go func() { defer close(done); flooder.flood(ctx, anyone) }()
		meanwhile(ctx)
		<-done
	}
	// The tables for strangers fill first, which takes a million sources; from
	// then on memory is flat.
	//
	// What is measured is this process, the honest clients in it included.
	const most = 16 << 20
	d, calls := floodFor(t), 0
	run(max(3*time.Second, d/4), func(context.Context) {})
	before, goroutines := resident(t), runtime.NumGoroutine()
	flooder.sent.Store(0)
	run(d, func(ctx context.Context) {
		for ctx.Err() == nil {
			// A new client each time, from the network of the flood, with the
			// patience of a browser: lost datagrams are sent again.
			c, err := tc.Dial(within(t), "udp", addr.String(), tc.Auth{User: "turn", Password: "turn"}, tc.Retransmit(100*time.Millisecond))
			must(t, err)
			must(t, errOnly(c.Allocate(within(t))))
			must(t, c.CreatePermission(within(t), echo.Addr()))
			heard := false
			for !heard { // UDP may lose one
				must(t, c.Send(within(t), echo.Addr(), []byte("a call")))
				wait, cancel := context.WithTimeout(within(t), 200*time.Millisecond)
				_, err := c.Receive(wait)
				heard = err == nil
				cancel()
				must(t, within(t).Err())
			}
			must(t, errOnly(c.Refresh(within(t), 0)))
			c.Close()
			calls++
		}
	})
	grown := resident(t) - before
	t.Logf("%d requests in %v, %.0f a second; %d calls meanwhile; resident memory %+.1f MiB",
		flooder.sent.Load(), d, float64(flooder.sent.Load())/d.Seconds(), calls, float64(grown)/(1<<20))
	if grown > most && !testnet.Race { // the detector's own memory is not ours
		t.Errorf("resident memory grew by %d bytes, want at most %d", grown, most)
	}
	if got := runtime.NumGoroutine(); got > goroutines+5 {
		t.Errorf("%d goroutines, %d before", got, goroutines)
	}
	if calls == 0 {
		t.Error("no client got its relay")
	}
	waitFor(t, s, sessions)
	if lines := strings.Count(logs.String(), "\n"); lines > 100+2*calls {
		t.Errorf("%d log lines for %d calls", lines, calls)
	}
	if got := s.Bans(); len(got) != 0 {
		t.Errorf("the flood had %d sources banned", len(got))
	}
}

// TestAFloodInTheNameOfOne has the budget of one address, and the address
// itself gets its relay over UDP and TCP.
func TestAFloodInTheNameOfOne(t *testing.T) {
	const perSecond = 50
	s, addr := start(t, func(o *turn.Options) { o.Limits.UnauthenticatedAnswers = perSecond })
	flooder := newSpoofer(t, addr)
	victim := netip.MustParseAddr("127.99.99.99")
	ctx, cancel := context.WithTimeout(t.Context(), floodFor(t))
	defer cancel()
	began := time.Now()
	answered := func() float64 {
		return metric(t, s, "turngate_turn_requests_total", "transport", "udp", "code", "401")
	}
	before := answered()
	done := make(chan struct{})
	go func() {
		defer close(done)
		flooder.flood(ctx, func() netip.AddrPort { return netip.AddrPortFrom(victim, uint16(rand.Uint32N(60000)+1024)) })
	}()
	calls := 0
	for ctx.Err() == nil {
		for _, network := range []string{"tcp", "udp"} {
			c, err := tc.Dial(within(t), network, addr.String(), tc.Auth{User: "turn", Password: "turn"},
				tc.Local(netip.AddrPortFrom(victim, 0)), tc.Retransmit(50*time.Millisecond))
			must(t, err)
			must(t, errOnly(c.Allocate(within(t))))
			must(t, errOnly(c.Refresh(within(t), 0)))
			c.Close()
			calls++
		}
	}
	<-done
	sent, seconds := float64(flooder.sent.Load()), time.Since(began).Seconds()
	got := answered() - before
	most := perSecond*(1.6+seconds) + sent/16*1.2 + float64(calls)*2
	t.Logf("%.0f requests in %.1f s in the name of one address: %.0f answers, %d calls of its own", sent, seconds, got, calls)
	if got > most {
		t.Errorf("%.0f answers, want at most %.0f", got, most)
	}
	waitFor(t, s, 0)
}
