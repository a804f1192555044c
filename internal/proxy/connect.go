package proxy

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
)

const (
	maxConnectHead    = 16 << 10 // of a proxy's answer, whatever it sends
	maxConnectInterim = 4        // informational answers before the real one
)

// httpConnect asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6) and returns the
// connection that is one, with what the far side has sent already. The caller bounds the time.
func (p *proxyServer) httpConnect(c net.Conn, target string) (net.Conn, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: turngate\r\n", target, target)
	if p.login {
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", base64.StdEncoding.EncodeToString([]byte(p.user+":"+p.pass)))
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(c, b.String()); err != nil {
		return nil, err
	}
	head := &io.LimitedReader{R: c, N: maxConnectHead}
	r := bufio.NewReader(head)
	resp, err := readConnectAnswer(r)
	if err != nil {
		switch {
		case head.N <= 0:
			return nil, p.refusal(CauseAnswer, false, "the head of its answer is longer than %d bytes", maxConnectHead)
		case strings.Contains(err.Error(), "malformed"):
			return nil, p.refusal(CauseAnswer, false, "its answer is not HTTP: is this the port of an HTTP proxy (http://), or of SOCKS (socks5://) or TLS (https://)?")
		}
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, p.refused(resp, target)
	}
	if n := r.Buffered(); n > 0 {
		early, _ := r.Peek(n)
		return &earlyConn{c, slices.Clone(early)}, nil
	}
	return c, nil
}

func readConnectAnswer(r *bufio.Reader) (*http.Response, error) {
	for range maxConnectInterim {
		resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, fmt.Errorf("malformed answer: more than %d informational ones", maxConnectInterim)
}

// refused says what an answer other than 2xx means, and what to do.
func (p *proxyServer) refused(resp *http.Response, target string) error {
	status := short(printable(resp.Status))
	switch code := resp.StatusCode; {
	case code == http.StatusProxyAuthRequired:
		offered := schemes(resp.Header.Values("Proxy-Authenticate"))
		switch basic := slices.ContainsFunc(offered, func(s string) bool { return strings.EqualFold(s, "Basic") }); {
		case !basic && len(offered) > 0:
			return p.refusal(CauseProxyAuth, false, "407: it wants %s, only Basic is spoken: have it let this host through without a login, or put a helper that logs in there (such as cntlm or px) between", strings.Join(offered, " or "))
		case p.login:
			return p.refusal(CauseProxyAuth, false, "407: it does not accept this user and password")
		}
		return p.refusal(CauseProxyAuth, false, "407: it wants a login: write %s://user:password@%s", p.kind, p.name)
	case code == http.StatusUnauthorized: // the answer of tinyproxy to a wrong login
		return p.refusal(CauseProxyAuth, false, "%s: it does not accept this user and password", status)
	case code == http.StatusForbidden, code == http.StatusMethodNotAllowed, code == http.StatusUnavailableForLegalReasons:
		return p.refusal(CauseProxy, true, "it refuses %s with %s: have that name and port allowed there", target, status)
	case code == http.StatusGatewayTimeout, code == http.StatusRequestTimeout:
		return p.refusal(CauseTimeout, true, "it gets no answer from %s (%s)", target, status)
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable:
		return p.refusal(CauseProxy, true, "it cannot reach %s (%s)", target, status)
	case code/100 == 3:
		return p.refusal(CauseProxy, true, "it redirects the request for %s (%s), as proxies do that want a login in the browser first: have this host let through", target, status)
	}
	return p.refusal(CauseProxy, true, "it refuses %s with %s", target, status)
}

// schemes returns the names of the authentication schemes of a challenge, each once, for
// an error: at most five, and nothing but tokens.
func schemes(challenges []string) []string {
	var list []string
	for _, c := range challenges {
		// A scheme begins the value or follows a comma; a parameter has "=" behind its name.
		for part := range strings.SplitSeq(c, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(part), " ")
			if !ValidName(name) || strings.Contains(name, "=") || len(name) > 32 || len(list) == 5 ||
				slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) }) {
				continue
			}
			list = append(list, name)
		}
	}
	return list
}

// printable replaces what could write elsewhere in a log or a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '?'
		}
		return r
	}, s)
}

// earlyConn gives back first what was read too far.
type earlyConn struct {
	net.Conn
	early []byte // of the reading goroutine
}

func (c *earlyConn) Read(b []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(b, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// NetConn returns the connection below, as [crypto/tls.Conn] does.
func (c *earlyConn) NetConn() net.Conn { return c.Conn }

// CloseWrite passes the end of the stream on.
func (c *earlyConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
