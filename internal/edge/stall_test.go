package edge

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener yields the server ends of in-memory connections, so that
// deadlines run on synctest's clock.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener() *pipeListener {
	return &pipeListener{make(chan net.Conn), make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { close(l.closed); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	l.conns <- server
	return client
}

// Whatever a peer sends or leaves out, it is gone after Timeouts.Prove, and
// others are served meanwhile.
func TestStallsAreCut(t *testing.T) {
	hello := clientHello(t)
	for _, c := range []struct {
		name string
		peer func(c net.Conn) // returns when it has nothing more to send
	}{
		{"nothing at all", func(net.Conn) {}},
		{"one byte of a hello", func(c net.Conn) { c.Write(hello[:1]) }},
		{"half a hello", func(c net.Conn) { c.Write(hello[:len(hello)/2]) }},
		{"a hello byte by byte, for ever", func(c net.Conn) {
			for _, b := range hello {
				if _, err := c.Write([]byte{b}); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		}},
		{"a hello, and the answer never read", func(c net.Conn) { c.Write(hello) }},
		{"a hello, and never the client's Finished", func(c net.Conn) {
			c.Write(hello)
			io.Copy(io.Discard, c)
		}},
		{"six bytes of a STUN header", func(c net.Conn) { c.Write(binding[:6]) }},
		{"three letters of a method", func(c net.Conn) { c.Write([]byte("GET")) }},
		{"a handshake without ALPN, then silence", func(c net.Conn) {
			tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
			io.Copy(io.Discard, c)
		}},
		{"a handshake without ALPN, then seven bytes of STUN", func(c net.Conn) {
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			s.Write(binding[:7])
			io.Copy(io.Discard, c)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ln := newPipeListener()
				w := start(t, ln, nil)
				const stalled = 100
				begin := time.Now()
				gone := make(chan time.Duration, stalled)
				for range stalled {
					client := ln.dial()
					go func() {
						c.peer(client)
						// A pipe without a reader stalls the server's writes;
						// its own deadline has to end that.
						time.Sleep(DefaultTimeouts.Prove - time.Since(begin))
						client.SetReadDeadline(time.Now().Add(time.Minute))
						io.Copy(io.Discard, client)
						gone <- time.Since(begin)
						client.Close()
					}()
				}
				synctest.Wait()
				if got := w.opts.Caps.HalfOpen(); got != stalled {
					t.Errorf("%d half-open connections, want %d", got, stalled)
				}
				honest := tls.Client(ln.dial(), w.tlsConfig("http/1.1"))
				roundTrip(t, honest)
				honest.Close()

				for range stalled {
					if d := <-gone; d > DefaultTimeouts.Prove+time.Second {
						t.Errorf("cut after %v, want %v", d, DefaultTimeouts.Prove)
					}
				}
				synctest.Wait()
				if got := w.opts.Caps.Open(); got != 0 {
					t.Errorf("%d slots are still held, want none", got)
				}
				if got := w.rejected(timedOut); got != stalled {
					t.Errorf("%d connections counted as timed out, want %d", got, stalled)
				}
			})
		})
	}
}

func TestHalfOpenCaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		w := start(t, ln, func(o *Options) { o.Caps = NewCaps(CapNumbers{HalfOpen: 3, HalfOpenPerSource: 2}) })
		for range 4 {
			c := ln.dial()
			t.Cleanup(func() { c.Close() })
			go io.Copy(io.Discard, c)
		}
		synctest.Wait()
		if got := w.rejected(tooManyHalfOpenOfSource); got != 2 {
			t.Errorf("%d rejected over the half-open cap of a source, want 2", got)
		}
		w.opts.Caps.Set(CapNumbers{HalfOpen: 2})
		c := ln.dial()
		t.Cleanup(func() { c.Close() })
		synctest.Wait()
		if got := w.rejected(tooManyHalfOpen); got != 1 {
			t.Errorf("%d rejected over the half-open cap in all, want 1", got)
		}
		// Proved connections do not count, and stalled ones make room in time.
		time.Sleep(DefaultTimeouts.Prove + time.Second)
		for range 5 {
			web := tls.Client(ln.dial(), w.tlsConfig("http/1.1"))
			roundTrip(t, web)
			t.Cleanup(func() { web.Close() })
		}
	})
}

// A connection handed over has no deadline left from the edge.
func TestHandedOverConnectionsMayIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		w := start(t, ln, nil)
		client := ln.dial()
		defer client.Close()
		go func() {
			client.Write(binding)
			time.Sleep(time.Hour)
			client.Write([]byte("late"))
		}()
		call := w.nextTURN(t)
		io.ReadFull(call.conn, make([]byte, len(binding)))
		got := make([]byte, 4)
		if _, err := io.ReadFull(call.conn, got); err != nil || string(got) != "late" {
			t.Errorf("after an hour of silence read %q (%v), want what was sent", got, err)
		}
	})
}
