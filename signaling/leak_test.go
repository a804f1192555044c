package signaling

import (
	"testing"

	"go.uber.org/goleak"
)

// Every session, dial and lookup of the tests must have ended.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
