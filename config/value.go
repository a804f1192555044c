package config

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Duration is a length of time, written "10s", "300ms" or "12h". It is never
// negative.
type Duration time.Duration

func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return &wrong{fmt.Sprintf("%q is not a duration", text), `write a number and a unit, like "300ms", "10s", "5m" or "12h"`}
	}
	if v < 0 {
		return &wrong{fmt.Sprintf("%q is negative", text), `write "0s" or more`}
	}
	*d = Duration(v)
	return nil
}

func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String leaves out zero minutes and seconds: "12h", not "12h0m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Size is a number of bytes, written "512KiB" (1024) or "8MB" (1000). It is
// never negative.
type Size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{ // the largest first, as String tries them
	{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

func (s *Size) UnmarshalText(text []byte) error {
	number, unit := string(text), int64(0)
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(number, u.name); ok {
			number, unit = strings.TrimSuffix(n, " "), u.bytes
			break
		}
	}
	if number == "0" && unit == 0 {
		unit = 1
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || unit == 0 {
		return &wrong{fmt.Sprintf("%q is not a size", text), `write a whole number and a unit, like "512KiB", "8MB" or "100B"`}
	}
	if int64(n) > math.MaxInt64/unit {
		return &wrong{fmt.Sprintf("%q is too large", text), `write at most "8000000000GB"`}
	}
	*s = Size(int64(n) * unit)
	return nil
}

func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes the size in the largest unit that needs no fraction.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// ListenAddr is where a listener opens: ":443" is every address of the host,
// IPv4 and IPv6. The zero value is no listener.
type ListenAddr struct {
	Addr netip.Addr // not valid: every address
	Port uint16     // 0 picks a free port at each start

	set bool
}

// Listen returns the address of a listener.
func Listen(addr netip.Addr, port uint16) ListenAddr { return ListenAddr{addr, port, true} }

// IsZero reports whether no listener is configured.
func (l ListenAddr) IsZero() bool { return !l.set }

// Wildcard reports whether the listener takes every address of the host.
// Go listens on "[::]" for IPv4 too.
func (l ListenAddr) Wildcard() bool {
	return !l.Addr.IsValid() || l.Addr == netip.IPv6Unspecified()
}

// String is the form that net.Listen takes.
func (l ListenAddr) String() string {
	switch {
	case !l.set:
		return ""
	case !l.Addr.IsValid():
		return fmt.Sprintf(":%d", l.Port)
	}
	return netip.AddrPortFrom(l.Addr, l.Port).String()
}

func (l *ListenAddr) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "" {
		*l = ListenAddr{}
		return nil
	}
	const form = `write ":443", "192.0.2.1:443" or "[2001:db8::1]:443"`
	i := strings.LastIndexByte(s, ':')
	port, err := strconv.ParseUint(s[i+1:], 10, 16)
	if i < 0 && err == nil {
		return &wrong{fmt.Sprintf("%q has no colon", s), fmt.Sprintf(`write ":%s"`, s)}
	}
	if i < 0 || err != nil {
		return &wrong{fmt.Sprintf("%q is not an address to listen on", s), form}
	}
	*l = ListenAddr{Port: uint16(port), set: true}
	host := s[:i]
	if host == "" || host == "*" {
		return nil
	}
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]")
	if bracketed {
		host = host[1 : len(host)-1]
	}
	l.Addr, err = netip.ParseAddr(host)
	if err != nil || bracketed != l.Addr.Is6() || l.Addr.Is4In6() {
		*l = ListenAddr{}
		return &wrong{fmt.Sprintf("%q is not an address to listen on", s), form}
	}
	return nil
}

func (l ListenAddr) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// PortRange is a range of ports with both ends; the zero value is any port.
type PortRange struct{ Lo, Hi uint16 }

// Any reports whether the range has no bounds.
func (r PortRange) Any() bool { return r == PortRange{} }

// Contains reports whether port is in the range.
func (r PortRange) Contains(port uint16) bool { return r.Any() || r.Lo <= port && port <= r.Hi }

