package relay

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatTheKernelDropsIsCounted(t *testing.T) {
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), NewTable(), NewLoops(1), 1)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_ = l.sockets[0].with(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	c, err := net.Dial("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := l.Overruns(); got != 0 {
		t.Fatalf("%d dropped before anything was sent, want 0", got)
	}
	for range 100 { // nobody reads
		c.Write(make([]byte, 1000))
	}
	dropped := l.Overruns()
	if dropped == 0 || dropped >= 100 {
		t.Errorf("%d of 100 dropped, want some", dropped)
	}
	l.Close()
	if got := l.Overruns(); got != dropped {
		t.Errorf("%d dropped after Close, want %d", got, dropped)
	}
}
