package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/pages"
)

// checkSession is a session of the check page's API that a link opened.
type checkSession struct {
	site *checkedSite
	base string // address of the page
	key  string
	last atomic.Int32 // number of the last probe
	plan linkedPlan
}

// linkedPlan is what the server has tested.
type linkedPlan struct {
	pages.Plan
	pages.Credential
	ID        string    `json:"id"`
	Now       time.Time `json:"now"`
	Parameter string    `json:"parameter"`
	ProbeKey  string    `json:"probeKey"`
}

// errLink is why a link is not accepted, in the words of the page.
var errLink = map[string]string{
	"unknown":  "the server does not know this link: links work until it is restarted",
	"used":     "this link has been used; each works once",
	"expired":  "this link is too old",
	"draining": "the server is just being restarted",
	"limit":    "too many attempts; wait a minute",
}

// call asks the API of the check page.
func (c *checkSession) call(ctx context.Context, name, token string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/api/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.site.withToken(req, token)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<18))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		var answer struct {
			Error string `json:"error"`
		}
		_ = json.Unmarshal(data, &answer) // what is no JSON is not ours
		if text := errLink[answer.Error]; text != "" {
			return errors.New(text)
		}
		return fmt.Errorf("the check page answers %d: is check.path empty, or is this no turngate?", res.StatusCode)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return errors.New("the answer is not that of a check page")
	}
	return nil
}

// openLink opens the session of a link and asks what to test.
func openLink(ctx context.Context, u *url.URL, site *checkedSite) (*checkSession, error) {
	ctx, cancel := context.WithTimeout(ctx, siteWait)
	defer cancel()
	c := &checkSession{site: site, base: "https://" + u.Host + strings.TrimRight(u.EscapedPath(), "/")}
	c.last.Store(rand.Int32N(1 << 20)) // the same session may be a browser's too
	var opened struct {
		Session string `json:"session"`
	}
	if err := c.call(ctx, "begin", u.Fragment, struct{}{}, &opened); err != nil {
		return nil, err
	}
	c.key = opened.Session
	return c, c.call(ctx, "plan", c.key, struct{}{}, &c.plan)
}

// linkedChecks are the checks that a link adds to those of the name and of HTTPS.
func (o *checkOptions) linkedChecks(ctx context.Context, u *url.URL, site *checkedSite, t *checkedTURN) ([]doctor.Check, error) {
	c, err := openLink(ctx, u, site)
	if err != nil { // what needs no token is tried all the same
		t.doors = o.clientDoors(site)
		f := doctor.As(doctor.CredentialMissing, "the link opens nothing: %v", err).At(doctor.Fail).By(doctor.Admin)
		if errors.Is(err, errDistrusted) {
			f = f.Do("put a good certificate on the server, or copy the one that it has to this machine and name it with --ca; the link is still good")
		} else {
			f = f.Do("make another one on the server: turngate check-link")
		}
		return []doctor.Check{
			{Name: "link", Group: doctor.Service, Run: func(context.Context) []doctor.Finding { return []doctor.Finding{f} }},
			{Name: "TURN", Group: doctor.Media, Run: t.check},
		}, nil
	}
	var checks []doctor.Check
	if cert := c.plan.Certificate; cert != nil {
		site.served = cert.SHA256
	}
	checks = append(checks, doctor.Check{Name: "clock", Group: doctor.Host, Run: func(context.Context) []doctor.Finding {
		if off := time.Since(c.plan.Now); off.Abs() > maxDateError {
			return []doctor.Finding{clockOff(off, "the server's").At(doctor.Warn)}
		}
		return nil
	}})
	for _, r := range c.plan.Routes {
		a := map[string]asks{pages.Signaling: wssAsks, pages.Logger: logAsks, pages.Scheduler: scheduleAsks}[r.Kind]
		if a.ask == nil {
			continue // of a server that is newer
		}
		group := doctor.Signaling
		if r.Kind == pages.Logger {
			group = doctor.Logs
		}
		route := c.route(r, site)
		checks = append(checks, doctor.Check{Name: a.what + " " + r.Name, Group: group, Run: func(ctx context.Context) []doctor.Finding {
			found := a.checkClientRoute(ctx, route, site)
			if r.Mode == pages.Unified { // few pages use it
				for i, f := range found {
					found[i] = f.At(min(f.Status, doctor.Warn))
				}
			}
			return found
		}})
	}
	if t.user == "" {
		t.user, t.password = c.plan.Username, c.plan.Credential.Credential
	}
	for _, r := range c.plan.Relays {
		t.doors = append(t.doors, linkedDoor(r, site.host))
	}
	o.tell = func(ctx context.Context, r doctor.Report) { c.end(ctx, r) }
	return append(checks, doctor.Check{Name: "TURN", Group: doctor.Media, Run: t.check}), nil
}

// route is a route of the plan with a mark, so that the server tells what becomes
// of the request.
func (c *checkSession) route(r pages.Route, site *checkedSite) checkedRoute {
	n := int(c.last.Add(1))
	path, query, _ := strings.Cut(r.Path, "?")
	rest := strings.TrimPrefix(strings.TrimPrefix(path, strings.TrimRight(r.Name, "/")), "/")
	mark := fmt.Sprintf("%s=%s.%d", c.plan.Parameter, c.plan.ProbeKey, n)
	if query != "" {
		mark = query + "&" + mark
	}
	return checkedRoute{
		path: r.Name, rest: rest, query: "?" + mark, origin: cmp.Or(r.Origin, "https://"+site.host), wait: 2*siteWait + scheduleWait, appID: cmp.Or(r.AppID, appID(nil)),
		told: func(ctx context.Context) (result pages.Result, err error) {
			err = c.call(ctx, "result", c.key, map[string]int{"n": n}, &result)
			return result, err
		},
	}
}

// linkedDoor is a way to the TURN server that the plan names.
func linkedDoor(r pages.Relay, host string) turnDoor {
	at := net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
	switch {
	case r.Transport == "tls":
		return turnDoor{fmt.Sprintf("TLS %d", r.Port), "tls", "tls", at, turnTLS(host)}
	case r.Transport == "tcp" && r.Minor:
		return turnDoor{fmt.Sprintf("plain TCP %d", r.Port), "tcp", "tls", at, nil}
	}
	return turnDoor{fmt.Sprintf("%s %d", strings.ToUpper(r.Transport), r.Port), r.Transport, r.Transport, at, nil}
}

// end notes on the server what came of the check.
func (c *checkSession) end(ctx context.Context, r doctor.Report) {
	ctx, cancel := context.WithTimeout(ctx, siteWait)
	defer cancel()
	failed, warned := 0, 0
	for _, f := range r.Findings {
		switch f.Status {
		case doctor.Fail:
			failed++
		case doctor.Warn:
			warned++
		}
	}
	verdict := [...]string{"works", "warnings", "fails"}[r.ExitCode()]
	// The report is made; that the server's log has no line is no trouble of the client's.
	_ = c.call(ctx, "end", c.key, map[string]any{"verdict": verdict, "failed": failed, "warned": warned}, &struct{}{})
}
