package testnet

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// ClosedAddress returns an address of loopback that refuses connections until the test ends. Its
// port is bound without anybody listening, so that nobody else gets it meanwhile, as happens with
// a port that was just closed.
func ClosedAddress(t testing.TB) string {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	unix.CloseOnExec(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	in4 := at.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)).String()
}

// FreePort returns a port that is free for UDP and TCP on loopback, for a server that must be told
// its port. It is below the ephemeral ports, so that no connection takes it before the server does,
// and until the test ends no other test is given it, in this process or another.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	for range 100 {
		port := 10000 + rand.N(10000)
		if !reserve(t, port) {
			continue
		}
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", addr)
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return uint16(port)
	}
	t.Fatal("no free port")
	return 0
}

// reserve takes a port among tests, by an abstract socket, which goes with its process.
func reserve(t testing.TB, port int) bool {
	if runtime.GOOS != "linux" {
		return true
	}
	l, err := net.Listen("unix", fmt.Sprintf("@turngate-test-port-%d", port))
	if err != nil {
		return false
	}
	t.Cleanup(func() { l.Close() })
	return true
}
