package logger

import (
	"testing"

	"go.uber.org/goleak"
)

// Every request, dial and lookup of the tests must have ended.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
