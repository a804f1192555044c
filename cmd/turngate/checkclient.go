package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/proxy"
)

// clientChecks are what a client can see of a turngate elsewhere. It has no
// configuration: host and port come from the URL, the rest from flags, or from
// the server itself for whoever has a link.
func (o *checkOptions) clientChecks(ctx context.Context) (subject string, checks []doctor.Check, err error) {
	u, err := url.Parse(o.fromClient)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", nil, fmt.Errorf("--from-client %q: want https://HOST/, or a link of \"turngate check-link\"", withoutFragment(o.fromClient))
	}
	if strings.Contains(u.Hostname(), "%") {
		return "", nil, fmt.Errorf("--from-client %q: an address with a zone counts on this machine only, and browsers refuse it; name another address", withoutFragment(o.fromClient))
	}
	for _, p := range []struct{ flag, path string }{{"wss", o.wss}, {"log", o.log}, {"schedule", o.schedule}} {
		if p.path != "" && p.path[0] != '/' {
			return "", nil, fmt.Errorf("--%s-path %q: a path begins with a slash, like \"/ws/\"", p.flag, p.path)
		}
	}
	site, err := o.clientSite(u)
	if err != nil {
		return "", nil, err
	}
	subject = site.up.Name + ", from this client"
	t := &checkedTURN{client: true, refuses: !o.nagios, wait: turnWait, user: o.user, password: o.password}
	run := func(name string, g doctor.Group, f func(context.Context) []doctor.Finding) {
		checks = append(checks, doctor.Check{Name: name, Group: g, Run: f})
	}
	run("name", doctor.Access, func(ctx context.Context) []doctor.Finding {
		return checkName(ctx, site.host, nil, siteWait)
	})
	run("HTTPS", doctor.Access, site.checkWeb)
	if u.Fragment != "" {
		more, err := o.linkedChecks(ctx, u, site, t)
		return subject, append(checks, more...), err
	}
	t.doors = o.clientDoors(site)
	for _, k := range []struct {
		a     asks
		group doctor.Group
		path  string
	}{{wssAsks, doctor.Signaling, o.wss}, {logAsks, doctor.Logs, o.log}, {scheduleAsks, doctor.Signaling, o.schedule}} {
		if k.path == "" {
			continue
		}
		route := clientRoute(k.a.what, k.path, site.host)
		run(k.a.what, k.group, func(ctx context.Context) []doctor.Finding { return k.a.checkClientRoute(ctx, route, site) })
	}
	run("TURN", doctor.Media, func(ctx context.Context) []doctor.Finding {
		t.stun = o.stunServer(ctx, &config.Config{})
		if t.user == "" && o.token != "" {
			if err := o.fetchCredential(ctx, u, site, t); err != nil {
				f := doctor.As(doctor.CredentialMissing, "no credential for the token: %v", err)
				f.Group = doctor.Media
				return append(t.check(ctx), f.At(doctor.Fail).Do("compare token and path with [turn.api] of the server").By(doctor.Admin))
			}
		}
		return t.check(ctx)
	})
	return subject, checks, nil
}

// withoutFragment is an address as it may be shown: a fragment is a token.
func withoutFragment(address string) string {
	address, _, _ = strings.Cut(address, "#")
	return address
}

// checkClientRoute asks a route whose upstreams only the server knows.
func (a asks) checkClientRoute(ctx context.Context, r checkedRoute, site *checkedSite) []doctor.Finding {
	ctx, cancel := context.WithTimeout(ctx, r.wait)
	defer cancel()
	p := a.checkThrough(ctx, r, site)
	if !p.asked {
		return []doctor.Finding{doctor.As(a.untested, "%s: not tried: the HTTPS port does not answer", r.path)}
	}
	return []doctor.Finding{p.found}
}

