//go:build linux

package poller

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// quickPair returns both ends of a TCP connection, ours with quick reads and writes.
func quickPair(t testing.TB) (ours net.Conn, peer *net.TCPConn) {
	t.Helper()
	tcp, peer := pair(t)
	t.Cleanup(func() { tcp.Close() })
	return Quick(tcp), peer
}

func TestQuickCarriesBothWaysAtOnce(t *testing.T) {
	ours, peer := quickPair(t)
	blob := make([]byte, 8<<20) // far more than both sockets hold
	_, _ = rand.Read(blob)
	var wg sync.WaitGroup
	send := func(c net.Conn, end func() error) {
		if n, err := c.Write(blob); n != len(blob) || err != nil {
			t.Errorf("wrote %d bytes, %v, want %d", n, err, len(blob))
		}
		_ = end()
	}
	receive := func(c net.Conn) {
		if got, err := io.ReadAll(struct{ io.Reader }{c}); err != nil || !bytes.Equal(got, blob) {
			t.Errorf("read %d bytes, %v, want the %d that were sent", len(got), err, len(blob))
		}
	}
	wg.Go(func() { send(ours, ours.(interface{ CloseWrite() error }).CloseWrite) })
	wg.Go(func() { send(peer, peer.CloseWrite) })
	wg.Go(func() { receive(ours) })
	wg.Go(func() { receive(peer) })
	wg.Wait()
}

// Whoever looks at an error must find what the net package would have given.
func TestQuickFailsAsNetDoes(t *testing.T) {
	soon := func() time.Time { return time.Now().Add(10 * time.Millisecond) }
	full := func(c net.Conn) error {
		for {
			if _, err := c.Write(make([]byte, 1<<20)); err != nil {
				return err
			}
		}
	}
	read := func(c net.Conn) error { _, err := c.Read(make([]byte, 1)); return err }
	for _, tt := range []struct {
		name string
		op   string
		is   error
		fail func(ours net.Conn, peer *net.TCPConn) error
	}{
		{"a read over its deadline", "read", os.ErrDeadlineExceeded, func(c net.Conn, _ *net.TCPConn) error {
			_ = c.SetReadDeadline(soon())
			return read(c)
		}},
		{"a write over its deadline", "write", os.ErrDeadlineExceeded, func(c net.Conn, _ *net.TCPConn) error {
			_ = c.SetWriteDeadline(soon())
			return full(c)
		}},
		{"a read of a closed connection", "read", net.ErrClosed, func(c net.Conn, _ *net.TCPConn) error {
			c.Close()
			return read(c)
		}},
		{"a read that is closed under it", "read", net.ErrClosed, func(c net.Conn, _ *net.TCPConn) error {
			time.AfterFunc(10*time.Millisecond, func() { c.Close() })
			return read(c)
		}},
		{"a write that is closed under it", "write", net.ErrClosed, func(c net.Conn, _ *net.TCPConn) error {
			time.AfterFunc(10*time.Millisecond, func() { c.Close() })
			return full(c)
		}},
		{"a read of a reset connection", "read", syscall.ECONNRESET, func(c net.Conn, peer *net.TCPConn) error {
			_ = peer.SetLinger(0)
			peer.Close()
			return read(c)
		}},
		{"a write behind our own end", "write", syscall.EPIPE, func(c net.Conn, _ *net.TCPConn) error {
			_ = c.(interface{ CloseWrite() error }).CloseWrite()
			return full(c)
		}},
		{"a read at the end", "", io.EOF, func(c net.Conn, peer *net.TCPConn) error {
			peer.Close()
			return read(c)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			texts := make([]string, 0, 2)
			for _, quick := range []bool{false, true} {
				tcp, peer := pair(t)
				var c net.Conn = tcp
				if quick {
					c = Quick(tcp)
				}
				err := tt.fail(c, peer)
				c.Close()
				if !errors.Is(err, tt.is) {
					t.Errorf("quick %v: got %v, want %v", quick, err, tt.is)
				}
				if oe, ok := errors.AsType[*net.OpError](err); ok != (tt.op != "") || ok && oe.Op != tt.op {
					t.Errorf("quick %v: got %#v, want operation %q", quick, err, tt.op)
				}
				_, text, _ := strings.Cut(err.Error(), ": ") // behind the addresses
				texts = append(texts, text)
			}
			if texts[0] != texts[1] {
				t.Errorf("got %q, want %q", texts[1], texts[0])
			}
		})
	}
}

func TestQuickReadsNothingIntoNothing(t *testing.T) {
	ours, _ := quickPair(t)
	if n, err := ours.Read(nil); n != 0 || err != nil {
		t.Errorf("got %d, %v, want 0 without an error", n, err)
	}
	if n, err := ours.Write(nil); n != 0 || err != nil {
		t.Errorf("got %d, %v, want 0 without an error", n, err)
	}
}

func TestQuickLeavesAloneWhatIsNoTCP(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := Quick(a); got != a {
		t.Errorf("got %T, want the pipe itself", got)
	}
}

func TestQuickDoesNotAllocate(t *testing.T) {
	ours, peer := quickPair(t)
	msg, got := make([]byte, 200), make([]byte, 200)
	if n := testing.AllocsPerRun(1000, func() {
		_, _ = ours.Write(msg)
		_, _ = io.ReadFull(peer, got)
		_, _ = peer.Write(got)
		_, _ = io.ReadFull(ours, got)
	}); n != 0 {
		t.Errorf("%v allocations there and back, want 0", n)
	}
}

func TestQuickCanMoveToALoop(t *testing.T) {
	l := run(t)
	ours, peer := quickPair(t)
	attach(t, l, ours)
	if _, err := peer.Write([]byte("moved")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(peer, got); err != nil || string(got) != "moved" {
		t.Errorf("read %q, %v", got, err)
	}
}