func (r PortRange) String() string {
	switch {
	case r.Any():
		return "any"
	case r.Lo == r.Hi:
		return strconv.Itoa(int(r.Lo))
	}
	return fmt.Sprintf("%d-%d", r.Lo, r.Hi)
}

func (r *PortRange) UnmarshalText(text []byte) error {
	lo, hi, isRange := strings.Cut(string(text), "-")
	if !isRange {
		hi = lo
	}
	l, errLo := strconv.ParseUint(strings.TrimSpace(lo), 10, 16)
	h, errHi := strconv.ParseUint(strings.TrimSpace(hi), 10, 16)
	if errLo != nil || errHi != nil || l == 0 {
		return &wrong{fmt.Sprintf("%q is not a port or a range of ports", text), `write 8000 or "8000-8010", from 1 to 65535`}
	}
	if l > h {
		return &wrong{fmt.Sprintf("the range %q is empty", text), fmt.Sprintf(`write "%d-%d"`, h, l)}
	}
	*r = PortRange{uint16(l), uint16(h)}
	return nil
}

func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// setInt makes 8000 the same as "8000".
func (r *PortRange) setInt(n int64) error { return r.UnmarshalText([]byte(strconv.FormatInt(n, 10))) }

// PeerRule names peers of a relay: addresses, and ports if they matter.
type PeerRule struct {
	Prefix netip.Prefix
	Ports  PortRange
}

func (r PeerRule) String() string {
	switch {
	case r.Ports.Any():
		return r.Prefix.String()
	case r.Prefix.Addr().Is6():
		return "[" + r.Prefix.String() + "]:" + r.Ports.String()
	}
	return r.Prefix.String() + ":" + r.Ports.String()
}

func (r *PeerRule) UnmarshalText(text []byte) error {
	s := string(text)
	prefix, ports, hasPorts := s, "", false
	if strings.HasPrefix(s, "[") {
		var ok bool
		if prefix, ports, ok = strings.Cut(s[1:], "]"); !ok {
			return &wrong{fmt.Sprintf("%q has no closing bracket", s), `write "[2001:db8::/32]:8000"`}
		}
		if ports != "" {
			if ports, hasPorts = strings.CutPrefix(ports, ":"); !hasPorts {
				return &wrong{fmt.Sprintf("%q is not a prefix with ports", s), `write "[2001:db8::/32]:8000"`}
			}
		}
	} else if strings.Count(s, ":") == 1 { // IPv4; IPv6 has two colons at least
		prefix, ports, hasPorts = strings.Cut(s, ":")
	}
	p, err := parsePrefix(prefix)
	if err != nil {
		return err
	}
	*r = PeerRule{Prefix: p}
	if hasPorts {
		return r.Ports.UnmarshalText([]byte(ports))
	}
	return nil
}

func (r PeerRule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// parsePrefix reads a prefix, or an address as the prefix of itself.
func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.Zone() != "" {
			return netip.Prefix{}, &wrong{fmt.Sprintf("%q is not an address or prefix", s), `write "192.0.2.0/24", "192.0.2.1" or "2001:db8::/32"`}
		}
		p = netip.PrefixFrom(addr, addr.BitLen())
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, &wrong{fmt.Sprintf("%q is an IPv4 address in IPv6 form", s), fmt.Sprintf("write it as IPv4, like %q", p.Addr().Unmap())}
	}
	if p != p.Masked() {
		return netip.Prefix{}, &wrong{fmt.Sprintf("%q has bits behind its length", s), fmt.Sprintf("write %q", p.Masked())}
	}
	return p, nil
}

// ExternalIP is an address that TURN hands out. Behind address translation,
// Private is the address of this host that Public is translated to.
type ExternalIP struct {
	Public  netip.Addr
	Private netip.Addr // not valid: none given
}

func (e ExternalIP) String() string {
	if !e.Private.IsValid() {
		return e.Public.String()
	}
	return e.Public.String() + "/" + e.Private.String()
}

