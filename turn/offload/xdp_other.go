//go:build !linux || !(amd64 || arm64)

package offload

import (
	"errors"
	"runtime"
)

// Open fails: XDP is Linux's, and the program is built for the processors
// that turngate is.
func Open(Options) (Engine, error) {
	return nil, errors.New("the kernel packet path needs Linux on amd64 or arm64, this is " + runtime.GOOS + " on " + runtime.GOARCH)
}
