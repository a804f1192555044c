package entry

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/turngate/turngate/internal/proxy"
)

// maxHead limits the answer of an upstream to a handshake, status line and fields.
const maxHead = 32 << 10

// maxInformational is how many 1xx answers an upstream may send before the real one.
const maxInformational = 8

// An Answer is the head of an upstream's answer to a handshake.
type Answer struct {
	Raw    []byte // the head as received, with the empty line
	Status int
	Header http.Header
	Rest   []byte   // bytes that came behind the head
	Conn   net.Conn // on which it came; it is the caller's
}

var (
	errHeadSyntax = errors.New("the answer is not HTTP")
	errHeadSize   = fmt.Errorf("the answer's head is over %d bytes", maxHead)
)

// readAnswer reads until a head is complete, skipping informational ones. The caller
// limits the time by a deadline on conn.
func readAnswer(conn net.Conn) (*Answer, error) {
	buf := make([]byte, 0, 4<<10)
	for range maxInformational {
		end, err := findHead(buf)
		for end == 0 && err == nil {
			if buf, err = readMore(conn, buf); err == nil {
				end, err = findHead(buf)
			}
		}
		if err != nil {
			return nil, err
		}
		a, err := parseHead(buf[:end])
		if err != nil {
			return nil, err
		}
		if a.Status/100 != 1 || a.Status == http.StatusSwitchingProtocols {
			if end < len(buf) {
				a.Rest = buf[end:]
			}
			a.Conn = conn
			return a, nil
		}
		buf = append([]byte(nil), buf[end:]...)
	}
	return nil, errors.New("too many informational answers")
}

func readMore(conn net.Conn, buf []byte) ([]byte, error) {
	if len(buf) == cap(buf) {
		if len(buf) >= maxHead {
			return buf, errHeadSize
		}
		buf = append(make([]byte, 0, min(4*max(cap(buf), 1<<10), maxHead)), buf...)
	}
	n, err := conn.Read(buf[len(buf):cap(buf)])
	buf = buf[:len(buf)+n]
	if n > 0 {
		return buf, nil
	}
	if errors.Is(err, io.EOF) && len(buf) > 0 {
		err = io.ErrUnexpectedEOF
	}
	return buf, err
}

// findHead returns where the head at the begin of buf ends, 0 if it is not complete.
// It fails as soon as the bytes cannot become one: not HTTP/1.x, or a line feed alone.
func findHead(buf []byte) (end int, err error) {
	const version = "HTTP/1."
	if n := min(len(buf), len(version)); string(buf[:n]) != version[:n] {
		return 0, errHeadSyntax
	}
	for line := 0; ; {
		i := bytes.IndexByte(buf[line:], '\n')
		if i < 0 {
			if len(buf) >= maxHead {
				return 0, errHeadSize
			}
			return 0, nil
		}
		if i == 0 || buf[line+i-1] != '\r' {
			return 0, errHeadSyntax
		}
		if line += i + 1; line > maxHead {
			return 0, errHeadSize
		}
		if i == 1 {
			return line, nil
		}
	}
}