func (e *ExternalIP) UnmarshalText(text []byte) error {
	public, private, pair := strings.Cut(string(text), "/")
	var err error
	if e.Public, err = parseHostAddr(public); err != nil || !pair {
		return err
	}
	if n, err := strconv.Atoi(private); err == nil && n <= 128 {
		return &wrong{fmt.Sprintf("%q is a prefix", text), fmt.Sprintf(`write one address, %q, or "public/private"`, public)}
	}
	if e.Private, err = parseHostAddr(private); err != nil {
		return err
	}
	if e.Public.Is4() != e.Private.Is4() {
		return &wrong{fmt.Sprintf("%q pairs IPv4 with IPv6", text), "pair addresses of one family"}
	}
	return nil
}

func (e ExternalIP) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// parseHostAddr reads an address that a host can have.
func parseHostAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return netip.Addr{}, &wrong{fmt.Sprintf("%q is not an IP address", s), `write an address like "203.0.113.7", not a name`}
	case addr.Is4In6():
		return netip.Addr{}, &wrong{fmt.Sprintf("%q is an IPv4 address in IPv6 form", s), fmt.Sprintf("write %q", addr.Unmap())}
	case addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return netip.Addr{}, &wrong{fmt.Sprintf("%q is not the address of a host", s), "write the address that clients reach"}
	}
	return addr, nil
}

// FixedAddr is where a name leads instead of what DNS says.
type FixedAddr struct {
	Addr netip.Addr
	Port uint16 // 0: the port of the upstream URL
}

func (a FixedAddr) String() string {
	if a.Port == 0 {
		return a.Addr.String()
	}
	return netip.AddrPortFrom(a.Addr, a.Port).String()
}

func (a *FixedAddr) UnmarshalText(text []byte) error {
	if ap, err := netip.ParseAddrPort(string(text)); err == nil && ap.Port() != 0 {
		*a = FixedAddr{ap.Addr().Unmap(), ap.Port()}
		return nil
	}
	addr, err := netip.ParseAddr(string(text))
	if err != nil {
		return &wrong{fmt.Sprintf("%q is not an address", text), `write "192.0.2.7" or "192.0.2.7:443"`}
	}
	*a = FixedAddr{Addr: addr.Unmap()}
	return nil
}

func (a FixedAddr) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// parseURL reads the URL of an upstream. wss and ws become https and http.
func parseURL(s string) (*url.URL, error) {
	const form = `write "https://host[:port]/path"`
	if strings.Contains(s, "@") { // it may hold a password: do not repeat it
		return nil, &wrong{"a user in an upstream URL is not supported", form}
	}
	said := cutQuery(s)
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, &wrong{fmt.Sprintf("%q is not a URL", said), form}
	case !slices.Contains([]string{"https", "http", "wss", "ws"}, u.Scheme):
		return nil, &wrong{fmt.Sprintf("%q does not begin with https://, wss://, http:// or ws://", said), form}
	case u.Hostname() == "":
		return nil, &wrong{fmt.Sprintf("%q has no host", said), form}
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return nil, &wrong{fmt.Sprintf("%q has a query or fragment", said), "end it with the path; the client's query is passed on"}
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return nil, &wrong{fmt.Sprintf("the port of %q is not from 1 to 65535", s), form}
		}
	}
	if !IsHost(u.Hostname()) {
		return nil, &wrong{fmt.Sprintf("%q is not a host name", u.Hostname()), form}
	}
	u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

// cutQuery leaves out what stands behind the question mark, or the number sign,
// of a URL: there may be a token in it.
func cutQuery(s string) string {
	if i := strings.IndexAny(s, "?#"); i >= 0 {
		return s[:i+1] + "..."
	}
	return s
}

// IsHost reports whether s is an address or a host name.
func IsHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || isHostName(s)
}

// isHostName reports whether s is a name DNS can hold: ASCII labels of
// letters, digits, hyphens and underscores.
func isHostName(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || !isBare(label) {
			return false
		}
	}
	return true
}

func parseLevel(s string) (slog.Level, error) {
	levels := []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError}
	for _, l := range levels {
		if strings.EqualFold(l.String(), s) {
			return l, nil
		}
	}
	return 0, &wrong{fmt.Sprintf("%q is not a level", s), `write "debug", "info", "warn" or "error"`}
}
