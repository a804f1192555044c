package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/accesslog"
	"github.com/turngate/turngate/internal/proxy"
)

// The access log shows what is known to be harmless and nothing else: of the
// query, the parameters listed here; of the header, two fields. Everything else
// may be somebody's login.

// shownParameters are the parameters of a query that are shown, compared without
// case. userSig, token, apiKey and the like are credentials.
var shownParameters = []string{"sdkAppId", "userId", "cmdtype", "signalDomain", "user", "sessionId"}

// newAccessLog makes the lines of the access log: JSON, times in seconds.
func newAccessLog(w interface{ Write([]byte) (int, error) }) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		switch {
		case len(groups) == 0 && a.Key == slog.LevelKey:
			return slog.Attr{}
		case a.Value.Kind() == slog.KindDuration:
			a.Value = slog.Float64Value(a.Value.Duration().Round(time.Microsecond).Seconds())
		}
		return a
	}}))
}

// accessTarget is a target that a plan changes to; a nil one is none.
type accessTarget struct{ target *accesslog.Target }

// openAccess opens the access log of a plan, nil when it is the one that is open.
func (a *app) openAccess(p *plan) (*accessTarget, error) {
	old := a.plan.Load()
	name := p.cfg.Log.Access
	if old == nil && name == "" || old != nil && old.cfg.Log.Access == name {
		return nil, nil
	}
	if name == "" {
		return &accessTarget{}, nil
	}
	target, err := accesslog.Open(name, os.Stdout)
	if err != nil {
		return nil, fmt.Errorf("%w; write another log.access, or make the directory for it", err)
	}
	return &accessTarget{target}, nil
}

func (a *app) swapAccess(next *accessTarget) {
	if next != nil {
		a.accessLog.Use(next.target)
	}
}

// follow makes a request tell what becomes of it.
func (v *visit) follow(r *http.Request) *http.Request {
	v.trace = &proxy.Trace{About: about(r)}
	r = r.WithContext(proxy.WithTrace(r.Context(), v.trace))
	if r.Body != nil && r.Body != http.NoBody {
		v.body = &countedBody{ReadCloser: r.Body}
		r.Body = v.body
	}
	return r
}

// about describes a request without credentials.
func about(r *http.Request) []slog.Attr {
	attrs := []slog.Attr{slog.String("proto", r.Proto)}
	if peer := proxy.Peer(r); peer.IsValid() {
		attrs = append(attrs, slog.String("peer", peer.String()))
	}
	if r.TLS != nil && r.TLS.ServerName != "" {
		attrs = append(attrs, slog.String("sni", shown(r.TLS.ServerName)))
	}
	attrs = append(attrs, slog.String("host", shown(r.Host)), slog.String("method", shown(r.Method)))
	if path, query, err := proxy.SplitTarget(proxy.RawTarget(r)); err == nil {
		attrs = append(attrs, slog.String("path", shown(first(path))))
		var params []any
		for _, name := range shownParameters {
			if value, n := proxy.QueryValue(query, name); n > 0 {
				params = append(params, slog.String(name, shown(first(value))))
			}
		}
		attrs = append(attrs, slog.Group("query", params...)) // none is no group
	}
	for _, f := range []struct{ name, field string }{{"origin", "Origin"}, {"agent", "User-Agent"}} {
		if value := r.Header.Get(f.field); value != "" {
			attrs = append(attrs, slog.String(f.name, shown(value)))
		}
	}
	return attrs
}

// first is a path or a value up to where, by a mistake in its encoding or for a server with
// other separators, further parameters could follow.
func first(s string) string {
	end := len(s)
	for _, mark := range []string{"?", "&", ";", "%3f", "%3F", "%26", "%3b", "%3B"} {
		if i := strings.Index(s[:end], mark); i >= 0 {
			end = i
		}
	}
	if end < len(s) {
		return s[:end] + "..."
	}
	return s
}

// shownLength is how much of one value a line shows.
const shownLength = 256

// shown is a stranger's text as it may stand in a log: cut, and in printable ASCII,
// everything else escaped as in Go. JSON alone would let DEL, the C1 control
// bytes and marks that turn the reading direction pass.
func shown(s string) string {
	cut := len(s) > shownLength
	s = s[:min(len(s), shownLength)]
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
		q := strconv.QuoteToASCII(s)
		s = strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(q[1 : len(q)-1])
	}
	if cut {
		s += "..."
	}
	return s
}

// log writes the line of a request that no room wrote one for.
func (v *visit) log(took time.Duration, broken bool) {
	if v.trace.Taken() {
		return
	}
	attrs := append([]slog.Attr{slog.String("route", v.place.name), slog.Any("client", v.client)}, v.trace.About...)
	status := v.status
	if v.taken != nil {
		status = http.StatusSwitchingProtocols
	}
	attrs = append(attrs, slog.Int("status", status))
	attrs = append(attrs, v.trace.Attrs()...)
	if broken {
		attrs = append(attrs, slog.Bool("aborted", true))
	}
	attrs = append(attrs, slog.Duration("duration", took))
	if v.body != nil {
		attrs = append(attrs, slog.Int64("bytesIn", v.body.read.Load()))
	}
	attrs = append(attrs, slog.Int64("bytesOut", v.sent))
	v.access.LogAttrs(context.Background(), slog.LevelInfo, "request", attrs...)
}
