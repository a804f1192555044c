package proxy

import (
	"io"
	"net"
	"net/netip"
	"strconv"
)

// Of RFC 1928 and RFC 1929.
const (
	socksVersion  = 5
	socksNoLogin  = 0
	socksPassword = 2
	socksNone     = 0xff
	socksConnect  = 1
	socksIPv4     = 1
	socksName     = 3
	socksIPv6     = 4
)

// socksReplies are the REP values of RFC 1928 section 6: their names, and what they are to us.
var socksReplies = []struct {
	name  string
	cause Cause
	hint  string
}{
	1: {"general failure", CauseProxy, ""},
	2: {"not allowed by ruleset", CauseProxy, ": have that name and port allowed there"},
	3: {"network unreachable", CauseUnreachable, ""},
	4: {"host unreachable", CauseUnreachable, ""},
	5: {"connection refused", CauseRefused, ""},
	6: {"TTL expired", CauseTimeout, ""},
	7: {"command not supported", CauseProxy, ": it serves no TCP connections"},
	8: {"address type not supported", CauseProxy, ": try socks5:// (names are looked up here) or socks5h:// (by the proxy)"},
}

// socksConnect asks a SOCKS5 proxy to connect to a target, host:port. Afterwards the
// connection is the tunnel. The caller bounds the time.
//
//  1. the methods of login we have, and the one it chose (RFC 1928 section 3)
//  2. user and password, if it chose that (RFC 1929)
//  3. the request and its reply (RFC 1928 sections 4 to 6)
//
// Every message is read by its length: what follows is the tunnel's.
func (p *proxyServer) socksConnect(c net.Conn, target string) error {
	methods := []byte{socksNoLogin}
	if p.login {
		methods = append(methods, socksPassword)
	}
	if _, err := c.Write(append([]byte{socksVersion, byte(len(methods))}, methods...)); err != nil {
		return err
	}
	var b [4 + 255 + 2]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return err
	}
	switch {
	case b[0] != socksVersion:
		return p.refusal(CauseAnswer, false, "its answer is not SOCKS5: is this the port of an HTTP proxy (http://)?")
	case b[1] == socksPassword && p.login:
		if err := p.socksLogin(c); err != nil {
			return err
		}
	case b[1] == socksNone && p.login:
		return p.refusal(CauseProxyAuth, false, "it takes neither user and password nor a connection without a login")
	case b[1] == socksNone || b[1] == socksPassword:
		return p.refusal(CauseProxyAuth, false, "it wants a login: write %s://user:password@%s", p.kind, p.name)
	case b[1] != socksNoLogin:
		return p.refusal(CauseAnswer, false, "it chose login method %d, which was not offered", b[1])
	}
	request, err := socksRequest(target)
	if err != nil {
		return err
	}
	if _, err := c.Write(request); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, b[:4]); err != nil {
		return err
	}
	if b[0] != socksVersion {
		return p.refusal(CauseAnswer, false, "its answer is not SOCKS5")
	}
	if reply := int(b[1]); reply != 0 {
		if reply < len(socksReplies) {
			r := socksReplies[reply]
			return p.refusal(r.cause, true, "it does not connect to %s: %s (reply %d)%s", target, r.name, reply, r.hint)
		}
		return p.refusal(CauseProxy, true, "it does not connect to %s: reply %d, which has no name", target, reply)
	}
	return p.socksBound(c, b[3], b[:])
}

// socksBound reads the address behind a good reply, which nobody needs.
func (p *proxyServer) socksBound(c net.Conn, kind byte, b []byte) error {
	n := 0
	switch kind {
	case socksIPv4:
		n = 4
	case socksIPv6:
		n = 16
	case socksName:
		if _, err := io.ReadFull(c, b[:1]); err != nil {
			return err
		}
		n = int(b[0])
	default:
		return p.refusal(CauseAnswer, false, "the address in its answer is of the unknown type %d", kind)
	}
	_, err := io.ReadFull(c, b[:n+2])
	return err
}

func (p *proxyServer) socksLogin(c net.Conn) error {
	b := []byte{1, byte(len(p.user))}
	b = append(b, p.user...)
	b = append(b, byte(len(p.pass)))
	var answer [2]byte
	_, err := c.Write(append(b, p.pass...))
	if err == nil {
		_, err = io.ReadFull(c, answer[:])
	}
	if err != nil {
		if Classify(err) == CauseReset { // RFC 1929: it must close then
			return p.refusal(CauseProxyAuth, false, "it ended the connection at the login: does it accept this user and password?")
		}
		return err
	}
	if answer[1] != 0 {
		return p.refusal(CauseProxyAuth, false, "it does not accept this user and password")
	}
	return nil
}

func socksRequest(target string) ([]byte, error) {
	host, portText, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, err
	}
	b := []byte{socksVersion, socksConnect, 0}
	if addr, err := netip.ParseAddr(host); err == nil {
		kind := byte(socksIPv6)
		if addr = addr.Unmap(); addr.Is4() {
			kind = socksIPv4
		}
		b = append(append(b, kind), addr.AsSlice()...)
	} else { // at most 253 bytes, as ParseUpstream checks
		b = append(append(b, socksName, byte(len(host))), host...)
	}
	return append(b, byte(port>>8), byte(port)), nil
}
