package signaling

import (
	"testing"

	"go.uber.org/goleak"
)

// Every session, dial and lookup of the tests must have ended.
func TestMain(m *testing.M) { goleak.VerifyTestMain(twice{m}) }

// twice runs the tests with sessions on loops, and then with goroutines, as they are where no loop
// can carry them.
type twice struct{ *testing.M }

func (t twice) Run() int {
	if code := t.M.Run(); code != 0 || noLoops {
		return code
	}
	noLoops = true
	return t.M.Run()
}
