package proxy

import (
	"context"
	"log/slog"
	"time"
)

// A Trace collects what a room learns about a request, for the access log. It
// travels in the request's context and belongs to the goroutine that serves the
// request. A nil Trace takes everything and keeps nothing, so that nobody asks
// whether there is an access log.
type Trace struct {
	// About describes the request as it arrived, without credentials, for rooms
	// that write lines of their own.
	About []slog.Attr

	own      bool
	result   string
	upstream string
	attempts int
	phases   []slog.Attr
}

type traceKey struct{}

// WithTrace returns a context that carries t.
func WithTrace(ctx context.Context, t *Trace) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceOf returns the Trace of a request's context, or nil.
func TraceOf(ctx context.Context) *Trace {
	t, _ := ctx.Value(traceKey{}).(*Trace)
	return t
}

// Try begins an attempt on an upstream; the phases of the one before are forgotten.
func (t *Trace) Try(upstream string) {
	if t != nil {
		t.upstream, t.attempts, t.phases = upstream, t.attempts+1, t.phases[:0]
	}
}

// Phase notes how long a part of an attempt took: "dial", "tls" or "answer".
func (t *Trace) Phase(name string, took time.Duration) {
	if t != nil {
		t.phases = append(t.phases, slog.Duration(name, took))
	}
}

// End says why a request went no further.
func (t *Trace) End(result string) {
	if t != nil {
		t.result = result
	}
}

// Outcome is the upstream that was asked last, "" for none, and why the request
// went no further, "" when it did or the upstream said so itself.
func (t *Trace) Outcome() (upstream, result string) {
	if t == nil {
		return "", ""
	}
	return t.upstream, t.result
}

// Take says that a room writes its own lines about the request, and returns what
// there is to say in the first of them.
func (t *Trace) Take() []slog.Attr {
	if t == nil {
		return nil
	}
	t.own = true
	return append(t.About, t.phases...)
}

// Taken reports whether Take was called.
func (t *Trace) Taken() bool { return t != nil && t.own }

// Attrs are the upstream, the phases and the result, for the line of a request.
func (t *Trace) Attrs() []slog.Attr {
	if t == nil {
		return nil
	}
	var attrs []slog.Attr
	if t.upstream != "" {
		attrs = append(attrs, slog.String("upstream", t.upstream))
	}
	if t.attempts > 1 {
		attrs = append(attrs, slog.Int("attempts", t.attempts))
	}
	attrs = append(attrs, t.phases...)
	if t.result != "" {
		attrs = append(attrs, slog.String("result", t.result))
	}
	return attrs
}
