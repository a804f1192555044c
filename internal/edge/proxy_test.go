package edge

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/pires/go-proxyproto"
)

func proxyHeader(t testing.TB, version byte, command proxyproto.ProtocolVersionAndCommand, from, to string) []byte {
	t.Helper()
	h := proxyproto.HeaderProxyFromAddrs(version,
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	h.Command = command
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProxyHeaderFromAListedSource(t *testing.T) {
	w := start(t, nil, func(o *Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("::ffff:127.0.0.0/104")} })
	withTLV := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.7:4000")),
		net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.1:443")))
	withTLV.SetTLVs([]proxyproto.TLV{{Type: proxyproto.PP2_TYPE_AUTHORITY, Value: bytes.Repeat([]byte("x"), 1000)}})
	long, err := withTLV.Format()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		header []byte
		want   string // client; "" is the socket's own
	}{
		{"version 1, IPv4", proxyHeader(t, 1, proxyproto.PROXY, "198.51.100.7:4000", "192.0.2.1:443"), "198.51.100.7:4000"},
		{"version 1, IPv6", proxyHeader(t, 1, proxyproto.PROXY, "[2001:db8::7]:4000", "[2001:db8::1]:443"), "[2001:db8::7]:4000"},
		{"version 1, UNKNOWN", []byte("PROXY UNKNOWN\r\n"), ""},
		{"version 2, IPv4", proxyHeader(t, 2, proxyproto.PROXY, "198.51.100.7:4000", "192.0.2.1:443"), "198.51.100.7:4000"},
		{"version 2, IPv6", proxyHeader(t, 2, proxyproto.PROXY, "[2001:db8::7]:4000", "[2001:db8::1]:443"), "[2001:db8::7]:4000"},
		{"version 2 with a kilobyte of TLVs", long, "198.51.100.7:4000"},
		{"version 2, LOCAL (a health check)", proxyHeader(t, 2, proxyproto.LOCAL, "198.51.100.7:4000", "192.0.2.1:443"), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			connect := func() (net.Conn, string) {
				conn := w.dial(t)
				want := c.want
				if want == "" {
					want = conn.LocalAddr().String()
				}
				return conn, want
			}
			raw, want := connect()
			raw.Write(append(bytes.Clone(c.header), binding...)) // in one segment
			call := w.nextTURN(t)
			got := make([]byte, len(binding))
			if _, err := io.ReadFull(call.conn, got); err != nil || !bytes.Equal(got, binding) {
				t.Fatalf("TURN read %q (%v), want %q", got, err, binding)
			}
			if got := call.info.Remote.String(); got != want {
				t.Errorf("client %s, want %s", got, want)
			}
			if got := call.conn.RemoteAddr().String(); got != want {
				t.Errorf("RemoteAddr %s, want %s", got, want)
			}
			if got, want := call.info.Proxy.IsValid(), c.want != ""; got != want {
				t.Errorf("proxy known: %v, want %v", got, want)
			}

			raw, want = connect()
			for _, b := range c.header[:min(len(c.header), 120)] { // in many segments
				raw.Write([]byte{b})
			}
			raw.Write(c.header[min(len(c.header), 120):])
			secure := tls.Client(raw, w.tlsConfig("http/1.1"))
			if got := roundTrip(t, secure).Header.Get("X-Remote"); got != want {
				t.Errorf("net/http sees client %s, want %s", got, want)
			}
		})
	}
}

