package admin

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// The Notify functions tell systemd how the service is (sd_notify(3)). Without
// systemd they do nothing and return nil. The status text is what "systemctl
// status" shows.

// NotifyReady says that start-up or a reload is over.
func NotifyReady(status string) error {
	return notify(daemon.SdNotifyReady, statusLine(status))
}

// NotifyReloading says that a reload begins; NotifyReady ends it, whether it
// succeeded or not. MONOTONIC_USEC is what Type=notify-reload wants beside it.
func NotifyReloading() error {
	return notify(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", monotonic().Microseconds()))
}

// NotifyStopping says that the service ends, and asks for patience for the time
// that a drain may take; systemd kills after TimeoutStopSec otherwise.
func NotifyStopping(status string, patience time.Duration) error {
	lines := []string{daemon.SdNotifyStopping, statusLine(status)}
	if patience > 0 {
		lines = append(lines, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", patience.Microseconds()))
	}
	return notify(lines...)
}

func notify(lines ...string) error {
	_, err := daemon.SdNotify(false, strings.Join(lines, "\n"))
	return err
}

func statusLine(s string) string { return "STATUS=" + strings.ReplaceAll(s, "\n", " ") }

// Watchdog tells systemd's watchdog (WatchdogSec) that we live, as long as
// healthy returns nil, until ctx ends; then it returns nil. Without a watchdog
// it returns nil at once. A healthy that hangs is as bad as one that fails:
// systemd restarts the service.
func Watchdog(ctx context.Context, healthy func() error, log *slog.Logger) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return err
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		if err := healthy(); err != nil {
			log.Error("not healthy: the watchdog will restart the service", "err", err)
		} else if err := notify(daemon.SdNotifyWatchdog); err != nil {
			log.Warn("watchdog not reached", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
