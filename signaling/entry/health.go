package entry

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/turngate/turngate/internal/proxy"
)

// Kinds of active checks.
const (
	CheckConnect   = "connect"   // TCP, and TLS where the upstream has it
	CheckWebSocket = "websocket" // a handshake that is answered with a good 101
)

// HealthCheck says how the upstreams of a route are looked at while no client waits. A
// check has as long as a handshake of a client.
type HealthCheck struct {
	Kind     string        // "": none
	Interval time.Duration // from the begin of one to the begin of the next; zero: 5 s
	Rise     int           // good ones in a row that bring an upstream back; zero: 2
	Fall     int           // bad ones in a row that take it out; zero: 2
	Path     string        // what a handshake asks for, as a client behind the route's path; "" or "/..."
}

// complete fills in the defaults and checks the rest.
func (c *HealthCheck) complete() error {
	if c.Interval == 0 {
		c.Interval = 5 * time.Second
	}
	if c.Rise == 0 {
		c.Rise = 2
	}
	if c.Fall == 0 {
		c.Fall = 2
	}
	switch c.Kind {
	case "", CheckConnect, CheckWebSocket:
	default:
		return fmt.Errorf("check %q: want %q or %q", c.Kind, CheckConnect, CheckWebSocket)
	}
	if c.Interval < 0 || c.Rise < 0 || c.Fall < 0 {
		return errors.New("check: a negative number")
	}
	if c.Path != "" {
		if _, _, err := proxy.SplitTarget(c.Path); err != nil {
			return fmt.Errorf("check path: %w", err)
		}
	}
	return nil
}

// Serve makes the active checks of the routes until ctx ends, and returns when the last
// one has ended. It follows Reconfigure: checks of upstreams that stay go on in their
// rhythm.
func (s *Server[S]) Serve(ctx context.Context) error {
	for ctx.Err() == nil {
		t := s.table.Load()
		run, stop := context.WithCancel(ctx)
		var checks sync.WaitGroup
		for _, g := range t.routes {
			if g.check.Kind == "" || g.Pool == nil {
				continue
			}
			for _, u := range g.Pool.Upstreams() {
				if !u.Off {
					checks.Go(func() { s.keepChecking(run, g, u) })
				}
			}
		}
		select {
		case <-t.replaced:
		case <-ctx.Done():
		}
		stop()
		checks.Wait()
	}
	return nil
}

func (s *Server[S]) keepChecking(ctx context.Context, g *Gate, u *proxy.Upstream) {
	for {
		select {
		case <-time.After(time.Until(u.NextCheck(g.check.Interval))):
		case <-ctx.Done():
			return
		}
		last := u.CheckBegins()
		err := s.checkOnce(ctx, g, u)
		if ctx.Err() != nil {
			u.CheckUndone(last) // nothing was found out
			return
		}
		changed := u.Checked(err, g.check.Rise, g.check.Fall)
		switch {
		case err != nil:
			s.metrics.checks.WithLabelValues(g.Name, string(proxy.Classify(err))).Inc()
			if changed {
				s.Log.Warn("upstream down", "route", g.Name, "upstream", u.Name, "cause", proxy.Classify(err), "err", err, "check", g.check.Kind)
			}
		default:
			s.metrics.checks.WithLabelValues(g.Name, "ok").Inc()
			if changed {
				s.Log.Info("upstream up", "route", g.Name, "upstream", u.Name, "check", g.check.Kind)
			}
		}
	}
}

// checkOnce performs one check. Nothing of it is left open.
func (s *Server[S]) checkOnce(parent context.Context, g *Gate, u *proxy.Upstream) error {
	ctx, cancel := context.WithTimeout(parent, g.Handshake)
	defer cancel()
	if g.check.Kind == CheckConnect {
		conn, err := connectTo(ctx, g.Dialer, u, untimed)
		if err == nil {
			conn.Close()
		}
		return err
	}
	var key [16]byte
	_, _ = rand.Read(key[:])
	header := http.Header{
		"User-Agent":            {"turngate"},
		"Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key":     {base64.StdEncoding.EncodeToString(key[:])},
	}
	g.Headers.AddStatic(header)
	path, query, _ := proxy.SplitTarget(g.check.Path) // checked by complete
	a, err := open(parent, ctx, g.Dialer, &g.Headers, u, header, path, query, untimed)
	if err != nil {
		return err
	}
	defer a.Conn.Close()
	if a.Status != http.StatusSwitchingProtocols {
		return &proxy.Error{Upstream: u.Name, Phase: "answer", Cause: proxy.CauseAnswer, Err: fmt.Errorf("status %d", a.Status)}
	}
	sayGoodbye(a.Conn)
	return nil
}

// untimed leaves the figures to the handshakes of clients.
func untimed(string, time.Duration) {}

// sayGoodbye closes a WebSocket as its client: Close 1000, masked with zeros.
func sayGoodbye(conn net.Conn) {
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = conn.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 1000 >> 8, 1000 & 0xff})
}

// UpstreamInfo describes an upstream of a route.
type UpstreamInfo struct {
	Route    string
	Upstream string // base URL, and names that differ from it
	Weight   int    // 0: switched off
	Backup   bool
	Checked  string // kind of the active checks, "" for none
	proxy.Health
}

// Upstreams lists the upstreams of all routes, in the order of the configuration.
func (s *Server[S]) Upstreams() []UpstreamInfo {
	var list []UpstreamInfo
	for _, g := range s.table.Load().routes {
		if g.Pool == nil {
			continue
		}
		for _, u := range g.Pool.Upstreams() {
			info := UpstreamInfo{Route: g.Name, Upstream: u.URI(), Weight: u.Weight, Backup: u.Backup, Checked: g.check.Kind, Health: u.Health()}
			if u.Off {
				info.Weight = 0
			}
			list = append(list, info)
		}
	}
	return list
}