func (o *checkOptions) clientSite(u *url.URL) (*checkedSite, error) {
	up, err := proxy.ParseUpstream("https://" + u.Host)
	if err != nil {
		return nil, err
	}
	opt := proxy.DialOptions{Dial: siteWait}
	switch o.proxy {
	case "":
	case "env":
		opt.Proxy, err = proxy.NewOutboundFromEnv(os.Getenv, nil)
	default:
		opt.Proxy, err = proxy.NewOutbound(o.proxy, nil)
	}
	if err != nil {
		return nil, err
	}
	s := &checkedSite{host: up.Host, up: up, client: true, wait: siteWait}
	if s.dialer, err = proxy.NewDialer(opt); err != nil {
		return nil, err
	}
	s.roots, err = rootsWith(o.ca)
	return s, err
}

// clientRoute is a route whose upstreams only the server knows.
func clientRoute(what, path, host string) checkedRoute {
	r := checkedRoute{path: path, origin: "https://" + host, wait: 2 * siteWait, appID: appID(nil)}
	switch what {
	case wssAsks.what:
		r.query = signalQuery(r.appID)
	case logAsks.what:
		r.rest, r.query = reportPath, reportQuery(r.appID)
	default:
		r.rest = schedulePath
		r.wait += scheduleWait
	}
	return r
}

func (o *checkOptions) clientDoors(s *checkedSite) (doors []turnDoor) {
	if o.turnPort != 0 {
		at := net.JoinHostPort(s.host, strconv.Itoa(int(o.turnPort)))
		doors = append(doors,
			turnDoor{fmt.Sprintf("UDP %d", o.turnPort), "udp", "udp", at, nil},
			turnDoor{fmt.Sprintf("TCP %d", o.turnPort), "tcp", "tcp", at, nil})
	}
	at := net.JoinHostPort(s.host, strconv.Itoa(int(s.up.Port)))
	return append(doors,
		turnDoor{fmt.Sprintf("TLS %d", s.up.Port), "tls", "tls", at, turnTLS(s.host)},
		turnDoor{fmt.Sprintf("plain TCP %d", s.up.Port), "tcp", "tls", at, nil})
}

// turnTLS is how browsers begin TURN over TLS: without ALPN. The certificate is a
// check of its own.
func turnTLS(host string) *tls.Config {
	return &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
}

func trimBrackets(host string) string { return strings.Trim(host, "[]") }

// fetchCredential asks the server's iceServers address for a credential. It sends
// the token only to a server whose certificate this machine trusts.
func (o *checkOptions) fetchCredential(ctx context.Context, u *url.URL, s *checkedSite, t *checkedTURN) error {
	path := u.EscapedPath()
	if path == "" || path == "/" {
		path = "/ice"
	}
	ctx, cancel := context.WithTimeout(ctx, siteWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+u.Host+path+"?user=check", nil)
	if err != nil {
		return err
	}
	res, err := s.withToken(req, o.token)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", path, res.StatusCode)
	}
	var answer struct {
		ICEServers []struct {
			Username   string `json:"username"`
			Credential string `json:"credential"`
		} `json:"iceServers"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<16)).Decode(&answer); err != nil || len(answer.ICEServers) == 0 {
		return fmt.Errorf("%s answers with no iceServers", path)
	}
	t.user, t.password = answer.ICEServers[0].Username, answer.ICEServers[0].Credential
	return nil
}

// errDistrusted keeps a token here.
var errDistrusted = errors.New("the certificate is not trusted")

// withToken makes one request with a token, which goes only to a server whose
// certificate this machine trusts.
func (s *checkedSite) withToken(req *http.Request, token string) (*http.Response, error) {
	conn, err := s.open(req.Context(), "http/1.1")
	if err != nil {
		return nil, err
	}
	if chain := conn.ConnectionState().PeerCertificates; chain[0].VerifyHostname(s.host) != nil {
		err = fmt.Errorf("%w: it is for another name; the token was not sent", errDistrusted)
	} else if _, untrusted := s.trust(chain, nameOf(chain[0]), time.Now()); untrusted {
		err = fmt.Errorf("%w (see --ca); the token was not sent", errDistrusted)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	used := false
	once := &http.Transport{DisableKeepAlives: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
		if used {
			return nil, net.ErrClosed
		}
		used = true
		return conn, nil
	}}
	res, err := once.RoundTrip(req)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %s", req.URL.Path, proxy.Classify(err))
	}
	return res, nil
}
