package inspect

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/turngate/turngate/internal/proxy"
)

// What happens to a message for which no verdict can be had.
const (
	OnErrorClose   = "close"   // the session ends with 1011
	OnErrorForward = "forward" // it passes uninspected
)

// What happens to binary messages in a direction with a hook.
const (
	BinaryDeny    = "deny" // the session ends with 1008
	BinaryForward = "forward"
	BinaryHook    = "hook"
)

// Defaults of a Hook.
const (
	DefaultInFlight    = 32
	DefaultConcurrency = 100
	DefaultTimeout     = 5 * time.Second
	DefaultMaxAnswer   = 1 << 20
	DefaultBatchDelay  = 5 * time.Millisecond
)

// A Hook decides about the messages of one direction. The zero value of a field
// means its default.
type Hook struct {
	URL     string // http or https; with ByHeaders its path and query are the client's
	Method  string // POST
	Headers http.Header

	Timeout time.Duration // of one request, waiting for its turn included
	OnError string        // OnErrorClose

	InFlight    int // requests of one direction of one connection that may be unanswered
	Concurrency int // requests at once, of all connections

	Binary    string // BinaryDeny
	Rewrite   bool   // the hook may replace and drop messages
	MaxAnswer int64  // bytes of an answer that is read: with Rewrite, or of a batch

	// With BatchMessages above 1, so many messages, or those of BatchDelay, go in
	// one request as a JSON list.
	BatchMessages int
	BatchDelay    time.Duration

	Keys []Key // every one signs; empty: no signature

	to     *proxy.Upstream
	target string // "": that of the client's request
}

// A Key signs requests to a hook.
type Key struct {
	ID     string // letters, digits, '.', '_' and '-'
	Secret []byte
}

// ready returns a copy with defaults filled in, checked. A nil Hook stays nil.
func (h *Hook) ready(label string) (*Hook, error) {
	if h == nil {
		return nil, nil
	}
	r := *h
	fail := func(format string, args ...any) (*Hook, error) {
		return nil, fmt.Errorf("%s: "+format, append([]any{label}, args...)...)
	}
	if r.to == nil {
		u, err := url.Parse(r.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Fragment != "" {
			return fail("the hook is no http or https URL, without user and fragment")
		}
		if r.to, err = proxy.ParseUpstream(u.Scheme + "://" + u.Host); err != nil {
			return fail("%w", err)
		}
		r.target = u.RequestURI()
	}
	fill(&r.Method, http.MethodPost)
	fill(&r.Timeout, DefaultTimeout)
	fill(&r.OnError, OnErrorClose)
	fill(&r.InFlight, DefaultInFlight)
	fill(&r.Concurrency, DefaultConcurrency)
	fill(&r.Binary, BinaryDeny)
	fill(&r.MaxAnswer, DefaultMaxAnswer)
	fill(&r.BatchMessages, 1)
	fill(&r.BatchDelay, DefaultBatchDelay)
	switch {
	case !slices.Contains(methods, r.Method):
		return fail("method %q is not known", r.Method)
	case r.OnError != OnErrorClose && r.OnError != OnErrorForward:
		return fail("on error %q is not known", r.OnError)
	case !slices.Contains([]string{BinaryDeny, BinaryForward, BinaryHook}, r.Binary):
		return fail("binary %q is not known", r.Binary)
	case r.Timeout < 0, r.BatchDelay < 0, r.InFlight < 0, r.Concurrency < 0, r.MaxAnswer < 0, r.BatchMessages < 0:
		return fail("a number is negative")
	case r.Method == http.MethodHead && (r.Rewrite || r.BatchMessages > 1):
		return fail("an answer to HEAD has no body to rewrite with or to list verdicts in")
	}
	for name, values := range r.Headers {
		for _, v := range values {
			if err := checkField(name, v); err != nil {
				return fail("%w", err)
			}
		}
	}
	for _, k := range r.Keys {
		if !validKeyID(k.ID) || len(k.Secret) == 0 {
			return fail("key %q: want an id of letters, digits, '.', '_' and '-', and a secret", k.ID)
		}
	}
	return &r, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func validKeyID(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-", c)
	})
}

