package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const proxyForm = `write "http://user:password@host:3128" or "socks5h://host:1080", user and password if the proxy wants them`

// proxy checks the key proxy of [upstream] or of a route. No finding repeats
// the value: it may hold a password.
func (c *checker) proxy(key string, value Secret) {
	switch text := value.Reveal(); text {
	case "":
	case ProxyFromEnv:
		c.proxyEnv(key)
	default:
		if what := badProxy(text); what != "" {
			c.err(key, what, proxyForm)
		}
	}
}

// proxyEnv checks the variables that "env" stands for.
func (c *checker) proxyEnv(key string) {
	found := false
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"} {
		for _, name := range []string{name, strings.ToLower(name)} {
			text, _ := c.env.lookup(name)
			if text == "" {
				continue
			}
			found = true
			if !strings.Contains(text, "://") {
				text = "http://" + text
			}
			if what := badProxy(text); what != "" {
				c.err(key, name+" "+what, proxyForm)
			}
		}
	}
	if !found {
		c.warn(key, "none of HTTPS_PROXY, HTTP_PROXY and ALL_PROXY is set: upstreams are reached directly", "set HTTPS_PROXY for the service, or write the URL of the proxy here")
	}
}

// badProxy says what is wrong with the URL of a proxy, or "".
func badProxy(text string) string {
	u, err := url.Parse(text)
	switch {
	case !slices.ContainsFunc([]string{"http://", "https://", "socks5://", "socks5h://"}, func(s string) bool { return strings.HasPrefix(strings.ToLower(text), s) }):
		return "does not begin with http://, https://, socks5:// or socks5h://"
	case err != nil:
		return "is not a URL; special characters in user and password are written as %XX"
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "":
		return "has more than scheme, user, password, host and port; special characters in user and password are written as %XX"
	case !IsHost(u.Hostname()):
		return "has no host name or address"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "has a port that is not from 1 to 65535"
		}
	}
	if u.User == nil {
		return ""
	}
	user := u.User.Username()
	password, _ := u.User.Password()
	switch socks := strings.HasPrefix(u.Scheme, "socks"); {
	case socks && (user == "" || len(user) > 255 || len(password) > 255):
		return "has a user or password that SOCKS cannot carry: 1 to 255 bytes"
	case !socks && strings.Contains(user, ":"):
		return "has a user with a colon, which Basic cannot carry"
	}
	return ""
}

// badNoProxy says what is wrong with an element of no_proxy, or "".
func badNoProxy(s string) string {
	if s == "*" {
		return ""
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return ""
	}
	if _, err := netip.ParseAddrPort(s); err == nil {
		return ""
	}
	host := strings.TrimSuffix(strings.TrimPrefix(s, "["), "]")
	if _, err := netip.ParseAddr(host); err == nil {
		return ""
	}
	if strings.Contains(s, "/") {
		return fmt.Sprintf("%q is neither a name nor a prefix", s)
	}
	host, port, hasPort := strings.Cut(s, ":")
	if n, err := strconv.ParseUint(port, 10, 16); hasPort && (err != nil || n == 0) {
		return fmt.Sprintf("%q has a port that is not from 1 to 65535", s)
	}
	host = strings.TrimPrefix(strings.TrimPrefix(host, "*"), ".")
	if !isHostName(host) {
		return fmt.Sprintf("%q is neither a name nor an address nor a prefix", s)
	}
	return ""
}

// ProxyHost is host and port of the proxy, for people to read; "environment",
// or "" for none.
func (r Reach) ProxyHost() string {
	text := r.Proxy.Reveal()
	if text == "" || text == ProxyFromEnv {
		return strings.Replace(text, ProxyFromEnv, "environment", 1)
	}
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}
