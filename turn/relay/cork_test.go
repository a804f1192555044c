package relay

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/turngate/turngate/internal/testnet"
)

// gated is a connection whose writes are counted, and wait while a test holds its gate.
type gated struct {
	net.Conn
	writes atomic.Int32
	begun  chan struct{} // gets one for each write
	gate   sync.Mutex
}

func (g *gated) Write(p []byte) (int, error) {
	g.writes.Add(1)
	g.begun <- struct{}{}
	g.gate.Lock()
	defer g.gate.Unlock()
	return g.Conn.Write(p)
}

// base is what the edge puts under TLS.
type base struct{ net.Conn }

func (b *base) Rebase(replace func(net.Conn) (net.Conn, error)) (err error) {
	b.Conn, err = replace(b.Conn)
	return err
}

func gatedPair(t *testing.T) (client net.Conn, server *gated) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); accepted.Close() })
	return client, &gated{Conn: accepted, begun: make(chan struct{}, 1000)}
}

// A client that takes each TLS record for a message loses nothing of what waited.
func TestStreamSendsFramesInRecordsOfTheirOwnAndTogether(t *testing.T) {
	raw, server := gatedPair(t)
	ca := testnet.NewCA(t, "test")
	cert := ca.Issue(t, "relay.example.com")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.PEM)
	under := tls.Server(&base{server}, &tls.Config{Certificates: []tls.Certificate{cert}})
	client := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: "relay.example.com"})
	done := make(chan error, 1)
	go func() { done <- under.Handshake() }()
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	s := NewStream(under, StreamLimits{})
	defer func() { raw.Close(); under.Close(); s.Close() }()
	for len(server.begun) > 0 {
		<-server.begun
	}
	before := server.writes.Load()
	server.gate.Lock()
	s.Send([]Frame{media(196, 'x')})
	<-server.begun // the first frame is being written
	for range 20 {
		s.Send([]Frame{media(196, 'm')})
	}
	server.gate.Unlock()
	buf := make([]byte, 2*maxWrite)
	for i := range 21 {
		n, err := client.Read(buf) // of one record
		if err != nil || n != 200 {
			t.Fatalf("record %d: %d bytes, %v, want 200", i, n, err)
		}
	}
	if n := server.writes.Load() - before; n != 2 {
		t.Errorf("%d writes, want 2", n)
	}
}

// What crypto/tls writes by itself waits behind what is being sent, and holds up nobody.
func TestCorkKeepsOrderAndNeverBlocks(t *testing.T) {
	client, server := gatedPair(t)
	c := &cork{Conn: server}
	c.hold(nil)
	write := func(p string) {
		t.Helper()
		if n, err := c.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	write("a")
	write("b")
	server.gate.Lock()
	done := make(chan error, 1)
	go func() { _, err := c.release(); done <- err }()
	<-server.begun
	write("c")
	if _, err := c.Write(make([]byte, maxHeld)); !errors.Is(err, errHeld) {
		t.Errorf("more than may wait: %v, want %v", err, errHeld)
	}
	server.gate.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	write("d") // nothing is held back any more
	server.Conn.Close()
	if got, err := io.ReadAll(client); string(got) != "abcd" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	c.hold(nil)
	write("e")
	if _, err := c.release(); err == nil {
		t.Error("what could not be written is not said")
	}
}
