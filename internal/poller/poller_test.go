//go:build linux

package poller

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/turngate/turngate/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns two ends of a TCP connection over loopback.
func pair(t testing.TB) (ours, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second)) // a hanging test ends with a reason
	t.Cleanup(func() { c.Close() })
	return s.(*net.TCPConn), c.(*net.TCPConn)
}

func run(t testing.TB) *Loop {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { l.Run(); close(done) }()
	t.Cleanup(func() { l.Close(); <-done })
	return l
}

// echo sends back what comes, as long as that is taken, and closes at the end.
type echo struct {
	c   net.Conn
	low *Conn
	err chan error
}

func (e *echo) Ready(buf []byte) bool {
	for !e.low.Pending() {
		n, err := e.c.Read(buf)
		if err == ErrAgain {
			return false
		}
		if err == nil {
			_, err = e.c.Write(buf[:n])
		}
		if err != nil {
			e.c.Close()
			select {
			case e.err <- err:
			default: // told already
			}
			return false
		}
	}
	return false
}

func attach(t testing.TB, l *Loop, c net.Conn) *echo {
	t.Helper()
	e := &echo{err: make(chan error, 1)}
	over, low, err := l.Attach(e, c)
	if err != nil {
		t.Fatal(err)
	}
	e.c, e.low = over[0], low[0]
	if err := l.Watch(low...); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestLoopCarriesManyConnections(t *testing.T) {
	l := run(t)
	var peers []*net.TCPConn
	for range 200 {
		ours, peer := pair(t)
		attach(t, l, ours)
		peers = append(peers, peer)
	}
	for range 3 {
		for i, p := range peers {
			_, _ = p.Write([]byte{byte(i)})
		}
		for i, p := range peers {
			var b [1]byte
			if _, err := io.ReadFull(p, b[:]); err != nil || b[0] != byte(i) {
				t.Fatalf("connection %d read %v, %v", i, b, err)
			}
		}
	}
}

func TestLoopTellsTheEnd(t *testing.T) {
	l := run(t)
	for _, tt := range []struct {
		name string
		end  func(*net.TCPConn)
		want error
	}{
		{"with data and a FIN at once", func(c *net.TCPConn) { _, _ = c.Write([]byte("last")); _ = c.CloseWrite() }, io.EOF},
		{"with a reset", func(c *net.TCPConn) { _ = c.SetLinger(0); c.Close() }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ours, peer := pair(t)
			e := attach(t, l, ours)
			tt.end(peer)
			err := <-e.err
			if tt.want != nil && err != tt.want || err == nil {
				t.Errorf("ended with %v, want %v", err, tt.want)
			}
			if tt.want == io.EOF {
				if got, err := io.ReadAll(peer); string(got) != "last" {
					t.Errorf("peer read %q, %v", got, err)
				}
			}
		})
	}
}

