package edge

import (
	"bufio"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/pires/go-proxyproto"
)

// behindProxy reports whether the socket's other end is a listed balancer.
func (c *conn) behindProxy() bool {
	if len(c.set.ProxyFrom) == 0 {
		return false
	}
	from := addrPort(c.Conn.RemoteAddr()).Addr()
	return slices.ContainsFunc(c.set.ProxyFrom, func(p netip.Prefix) bool { return p.Contains(from) })
}

// readProxyHeader takes the PROXY header off c and the client's address out of
// it, and only then counts c against its source.
func (c *conn) readProxyHeader(deadline time.Time) reason {
	if d := time.Now().Add(c.set.Timeouts.ProxyHeader); d.Before(deadline) {
		c.Conn.SetReadDeadline(d)
		defer c.Conn.SetReadDeadline(deadline)
	}
	br := bufio.NewReaderSize(c.Conn, 256)
	client, server, err := parseProxyHeader(br)
	if err != nil {
		if why := whyEnded(err); why != notOurs {
			return why
		}
		return badProxyHeader
	}
	rest, _ := br.Peek(br.Buffered())
	c.head = slices.Clone(rest)
	if client.IsValid() {
		c.info.Proxy = c.info.Remote
		c.info.Remote, c.info.Local = client, server
	}
	return c.admitSource()
}

// parseProxyHeader reads a PROXY protocol header, version 1 or 2, and not one
// byte more. The addresses are zero when the balancer speaks for itself (LOCAL,
// UNKNOWN: its health checks): the socket's own addresses hold then.
func parseProxyHeader(br *bufio.Reader) (client, server netip.AddrPort, err error) {
	if err := awaitVersion1Line(br); err != nil {
		return client, server, err
	}
	h, err := proxyproto.Read(br)
	if err != nil {
		return client, server, err
	}
	if h.Command.IsLocal() {
		return client, server, nil
	}
	from, to, ok := h.TCPAddrs()
	if !ok {
		return client, server, errNotTCP
	}
	client, server = addrPort(from), addrPort(to)
	if !client.IsValid() || !server.IsValid() {
		return netip.AddrPort{}, netip.AddrPort{}, proxyproto.ErrInvalidAddress
	}
	return client, server, nil
}

var errNotTCP = errors.New("PROXY header for something that is not TCP")

// awaitVersion1Line waits for the whole line of a version 1 header: the library
// takes a line that arrives in two segments for an attack.
func awaitVersion1Line(br *bufio.Reader) error {
	const longest = 107 // PROXY protocol section 2.1
	for n := 1; n <= longest; n++ {
		b, err := br.Peek(n)
		if err != nil {
			return err
		}
		if sig := string(proxyproto.SIGV1); n <= len(sig) && b[n-1] != sig[n-1] {
			return nil // not version 1: the library decides what it is
		}
		if b[n-1] == '\n' {
			return nil
		}
	}
	return proxyproto.ErrVersion1HeaderTooLong
}
