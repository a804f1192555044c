//go:build !linux

package edge

import "time"

// setUserTimeout does nothing where the option does not exist: a dead peer is
// then found by keepalive alone.
func setUserTimeout(uintptr, time.Duration) error { return nil }