func TestSlowReaderHoldsUpItselfOnly(t *testing.T) {
	l := run(t)
	ours, slow := pair(t)
	e := attach(t, l, ours)
	other, quick := pair(t)
	attach(t, l, other)

	blob := make([]byte, 32<<20)
	_, _ = rand.Read(blob)
	sent := make(chan error, 1)
	go func() { _, err := slow.Write(blob); sent <- err }()
	for range 100 { // the loop serves others all the while
		_, _ = quick.Write([]byte("x"))
		var b [1]byte
		if _, err := io.ReadFull(quick, b[:]); err != nil {
			t.Fatal(err)
		}
	}
	got := make([]byte, len(blob))
	if _, err := io.ReadFull(slow, got); err != nil || !bytes.Equal(got, blob) {
		t.Errorf("the slow reader's bytes are not those it sent: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	slow.Close()
	<-e.err
}

// flood writes without looking at Pending.
type flood struct {
	low *Conn
	err chan error
}

func (f *flood) Ready(buf []byte) bool {
	for {
		if _, err := f.low.Write(buf); err != nil {
			f.low.Close()
			f.err <- err
			return false
		}
	}
}

func TestBacklogIsBounded(t *testing.T) {
	l := run(t)
	ours, _ := pair(t) // never reads
	f := &flood{err: make(chan error, 1)}
	_, low, err := l.Attach(f, ours)
	if err != nil {
		t.Fatal(err)
	}
	f.low = low[0]
	_ = l.Watch(low...)
	if err := <-f.err; !errors.Is(err, errBacklog) {
		t.Errorf("ended with %v, want %v", err, errBacklog)
	}
}

func TestAttachLeavesAloneWhatItCannotMove(t *testing.T) {
	l := run(t)
	ours, peer := pair(t)
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	bare := tls.Client(ours, &tls.Config{}) // not on a Base
	for _, conns := range [][]net.Conn{{ours, a}, {ours, bare}, {ours, tls.Client(&Rebasable{a}, &tls.Config{})}} {
		if _, _, err := l.Attach(&echo{}, conns...); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("Attach: %v, want ErrUnsupported", err)
		}
	}
	_, _ = peer.Write([]byte("x"))
	var one [1]byte
	if _, err := io.ReadFull(ours, one[:]); err != nil {
		t.Errorf("the connection is not as it was: %v", err)
	}
	ours.Close()
}

// secured returns a TLS connection whose server side can be attached. Its client
// side sends every record byte for byte when torn.
func secured(t *testing.T, torn bool) (server, client *tls.Conn) {
	t.Helper()
	ours, peer := pair(t)
	cert := testnet.NewCA(t, "Root").Issue(t, "a.test")
	server = tls.Server(&Rebasable{ours}, &tls.Config{Certificates: []tls.Certificate{cert}})
	var below net.Conn = peer
	if torn {
		below = tearing{peer}
	}
	client = tls.Client(below, &tls.Config{InsecureSkipVerify: true})
	shaken := make(chan error, 1)
	go func() { shaken <- server.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-shaken; err != nil {
		t.Fatal(err)
	}
	return server, client
}

type tearing struct{ *net.TCPConn }

func (c tearing) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.TCPConn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func TestTLSGoesOnInsideARecord(t *testing.T) {
	l := run(t)
	server, client := secured(t, true)
	e := attach(t, l, server)
	for _, size := range []int{1, 100, 3000} {
		msg := bytes.Repeat([]byte("abc"), size)[:size]
		if _, err := client.Write(msg); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, msg) {
			t.Fatalf("size %d: %q, %v", size, got, err)
		}
	}
	client.Close()
	if err := <-e.err; err != io.EOF {
		t.Errorf("ended with %v, want EOF", err)
	}
}

func TestWhatTLSHoldsDecryptedComesFirst(t *testing.T) {
	l := run(t)
	server, client := secured(t, false)
	// Two messages in two records at once, and half of the first is read before Attach: no event
	// will ever come for the rest.
	_, _ = client.Write([]byte("first"))
	_, _ = client.Write([]byte("second"))
	b := make([]byte, 2)
	if _, err := io.ReadFull(server, b); err != nil {
		t.Fatal(err)
	}
	attach(t, l, server)
	got := make([]byte, len("rstsecond"))
	if _, err := io.ReadFull(client, got); err != nil || string(got) != "rstsecond" {
		t.Errorf("read %q, %v", got, err)
	}
}

type wakes chan struct{}

func (w wakes) Ready([]byte) bool { w <- struct{}{}; return false }

func TestWake(t *testing.T) {
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { l.Run(); close(done) }()
	w := make(wakes, 2)
	for range 2 {
		if !l.Wake(w) {
			t.Error("Wake reports false on a running loop")
		}
		<-w
	}
	l.Close()
	<-done
	if l.Wake(w) {
		t.Error("Wake reports true on a closed loop")
	}
}

func TestCarryingDoesNotAllocate(t *testing.T) {
	l := run(t)
	ours, peer := pair(t)
	attach(t, l, ours)
	msg, got := make([]byte, 200), make([]byte, 200)
	if n := testing.AllocsPerRun(1000, func() {
		_, _ = peer.Write(msg)
		_, _ = io.ReadFull(peer, got)
	}); n != 0 {
		t.Errorf("%v allocations per message, want 0", n)
	}
}
