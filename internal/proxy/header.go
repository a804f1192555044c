package proxy

import (
	"net/http"
	"net/textproto"
	"slices"
	"strings"
)

// XFF says what becomes of an X-Forwarded-For that an untrusted client sent. The
// header of a trusted proxy is always kept and our peer appended.
type XFF string

const (
	XFFReplace XFF = "replace" // drop it, send the peer's address; also the zero value
	XFFAppend  XFF = "append"  // keep it and append the peer's address
)

// HeaderPolicy says which header fields pass between client and upstream. The
// zero value is the strict one of the TRTC routes, without Cookie and
// Authorization. A policy is used by many goroutines and not changed.
type HeaderPolicy struct {
	Trust Trust // peers whose forwarding headers are believed
	XFF   XFF

	KeepCredentials bool // pass Cookie, Authorization and Set-Cookie
	KeepUnderscore  bool // pass names with '_'
	Identify        bool // also send X-Real-IP, X-Request-ID, X-Forwarded-Proto and X-Forwarded-Host

	Add []Field // fields of our own, which replace the client's of the same name

	HideServer bool // drop Server, X-Powered-By and Via of the upstream
}

// Request returns the header to send upstream for a request: a new map, without
// the fields of one hop (RFC 9110 section 7.6.1, also those that Connection
// names), without Host, without what a client could steer or lie with, and with
// X-Forwarded-For rebuilt. A caller that upgrades sets its fields afterwards.
func (p *HeaderPolicy) Request(r *http.Request) http.Header {
	peer := Peer(r).Addr()
	trusted := p.Trust.Contains(peer)
	out := make(http.Header, len(r.Header)+1)
	named := connectionNames(r.Header)
	for name, values := range r.Header {
		underscore := strings.IndexByte(name, '_') >= 0
		if underscore && !p.KeepUnderscore || !ValidName(name) || named[name] {
			continue
		}
		as := name
		if underscore { // CGI and its heirs read X_Real_IP as X-Real-IP
			as = textproto.CanonicalMIMEHeaderKey(strings.ReplaceAll(name, "_", "-"))
		}
		switch {
		case hopByHop[as], never[as], dangerousPrefix(as),
			!p.KeepCredentials && (as == "Cookie" || as == "Authorization"),
			!trusted && claimsOrigin(as),
			as == "X-Forwarded-For", p.adds(as):
			continue
		}
		for _, v := range values {
			if ValidValue(v) {
				out[name] = append(out[name], v)
			}
		}
	}
	if xff := p.forwardedFor(r, trusted); xff != "" {
		out["X-Forwarded-For"] = []string{xff}
	}
	id := ""
	if p.Identify {
		id = p.identify(r, trusted, out)
	}
	p.add(r, id, out)
	return out
}

// forwardedFor builds the list "client, proxy, proxy", the client left-most.
func (p *HeaderPolicy) forwardedFor(r *http.Request, trusted bool) string {
	peer := Peer(r).Addr()
	if !peer.IsValid() {
		return ""
	}
	own := peer.String()
	if !trusted && p.XFF != XFFAppend {
		return own
	}
	var list []string
	for _, v := range r.Header["X-Forwarded-For"] {
		if v = strings.Trim(v, " \t,"); v != "" && ValidValue(v) {
			list = append(list, v)
		}
	}
	return strings.Join(append(list, own), ", ")
}

// identify returns the id that the request has got or has kept.
func (p *HeaderPolicy) identify(r *http.Request, trusted bool, out http.Header) (id string) {
	if client := p.Trust.Client(r); client.IsValid() {
		out["X-Real-Ip"] = []string{client.String()}
	}
	if !trusted || out["X-Forwarded-Proto"] == nil {
		out["X-Forwarded-Proto"] = []string{proto(r)}
	}
	if (!trusted || out["X-Forwarded-Host"] == nil) && ValidHost(r.Host) {
		out["X-Forwarded-Host"] = []string{r.Host}
	}
	if !trusted || out["X-Request-Id"] == nil {
		out["X-Request-Id"] = []string{newID()}
	}
	return out["X-Request-Id"][0]
}

// Response copies the header of an upstream's answer into dst, without the
// fields of one hop and those that the policy [HeaderPolicy.Hides]. Of Access-Control-Allow-Origin exactly one value is left: with two of them
// a browser accepts neither.
func (p *HeaderPolicy) Response(dst, src http.Header) {
	named := connectionNames(src)
	for name, values := range src {
		if hopByHop[name] || named[name] || p.Hides(name) {
			continue
		}
		dst[name] = append([]string(nil), values...)
	}
	for i, cookie := range dst["Set-Cookie"] {
		dst["Set-Cookie"][i] = HostOnly(cookie)
	}
	const acao = "Access-Control-Allow-Origin"
	if v := dst[acao]; len(v) > 1 {
		dst[acao] = v[:1]
	}
	if v := dst[acao]; len(v) == 1 {
		first, _, _ := strings.Cut(v[0], ",")
		dst[acao] = []string{strings.TrimSpace(first)}
	}
}

