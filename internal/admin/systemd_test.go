package admin

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// notifySocket stands in for systemd; the function returns the next message.
func notifySocket(t *testing.T) func() string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	pc, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return func() string {
		t.Helper()
		pc.SetReadDeadline(time.Now().Add(20 * time.Second))
		b := make([]byte, 4096)
		n, err := pc.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestNotify(t *testing.T) {
	next := notifySocket(t)
	for _, c := range []struct {
		name string
		send func() error
		want string
	}{
		{"ready", func() error { return NotifyReady("serving\n443") }, "READY=1\nSTATUS=serving 443"},
		{"stopping", func() error { return NotifyStopping("draining", time.Minute) }, "STOPPING=1\nSTATUS=draining\nEXTEND_TIMEOUT_USEC=60000000"},
		{"stopping at once", func() error { return NotifyStopping("bye", 0) }, "STOPPING=1\nSTATUS=bye"},
	} {
		if err := c.send(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got := next(); got != c.want {
			t.Errorf("%s: sent %q, want %q", c.name, got, c.want)
		}
	}
	before := monotonic().Microseconds()
	if err := NotifyReloading(); err != nil {
		t.Fatal(err)
	}
	state, usec, _ := strings.Cut(next(), "\nMONOTONIC_USEC=")
	got, err := strconv.ParseInt(usec, 10, 64)
	if state != "RELOADING=1" || err != nil || got < before || got > monotonic().Microseconds() {
		t.Errorf("reloading: sent %q with %q, want RELOADING=1 with the monotonic clock", state, usec)
	}
}

func TestNotifyWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	if err := NotifyReady("x"); err != nil {
		t.Errorf("NotifyReady: %v, want nil", err)
	}
	if err := Watchdog(t.Context(), func() error { return nil }, discard); err != nil {
		t.Errorf("Watchdog: %v, want nil at once", err)
	}
}

func TestWatchdogLivesAsLongAsWeAreHealthy(t *testing.T) {
	next := notifySocket(t)
	t.Setenv("WATCHDOG_USEC", "2000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	var sick atomic.Bool
	asked := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Watchdog(ctx, func() error {
			if !sick.Load() {
				return nil
			}
			select {
			case asked <- struct{}{}:
			default:
			}
			return errors.New("stuck")
		}, discard)
	}()
	for range 3 {
		if got := next(); got != "WATCHDOG=1" {
			t.Errorf("sent %q, want WATCHDOG=1", got)
		}
	}
	sick.Store(true)
	<-asked
	_ = notify(statusLine("sick"))
	<-asked
	<-asked // a whole round has passed since
	_ = notify(statusLine("end"))
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Watchdog returned %v, want nil", err)
	}
	for got := next(); got != "STATUS=sick"; got = next() {
		if got != "WATCHDOG=1" {
			t.Errorf("sent %q, want a sign of life", got)
		}
	}
	if got := next(); got != "STATUS=end" {
		t.Errorf("sent %q while not healthy, want nothing", got)
	}
}