// checkField checks a header field for requests to a hook: one that frames the
// request, or that we write ourselves, is refused.
func checkField(name, value string) error {
	key := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case !proxy.ValidName(name):
		return errors.New("a field name is not a token")
	case !proxy.ValidValue(value):
		return fmt.Errorf("the value of %s has a control byte", key)
	case slices.Contains([]string{"Host", "Connection", "Content-Length", "Transfer-Encoding", "Te", "Trailer", "Upgrade",
		"Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Expect"}, key), strings.HasPrefix(key, "X-Turngate-"):
		return fmt.Errorf("%s cannot be set", key)
	}
	return nil
}

// A caller asks a hook about the messages of one flow.
type caller struct {
	hook      *Hook
	client    *proxy.Client
	gate      *gate
	counters  *hookCounters
	direction string
	key       string // of the connection
	route     string
	peer      netip.Addr
	target    string
}

// A hookError is why there is no verdict.
type hookError struct {
	cause string // a label for metrics: busy, breaker, timeout, answer, or a proxy.Cause
	err   error
}

func (e *hookError) Error() string { return e.cause + ": " + e.err.Error() }
func (e *hookError) Unwrap() error { return e.err }

// failure is what a client hears.
func failure(err error) string {
	var he *hookError
	if errors.As(err, &he) && he.cause == "timeout" {
		return "hook timed out"
	}
	return "hook failed"
}

var (
	errBreaker = &hookError{"breaker", errors.New("not asked: it failed too often")}
	errBusy    = &hookError{"busy", errors.New("no free request in time")}
)

// ask gives every message its verdict, or returns why there is none. It returns
// when the verdict is known; an answer's body is then read to its end in peace.
func (c *caller) ask(session context.Context, messages []*message) error {
	ctx, cancel := context.WithTimeout(session, c.hook.Timeout)
	release := cancel
	defer func() { release() }()

	if err := c.gate.enter(ctx); err != nil {
		return c.failed(session, err)
	}
	release = func() { c.gate.leave(); cancel() }
	trial, err := c.gate.ask(time.Now())
	if err != nil {
		return c.failed(session, err)
	}
	c.counters.calls.Inc()
	start := time.Now()
	resp, err := c.client.RoundTrip(c.hook.to, c.request(ctx, messages), nil)
	c.counters.calls.Dec()
	if err == nil {
		err = c.judge(resp, messages)
	}
	took := time.Since(start)
	if session.Err() != nil {
		c.gate.nothing(trial)
	} else {
		c.counters.seconds.Observe(took.Seconds())
		c.gate.answered(err == nil, time.Now())
	}
	if resp != nil {
		done := release
		release = func() {}
		go func() { // ends with the context at the latest
			defer done()
			_, _ = io.CopyN(io.Discard, resp.Body, 16<<10)
			resp.Body.Close()
		}()
	}
	if err != nil {
		return c.failed(session, classify(ctx, err))
	}
	return nil
}

// failed counts an error, unless the session ended under it.
func (c *caller) failed(session context.Context, err error) error {
	var he *hookError
	if session.Err() == nil && errors.As(err, &he) {
		c.counters.errors(he.cause)
	}
	return err
}

func classify(ctx context.Context, err error) error {
	var he *hookError
	switch {
	case errors.As(err, &he):
		return err
	case ctx.Err() != nil, errors.Is(err, os.ErrDeadlineExceeded):
		return &hookError{"timeout", err}
	case errors.Is(err, errTarget):
		return &hookError{"target", err}
	}
	return &hookError{string(proxy.Classify(err)), err}
}