// Hides reports whether the policy keeps a field of the upstream's answer from the
// client: one that speaks for our host, one that names software, or a cookie that
// would not be sent back anyway but would go to every other server of our domain.
func (p *HeaderPolicy) Hides(name string) bool {
	return siteWide[name] || p.HideServer && hiding[name] || !p.KeepCredentials && name == "Set-Cookie"
}

// HostOnly is a Set-Cookie without its Domain: the cookie is for this host. An
// upstream's own domain a browser would not accept from us, and one above ours would
// reach every server of it.
func HostOnly(cookie string) string {
	parts := strings.Split(cookie, ";")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool {
		name, _, _ := strings.Cut(p, "=")
		return strings.EqualFold(textproto.TrimString(name), "Domain")
	}), ";")
}

// Redirects reports whether an answer sends the client elsewhere. Its Location never
// passes (see Hides), and a page must not take what is left for a success.
func Redirects(status int) bool { return status/100 == 3 && status != http.StatusNotModified }

// DropCORS removes what would let a page read the answer. The TRTC SDK takes any
// readable answer to a log report for a delivery, also a 503, and keeps the report
// when the answer is unreadable.
func DropCORS(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			delete(h, name)
		}
	}
}

// connectionNames returns the names that the Connection fields declare to be of
// this hop only, in canonical form; nil when there are none.
func connectionNames(h http.Header) map[string]bool {
	var names map[string]bool
	for _, v := range h["Connection"] {
		for tok := range strings.SplitSeq(v, ",") {
			if tok = textproto.TrimString(tok); tok == "" || strings.EqualFold(tok, "upgrade") || strings.EqualFold(tok, "close") || strings.EqualFold(tok, "keep-alive") {
				continue
			}
			if names == nil {
				names = make(map[string]bool)
			}
			names[textproto.CanonicalMIMEHeaderKey(tok)] = true
		}
	}
	return names
}

// hopByHop are the fields of one hop, standard and customary.
var hopByHop = set("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Connection", "Proxy-Authentication-Info", "Te", "Trailer", "Trailers", "Transfer-Encoding", "Upgrade", "Http2-Settings")

// never pass from any client: they steer a server or its CGI environment
// ("Proxy" becomes HTTP_PROXY), or are ours to write.
var never = set("Host", "Content-Length", "Expect", "Proxy",
	"X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
	"X-Original-Url", "X-Original-Host", "X-Original-Uri", "X-Rewrite-Url", "X-Sendfile", "X-Host")

// origins say who the client is; only a trusted proxy may. So does every name whose
// last word is in originWords.
var (
	origins = set("Forwarded", "Forwarded-For", "X-Forwarded", "X-Request-Id", "X-Remote-Addr", "Remote-Addr",
		"X-Envoy-External-Address", "Cloudfront-Viewer-Address", "Via")
	originWords = set("Ip", "Ips", "Ipv4", "Ipv6", "Clientip", "Realip", "Remoteip", "Socketip", "Userip")
)

var hiding = set("Server", "X-Powered-By", "X-Aspnet-Version", "X-Aspnetmvc-Version", "Via")

// siteWide are answers about the host as a whole: an upstream speaks for its own, a
// browser would take it for ours.
var siteWide = set("Strict-Transport-Security", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Expect-Ct",
	"Location", "Content-Location", "Refresh", // a way around us, or to a path that is not ours
	"Alt-Svc", "Nel", "Report-To", "Reporting-Endpoints", "Clear-Site-Data", "Service-Worker-Allowed")

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, n := range names {
		m[textproto.CanonicalMIMEHeaderKey(n)] = true
	}
	return m
}

func claimsOrigin(name string) bool {
	return origins[name] || originWords[name[strings.LastIndexByte(name, '-')+1:]] ||
		strings.HasPrefix(name, "X-Forwarded-") || strings.HasSuffix(name, "-Forwarded-For") ||
		strings.HasPrefix(name, "X-Qrator-") || strings.HasPrefix(name, "X-Q-")
}

func dangerousPrefix(name string) bool {
	return strings.HasPrefix(name, "X-Wsproxy-") || strings.HasPrefix(name, "X-Accel-")
}

// ValidName reports whether s is a token (RFC 9110 section 5.6.2).
func ValidName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`"(),/:;<=>?@[\]{}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// ValidValue reports whether s can stand as a field value (RFC 9110 section 5.5):
// no control bytes but the tab.
func ValidValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// ValidHost reports whether s is a host name or address with an optional port,
// fit to be written into an answer.
func ValidHost(s string) bool {
	if s == "" || len(s) > 255 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("-._:[]", c) < 0 {
			return false
		}
	}
	return true
}
