//go:build !linux

package machine

import (
	"errors"
	"time"
)

// Clock reports whether the kernel's clock is kept by a time service, and how far
// off it may be at most.
func Clock() (synced bool, maxError time.Duration, err error) {
	return false, 0, errors.ErrUnsupported
}