// request makes the request for messages: one as it is, several as a list.
func (c *caller) request(ctx context.Context, messages []*message) *http.Request {
	first := messages[0]
	body, kind, opcode := first.data, "text/plain; charset=utf-8", first.opcode()
	if first.kind == websocket.BinaryMessage {
		kind = "application/octet-stream"
	}
	if c.hook.BatchMessages > 1 {
		body, kind, opcode = encodeBatch(messages), "application/json", "batch"
	}
	h := http.Header{"Content-Type": {kind}, "User-Agent": {"turngate"}}
	maps.Copy(h, c.hook.Headers)
	seq := strconv.FormatUint(first.seq, 10)
	h["X-Turngate-Connection"] = []string{c.key}
	h["X-Turngate-Direction"] = []string{c.direction}
	h["X-Turngate-Seq"] = []string{seq}
	h["X-Turngate-Client-Ip"] = []string{c.peer.String()}
	h["X-Turngate-Route"] = []string{c.route}
	h["X-Turngate-Opcode"] = []string{opcode}
	if len(c.hook.Keys) > 0 {
		h["X-Turngate-Signature"] = []string{sign(c.hook.Keys, time.Now(), c.key, c.direction, seq, body)}
	}
	// A kept connection may end at the moment it is used again. The request then
	// goes out once more on another one; net/http does so only for what says that it
	// may be repeated, and does not send this.
	h["Idempotency-Key"] = nil
	req := &http.Request{
		Method:        c.hook.Method,
		URL:           c.hook.to.URL(c.target),
		Host:          c.hook.to.HostHeader(),
		Header:        h,
		Body:          io.NopCloser(bytes.NewReader(body)),
		GetBody:       func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
		ContentLength: int64(len(body)),
		Proto:         "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if len(body) == 0 {
		req.Body, req.GetBody = http.NoBody, nil
	}
	return req.WithContext(ctx)
}

// sign returns "t=SECONDS,keyid=ID,sha256=HEX" with a pair for each key. Signed is
// "SECONDS\nCONNECTION\nDIRECTION\nSEQ\n" and the body.
func sign(keys []Key, now time.Time, connection, direction, seq string, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	out := "t=" + t
	for _, k := range keys {
		m := hmac.New(sha256.New, k.Secret)
		_, _ = io.WriteString(m, t+"\n"+connection+"\n"+direction+"\n"+seq+"\n")
		_, _ = m.Write(body)
		out += ",keyid=" + k.ID + ",sha256=" + hex.EncodeToString(m.Sum(nil))
	}
	return out
}

// judge reads the answer. The status decides; a body counts only where the route
// says so.
func (c *caller) judge(resp *http.Response, messages []*message) error {
	v := verdictDeny
	if resp.StatusCode >= 200 && resp.StatusCode <= 204 {
		v = verdictForward
	}
	for _, m := range messages {
		m.verdict = v
	}
	if v == verdictDeny {
		return nil
	}
	if c.hook.BatchMessages > 1 {
		body, err := c.body(resp)
		if err != nil {
			return err
		}
		return decodeBatch(body, messages, c.hook.Rewrite, c.hook.MaxAnswer)
	}
	if !c.hook.Rewrite {
		return nil
	}
	switch action := resp.Header.Get("X-Turngate-Action"); {
	case action == "", action == "forward":
	case action == "drop":
		messages[0].verdict = verdictDrop
	case action == "replace" && resp.StatusCode == http.StatusOK:
		body, err := c.body(resp)
		if err != nil {
			return err
		}
		return messages[0].replace(body, c.hook.MaxAnswer)
	default:
		return &hookError{"answer", errors.New("has an unknown action")}
	}
	return nil
}

func (c *caller) body(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, c.hook.MaxAnswer+1))
	if err == nil && int64(len(body)) > c.hook.MaxAnswer {
		err = &hookError{"answer", errors.New("is too large")}
	}
	return body, err
}