func TestProxyHeaderIsRequiredOfAListedSource(t *testing.T) {
	w := start(t, nil, func(o *Options) { o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
	hello := string(clientHello(t))
	for _, c := range []struct{ name, send string }{
		{"a TLS hello without header", hello},
		{"STUN without header", string(binding)},
		{"HTTP that begins like a header", "PROPFIND / HTTP/1.1\r\n\r\n"},
		{"no end of line", "PROXY TCP4 " + string(bytes.Repeat([]byte("1"), 200))},
		{"an unknown family", "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n" + hello},
		{"an address of the other family", "PROXY TCP4 ::1 ::1 1 2\r\n" + hello},
		{"a port above 65535", "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n" + hello},
		{"version 2 that announces 64 KiB", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff" + hello},
		{"version 2 for UDP", "\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c123412341212" + hello},
		{"version 2 with a short address", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x04\x01\x02\x03\x04" + hello},
		{"version 2 with an undefined command", "\r\n\r\n\x00\r\nQUIT\n\x2f\x11\x00\x0c123412341212" + hello},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.rejected(badProxyHeader)
			conn := w.dial(t)
			io.WriteString(conn, c.send)
			if got := wantClosed(t, conn); got != "" {
				t.Errorf("answer %q, want none", got)
			}
			w.settled(t)
			if n := w.rejected(badProxyHeader) - before; n != 1 {
				t.Errorf("counted %d times, want once", n)
			}
		})
	}
}

// The clients of a balancer are counted each for itself.
func TestCapsCountTheClientBehindTheBalancer(t *testing.T) {
	w := start(t, nil, func(o *Options) {
		o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		o.Caps = NewCaps(CapNumbers{ConnsPerSource: 1})
	})
	connect := func(from string) net.Conn {
		c := w.dial(t)
		c.Write(append(proxyHeader(t, 2, proxyproto.PROXY, from, "192.0.2.1:443"), binding...))
		return c
	}
	for _, from := range []string{"198.51.100.1:1", "198.51.100.2:1", "[2001:db8::1]:1"} {
		connect(from)
		w.nextTURN(t)
	}
	wantClosed(t, connect("198.51.100.1:2"))
	wantClosed(t, connect("[2001:db8::2]:1")) // the same /64
	if n := w.rejected(tooManyConnsOfSource); n != 2 {
		t.Errorf("%d connections counted over the cap, want 2", n)
	}
}

func TestProxyHeaderHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newPipeListener()
		w := start(t, ln, func(o *Options) {
			// Pipes have no address; the zero prefix stands for every IPv4 one,
			// so name the source by hand.
			o.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		})
		client, server := net.Pipe()
		defer client.Close()
		begin := time.Now()
		ln.conns <- addressed{server, net.TCPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.9:1"))}
		client.Write([]byte("PROXY TCP4 "))
		io.Copy(io.Discard, client)
		if got := time.Since(begin); got != DefaultTimeouts.ProxyHeader {
			t.Errorf("cut after %v, want %v", got, DefaultTimeouts.ProxyHeader)
		}
		synctest.Wait()
		if n := w.rejected(timedOut); n != 1 {
			t.Errorf("%d connections counted as timed out, want 1", n)
		}
	})
}

type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

func FuzzParseProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nrest"))
	f.Add([]byte("PROXY UNKNOWN ffff\r\nrest"))
	f.Add([]byte("PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n"))
	f.Add(proxyHeader(f, 2, proxyproto.PROXY, "192.0.2.1:1", "192.0.2.2:2"))
	f.Add(proxyHeader(f, 2, proxyproto.PROXY, "[2001:db8::1]:1", "[2001:db8::2]:2"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		parse := func(r io.Reader) (netip.AddrPort, netip.AddrPort, []byte, error) {
			br := bufio.NewReaderSize(r, 256)
			client, server, err := parseProxyHeader(br)
			rest, _ := io.ReadAll(br)
			return client, server, rest, err
		}
		client, server, rest, err := parse(bytes.NewReader(in))
		if err != nil {
			return
		}
		if client.IsValid() != server.IsValid() {
			t.Errorf("%q: client %v, server %v: one without the other", in, client, server)
		}
		if client.Addr().Is4In6() {
			t.Errorf("%q: client %v is still IPv4-mapped", in, client)
		}
		if !bytes.HasSuffix(in, rest) {
			t.Errorf("%q: what follows came back as %q", in, rest)
		}
		c, s, r, err := parse(iotest.OneByteReader(bytes.NewReader(in)))
		if err != nil || c != client || s != server || !bytes.Equal(r, rest) {
			t.Errorf("%q byte by byte: %v %v %q %v, at once %v %v %q", in, c, s, r, err, client, server, rest)
		}
	})
}
