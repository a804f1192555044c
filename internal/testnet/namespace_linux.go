package testnet

import (
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Namespace is a network namespace without a name, with its loopback up. It
// and its interfaces are gone after the test.
type Namespace struct {
	tid   int // of the thread that lives in it
	calls chan func()
}

// NewNamespace makes a network namespace. It needs "netns".
func NewNamespace(t testing.TB) *Namespace {
	t.Helper()
	Need(t, "netns")
	n := &Namespace{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := syscall.Unshare(syscall.CLONE_NEWNET)
		n.tid = syscall.Gettid()
		ready <- err
		for call := range n.calls {
			call()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("network namespace: %v", err)
	}
	t.Cleanup(func() { close(n.calls) })
	n.Run(t, "ip link set lo up")
	return n
}

// Do runs f in the namespace. Sockets that it opens and programs that it
// starts stay there; goroutines that it starts do not. f must not end the test.
func (n *Namespace) Do(f func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); f() }
	<-done
}

// Run runs programs in the namespace, a line each; words are split at blanks.
func (n *Namespace) Run(t testing.TB, lines ...string) {
	t.Helper()
	for _, line := range lines {
		words := strings.Fields(line)
		var out []byte
		var err error
		n.Do(func() { out, err = exec.Command(words[0], words[1:]...).CombinedOutput() })
		if err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}

// Veth joins two namespaces by a pair of interfaces, named as given, which are
// up. They hand over packets as a wire does: with checksums, one by one. GRO
// has them take what an XDP program sends to them, if it is switched on while
// they are up.
func Veth(t testing.TB, a *Namespace, nameA string, b *Namespace, nameB string) {
	t.Helper()
	a.Run(t, "ip link add "+nameA+" type veth peer name "+nameB,
		"ip link set "+nameB+" netns "+strconv.Itoa(b.tid))
	for name, n := range map[string]*Namespace{nameA: a, nameB: b} {
		n.Run(t, "ip link set "+name+" up", "ethtool -K "+name+" tx off tx-udp-segmentation off gso off gro on")
	}
}
