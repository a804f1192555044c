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

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/proxy"
)

// clientChecks are what a client can see of a turngate elsewhere. It has no
// configuration: host and port come from the URL, the rest from flags.
func (o *checkOptions) clientChecks(ctx context.Context) (subject string, checks []doctor.Check, err error) {
	u, err := url.Parse(o.fromClient)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return "", nil, fmt.Errorf("--from-client %q: want https://HOST/", o.fromClient)
	}
	site, err := o.clientSite(u)
	if err != nil {
		return "", nil, err
	}
	t := &checkedTURN{client: true, refuses: !o.nagios, wait: turnWait, user: o.user, password: o.password}
	t.doors = o.clientDoors(site)
	run := func(name string, g doctor.Group, f func(context.Context) []doctor.Finding) {
		checks = append(checks, doctor.Check{Name: name, Group: g, Run: f})
	}
	run("name", doctor.Access, func(ctx context.Context) []doctor.Finding {
		return checkName(ctx, site.host, nil, siteWait)
	})
	run("HTTPS", doctor.Access, site.checkWeb)
	for _, k := range []struct {
		a     asks
		group doctor.Group
		path  string
	}{{wssAsks, doctor.Signaling, o.wss}, {logAsks, doctor.Logs, o.log}} {
		if k.path == "" {
			continue
		}
		route := clientRoute(k.a.what, k.path, site.host)
		run(string(k.group), k.group, func(ctx context.Context) []doctor.Finding {
			ctx, cancel := context.WithTimeout(ctx, route.wait)
			defer cancel()
			f, asked := k.a.checkThrough(ctx, route, site)
			if !asked {
				return []doctor.Finding{doctor.As(k.a.untested, "%s: not tried: the HTTPS port does not answer", k.path)}
			}
			return []doctor.Finding{f}
		})
	}
	run("TURN", doctor.Media, func(ctx context.Context) []doctor.Finding {
		if t.user == "" && o.token != "" {
			if err := o.fetchCredential(ctx, u, site, t); err != nil {
				f := doctor.As(doctor.CredentialMissing, "no credential for the token: %v", err)
				f.Group = doctor.Media
				return append(t.check(ctx), f.At(doctor.Fail).Do("compare token and path with [turn.api] of the server").By(doctor.Admin))
			}
		}
		return t.check(ctx)
	})
	return site.up.Name + ", from this client", checks, nil
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
	r := checkedRoute{path: path, origin: "https://" + host, wait: 2 * siteWait}
	if what == "wss" {
		r.query = fmt.Sprintf("?sdkAppId=%d&userId=turngate-check&userSig=none&keepAlive=0", appID(nil))
	} else {
		r.rest, r.query = "v5/AVQualityReportSvc/C2S", fmt.Sprintf("?random=1&sdkappid=%d&cmdtype=jssdk_log", appID(nil))
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
	conn, err := s.open(ctx, "http/1.1")
	if err != nil {
		return err
	}
	defer conn.Close()
	if chain := conn.ConnectionState().PeerCertificates; chain[0].VerifyHostname(s.host) != nil {
		return errors.New("the certificate is for another name; the token was not sent")
	} else if _, untrusted := s.trust(chain, nameOf(chain[0]), time.Now()); untrusted {
		return errors.New("the certificate is not trusted (see --ca); the token was not sent")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+u.Host+path+"?user=check", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+o.token)
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
		return fmt.Errorf("%s: %s", path, proxy.Classify(err))
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
