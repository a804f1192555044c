//go:build linux

package turn_test

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// pausable is a connection whose owner stops reading at times.
type pausable struct {
	net.Conn
	mu   sync.Mutex
	open chan struct{} // closed while reading goes on
}

func newPausable(c net.Conn) *pausable {
	p := &pausable{Conn: c, open: make(chan struct{})}
	close(p.open)
	return p
}

func (p *pausable) pause() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = make(chan struct{})
}

func (p *pausable) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.open)
}

func (p *pausable) Read(b []byte) (int, error) {
	p.mu.Lock()
	open := p.open
	p.mu.Unlock()
	<-open
	return p.Conn.Read(b)
}

// slowClient is a client over TCP or TLS with a receive buffer of 4 KiB.
func slowClient(t *testing.T, network string, addr netip.AddrPort) (*tc.Client, *pausable) {
	t.Helper()
	// Before the handshake: a window that was offered is not taken back.
	small := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (failed error) {
		err := c.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
		})
		return errors.Join(err, failed)
	}}
	raw, err := small.DialContext(within(t), "tcp", addr.String())
	must(t, err)
	p := newPausable(raw)
	var conn net.Conn = p
	if network == "tls" {
		conn = tls.Client(p, &tls.Config{InsecureSkipVerify: true})
		must(t, conn.(*tls.Conn).HandshakeContext(within(t)))
	}
	c := tc.New(conn, true, tc.Auth{User: "turn", Password: "turn"})
	t.Cleanup(func() { c.Close() })
	return c, p
}

// stamped is media that tells when it was sent.
func stamped() []byte {
	p := make([]byte, 1200)
	binary.BigEndian.PutUint64(p, uint64(time.Now().UnixNano()))
	return p
}

func age(p []byte) time.Duration {
	return time.Since(time.Unix(0, int64(binary.BigEndian.Uint64(p))))
}

// TestAReaderThatStops stops reading while its peer sends 24 MB: little waits
// for it, others are served meanwhile, and once it reads again its Refresh is
// answered and what it gets is fresh.
func TestAReaderThatStops(t *testing.T) {
	certificate, _ := testCertificate(t)
	for _, network := range []string{"tcp", "tls"} {
		t.Run(network, func(t *testing.T) {
			const bound = 256 << 10
			s, addr := start(t, func(o *turn.Options) { o.Egress.Bytes = bound })
			at := addr
			if network == "tls" {
				at = serveStreams(t, s, netip.MustParseAddrPort("127.0.0.1:0"), &tls.Config{Certificates: []tls.Certificate{certificate}})
			}
			slow, reads := slowClient(t, network, at)
			a, err := slow.Allocate(within(t))
			must(t, err)
			peer := tc.NewPeer(t, "127.0.0.1")
			must(t, slow.ChannelBind(within(t), 0x4000, peer.Addr()))
			echo := tc.NewEcho(t, "127.0.0.1")
			var others []*tc.Client
			for _, n := range []string{"udp", "tcp"} {
				c, _ := site{server: s, network: n, addr: addr}.allocated(t)
				must(t, c.CreatePermission(within(t), echo.Addr()))
				others = append(others, c)
			}

			reads.pause()
			for i := range 20_000 {
				must(t, peer.Send(a.Relayed[0], stamped()))
				if i%1000 != 0 {
					continue
				}
				if waiting := metric(t, s, "turngate_turn_queued_bytes"); waiting > bound {
					t.Fatalf("%v bytes wait for the reader, want at most %d", waiting, bound)
				}
				for _, c := range others {
					must(t, c.Send(within(t), echo.Addr(), []byte("alive")))
					nextData(t, c, "alive", 0, echo.Addr())
				}
			}

			// What is asked now is answered when the client reads again. By
			// then the 24 MB are old; the peer goes on with a call's rate.
			goOn, cancel := context.WithCancel(t.Context())
			sending := make(chan struct{})
			go func() {
				defer close(sending)
				ticker := time.NewTicker(5 * time.Millisecond)
				defer ticker.Stop()
				for {
					select {
					case <-ticker.C:
						_ = peer.Send(a.Relayed[0], stamped())
					case <-goOn.Done():
						return
					}
				}
			}()
			defer func() { cancel(); <-sending }()
			answered := make(chan error, 1)
			go func() { _, err := slow.Refresh(within(t), 600); answered <- err }()
			const stopped = 2 * time.Second
			<-time.After(stopped) // the reader's own pause, not a wait for the server
			reads.resume()
			resumed := time.Now()
			must(t, <-answered)
			if took := time.Since(resumed); took > 10*time.Second {
				t.Errorf("Refresh was answered %v after the client read again, want at most 10 s", took)
			}

			// What lay in the kernel comes first, and there is little of it.
			const old, inKernel = time.Second, 64 << 10
			stale, fresh := 0, 0
			for fresh < 100 {
				d, err := slow.Receive(within(t))
				must(t, err)
				if age(d.Payload) > old {
					stale += len(d.Payload)
				} else {
					fresh++
				}
			}
			if stale > inKernel {
				t.Errorf("%d bytes of old media were delivered, want at most %d", stale, inKernel)
			}
			if drops := metric(t, s, "turngate_turn_relay_dropped_total", "direction", "down", "reason", "queue"); drops == 0 {
				t.Error("no drop of the queue was counted")
			}
		})
	}
}