// parseHead reads a complete head strictly: no folded lines, no blank before a
// colon, no control bytes.
func parseHead(raw []byte) (*Answer, error) {
	a := &Answer{Raw: raw, Header: make(http.Header)}
	line, rest, _ := bytes.Cut(raw, []byte("\r\n"))
	// HTTP/1.x SP 3DIGIT [SP reason]
	if len(line) < 12 || line[7] != '0' && line[7] != '1' || line[8] != ' ' || len(line) > 12 && line[12] != ' ' || !proxy.ValidValue(string(line)) {
		return nil, errHeadSyntax
	}
	for _, c := range line[9:12] {
		if c < '0' || c > '9' {
			return nil, errHeadSyntax
		}
		a.Status = a.Status*10 + int(c-'0')
	}
	if a.Status < 100 {
		return nil, errHeadSyntax
	}
	for {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		if len(line) == 0 {
			return a, nil
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || !proxy.ValidName(name) || !proxy.ValidValue(value) {
			return nil, errHeadSyntax
		}
		a.Header.Add(name, strings.Trim(value, " \t"))
	}
}

// check verifies a 101 answer: RFC 6455 section 4.1, the client's list at its end.
func (a *Answer) check(key string, offered http.Header) error {
	if a.Raw[7] != '1' {
		return errors.New("101 over HTTP/1.0")
	}
	if u := a.Header["Upgrade"]; len(u) != 1 || !strings.EqualFold(u[0], "websocket") {
		return errors.New("101 without Upgrade: websocket")
	}
	if !hasToken(a.Header["Connection"], "upgrade") {
		return errors.New("101 without Connection: Upgrade")
	}
	if acc := a.Header["Sec-Websocket-Accept"]; len(acc) != 1 || acc[0] != AcceptKey(key) {
		return errors.New("101 with a wrong Sec-WebSocket-Accept")
	}
	if p := a.Header["Sec-Websocket-Protocol"]; len(p) > 1 || len(p) == 1 && !listed(offered["Sec-Websocket-Protocol"], p[0], same) {
		return errors.New("101 with a subprotocol that was not offered")
	}
	for _, list := range a.Header["Sec-Websocket-Extensions"] {
		for ext := range strings.SplitSeq(list, ",") {
			name, _, _ := strings.Cut(ext, ";")
			if !offersExtension(offered["Sec-Websocket-Extensions"], strings.TrimSpace(name)) {
				return errors.New("101 with an extension that was not offered")
			}
		}
	}
	if te := a.Header["Transfer-Encoding"]; te != nil {
		return errors.New("101 with Transfer-Encoding") // RFC 9112 section 6.1
	}
	return nil
}

// Extended reports whether an extension was negotiated.
func (a *Answer) Extended() bool { return len(a.Header["Sec-Websocket-Extensions"]) > 0 }

// Deflates reports whether permessage-deflate (RFC 7692) was negotiated, and nothing else.
func (a *Answer) Deflates() bool {
	list := a.Header["Sec-Websocket-Extensions"]
	if len(list) != 1 {
		return false
	}
	name, _, _ := strings.Cut(list[0], ";")
	return strings.TrimSpace(name) == "permessage-deflate" && !strings.Contains(list[0], ",")
}

// Forward returns the head to send to the client: byte for byte as received, except
// for the lines that the policy hides.
func (a *Answer) Forward(p *proxy.HeaderPolicy) []byte {
	hides := false
	for name := range a.Header {
		hides = hides || name == "Set-Cookie" || p.Hides(name)
	}
	if !hides {
		return a.Raw
	}
	out := make([]byte, 0, len(a.Raw))
	for line := range bytes.SplitAfterSeq(a.Raw, []byte("\r\n")) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		switch key := textproto.CanonicalMIMEHeaderKey(string(name)); {
		case p.Hides(key):
		case key == "Set-Cookie":
			out = append(out, proxy.HostOnly(strings.TrimSuffix(string(line), "\r\n"))+"\r\n"...)
		default:
			out = append(out, line...)
		}
	}
	return out
}

// response reads an answer that is not 101 as plain HTTP.
func (a *Answer) response() (*http.Response, error) {
	r := io.MultiReader(bytes.NewReader(a.Raw), bytes.NewReader(a.Rest), a.Conn)
	return http.ReadResponse(bufio.NewReader(r), &http.Request{Method: http.MethodGet})
}

// AcceptKey computes Sec-WebSocket-Accept: RFC 6455 section 4.2.2, item 5.4.
func AcceptKey(key string) string {
	h := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(h[:])
}

// hasToken looks for a token in comma lists, without case.
func hasToken(lists []string, token string) bool { return listed(lists, token, strings.EqualFold) }

func same(a, b string) bool { return a == b }

func listed(lists []string, token string, equal func(a, b string) bool) bool {
	for _, l := range lists {
		for t := range strings.SplitSeq(l, ",") {
			if equal(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

func offersExtension(lists []string, name string) bool {
	for _, l := range lists {
		for e := range strings.SplitSeq(l, ",") {
			n, _, _ := strings.Cut(e, ";")
			if name != "" && strings.EqualFold(strings.TrimSpace(n), name) {
				return true
			}
		}
	}
	return false
}
