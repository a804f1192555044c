package testnet

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"testing"
)

// OutboundProxy is a company's proxy: HTTP CONNECT or SOCKS5 on loopback, which
// carries connections and remembers what it was asked for.
type OutboundProxy struct {
	Addr string

	// Login, if set, is the only "user:password" that is let through.
	login string
	// route says where a target really is; "" refuses it.
	route func(target string) string

	mu      sync.Mutex // guards the fields below
	targets []string
}

// NewConnectProxy starts an HTTP proxy, behind TLS when cert is not nil. login is
// "user:password" or "" for none. route maps a target (host:port as it was asked for) to
// an address, or to "" to refuse it with 403.
func NewConnectProxy(t testing.TB, cert *tls.Certificate, login string, route func(target string) string) *OutboundProxy {
	t.Helper()
	p := &OutboundProxy{login: login, route: route}
	p.Addr = RawUpstream(t, cert, p.connect).Addr
	return p
}

// NewSOCKSProxy is NewConnectProxy for SOCKS5 (RFC 1928, RFC 1929); what is refused
// gets reply 2.
func NewSOCKSProxy(t testing.TB, login string, route func(target string) string) *OutboundProxy {
	t.Helper()
	p := &OutboundProxy{login: login, route: route}
	p.Addr = RawUpstream(t, nil, p.socks).Addr
	return p
}

// Targets returns what was asked for with a good login, in order.
func (p *OutboundProxy) Targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.targets...)
}

func (p *OutboundProxy) dial(target string) net.Conn {
	p.mu.Lock()
	p.targets = append(p.targets, target)
	p.mu.Unlock()
	addr := p.route(target)
	if addr == "" {
		return nil
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil
	}
	return c
}

func (p *OutboundProxy) connect(c net.Conn) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != http.MethodConnect {
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
		return
	}
	if p.login != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(p.login)) {
		fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"corp\"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return
	}
	far := p.dial(req.Host)
	if far == nil {
		fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
		return
	}
	fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	splice(c, r, far)
}

func (p *OutboundProxy) socks(c net.Conn) {
	r := bufio.NewReader(c)
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			return make([]byte, n)
		}
		return b
	}
	head := read(2)
	methods := read(int(head[1]))
	method := byte(0)
	if p.login != "" {
		method = 2
	}
	offered := false
	for _, m := range methods {
		offered = offered || m == method
	}
	if head[0] != 5 || !offered {
		_, _ = c.Write([]byte{5, 0xff})
		return
	}
	_, _ = c.Write([]byte{5, method})
	if method == 2 {
		user := string(read(int(read(2)[1])))
		password := string(read(int(read(1)[0])))
		if user+":"+password != p.login {
			_, _ = c.Write([]byte{1, 1})
			return
		}
		_, _ = c.Write([]byte{1, 0})
	}
	host := ""
	switch read(4)[3] {
	case 1:
		host = net.IP(read(4)).String()
	case 3:
		host = string(read(int(read(1)[0])))
	case 4:
		host = net.IP(read(16)).String()
	}
	port := read(2)
	far := p.dial(net.JoinHostPort(host, strconv.Itoa(int(port[0])<<8|int(port[1]))))
	if far == nil {
		_, _ = c.Write([]byte{5, 2, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	_, _ = c.Write([]byte{5, 0, 0, 3, 4, 'c', 'o', 'r', 'p', 0, 0})
	splice(c, r, far)
}

// splice carries both directions until both have ended.
func splice(c net.Conn, early io.Reader, far net.Conn) {
	defer far.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(far, early)
		closeWrite(far)
	})
	_, _ = io.Copy(c, far)
	closeWrite(c)
	wg.Wait()
}

func closeWrite(c net.Conn) {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
	}
}
