package machine

import (
	"syscall"
	"time"
)

// staUnsync is STA_UNSYNC of adjtimex(2).
const staUnsync = 0x40

// Clock reports whether the kernel's clock is kept by a time service, and how far
// off it may be at most.
func Clock() (synced bool, maxError time.Duration, err error) {
	var t syscall.Timex // Modes 0: read only
	if _, err := syscall.Adjtimex(&t); err != nil {
		return false, 0, err
	}
	return t.Status&staUnsync == 0, time.Duration(t.Maxerror) * time.Microsecond, nil
}
