package inspect

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/internal/proxy"
)

// The header contract of WsProxy.
const (
	headerPrefix = "X-Wsproxy-"

	headerUpstream = headerPrefix + "Upstream"
	headerInbound  = headerPrefix + "Inboundhook"
	headerOutbound = headerPrefix + "Outboundhook"
	headerCompress = headerPrefix + "Compress"
	headerIdle     = headerPrefix + "Idletimeout"
	headerMaxFrame = headerPrefix + "Maxframesize"
	headerUTF8     = headerPrefix + "Validateutf8"

	headerModeIdle     = 60 * time.Second
	headerModeMaxFrame = 2048
	headerModeTimeout  = 15 * time.Second // of a hook

	longestIdle = 30 * 24 * time.Hour
)

// wish is what the headers of a trusted peer ask for.
type wish struct {
	upstream          *proxy.Upstream
	inbound, outbound *Hook
	idle              time.Duration
	maxFrame          int64
	compress          bool
	validateUTF8      bool
}

// asksByHeaders reports whether a request has headers of the contract.
func asksByHeaders(h http.Header) bool {
	for name := range h {
		if strings.HasPrefix(name, headerPrefix) {
			return true
		}
	}
	return false
}

// parseWish reads the x-wsproxy-* headers. What WsProxy answers with 500, or
// takes silently for something else, is an error here, fit for the client to read.
// Unknown names are ignored as there. maxFrame bounds what may be asked for; 0: no bound.
func parseWish(h http.Header, maxFrame int64) (w wish, err error) {
	for name, values := range h {
		if strings.HasPrefix(name, headerPrefix) && len(values) != 1 {
			return w, fmt.Errorf("%s is there twice", strings.ToLower(name))
		}
	}
	upstream, ok := option(h, headerUpstream)
	if !ok {
		return w, errors.New("x-wsproxy-upstream is missing")
	}
	if w.upstream, err = wishedTarget(upstream); err != nil {
		return w, fmt.Errorf("x-wsproxy-upstream: %w", err)
	}
	if w.inbound, err = wishedHook(h, headerInbound); err != nil {
		return w, err
	}
	if w.outbound, err = wishedHook(h, headerOutbound); err != nil {
		return w, err
	}
	if w.compress, err = wishedBool(h, headerCompress); err != nil {
		return w, err
	}
	if w.validateUTF8, err = wishedBool(h, headerUTF8); err != nil {
		return w, err
	}
	millis, err := wishedNumber(h, headerIdle, headerModeIdle.Milliseconds(), longestIdle.Milliseconds())
	if err != nil {
		return w, err
	}
	w.idle = time.Duration(millis) * time.Millisecond
	if maxFrame == 0 {
		maxFrame = 1 << 40
	}
	w.maxFrame, err = wishedNumber(h, headerMaxFrame, min(headerModeMaxFrame, maxFrame), maxFrame)
	return w, err
}

// option returns the value of a header that is there at most once.
func option(h http.Header, name string) (value string, ok bool) {
	if len(h[name]) == 0 {
		return "", false
	}
	return strings.Trim(h[name][0], " \t"), true
}

// wishedTarget reads a URL of which scheme, host and port count: path and query
// are those of the client's request.
func wishedTarget(s string) (*proxy.Upstream, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Opaque != "" {
		return nil, errors.New("want scheme://host[:port]")
	}
	if u.User != nil {
		return nil, errors.New("a user in the URL is not supported")
	}
	up, err := proxy.ParseUpstream(strings.ToLower(u.Scheme) + "://" + u.Host)
	if err != nil {
		return nil, errors.New("want ws, wss, http or https, a host, and a port from 1 to 65535 if any")
	}
	return up, nil
}

func wishedHook(h http.Header, name string) (*Hook, error) {
	label := strings.ToLower(name)
	method, err := wishedMethod(h, name+"-Method")
	if err != nil {
		return nil, err
	}
	list, _ := option(h, name+"-Headers")
	fields, err := parseFields(list)
	if err != nil {
		return nil, fmt.Errorf("%s-headers: %w", label, err)
	}
	text, ok := option(h, name)
	if !ok {
		return nil, nil // its other headers alone mean nothing
	}
	u, err := wishedTarget(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", label, err)
	}
	if scheme, _, _ := strings.Cut(text, ":"); !strings.HasPrefix(strings.ToLower(scheme), "http") {
		return nil, fmt.Errorf("%s: want http or https", label)
	}
	hook := &Hook{Method: method, Headers: fields, Timeout: headerModeTimeout, to: u}
	return hook.ready(label)
}

// methods are those that WsProxy knows.
var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}

func wishedMethod(h http.Header, name string) (string, error) {
	text, ok := option(h, name)
	if !ok {
		return http.MethodPost, nil
	}
	method := strings.ToUpper(text)
	if !slices.Contains(methods, method) {
		return "", fmt.Errorf("%s: want get, post, put, patch, delete, head or options", strings.ToLower(name))
	}
	return method, nil
}

// parseFields reads "name=value,name=value". A value ends at the comma and may
// hold '='; nothing is quoted.
func parseFields(list string) (http.Header, error) {
	var fields http.Header
	for part := range strings.SplitSeq(list, ",") {
		if part = strings.Trim(part, " \t"); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
		if !ok {
			return nil, errors.New("want name=value,name=value")
		}
		if err := checkField(name, value); err != nil {
			return nil, err
		}
		if fields == nil {
			fields = make(http.Header)
		}
		fields.Add(name, value)
	}
	return fields, nil
}

func wishedBool(h http.Header, name string) (bool, error) {
	text, ok := option(h, name)
	switch {
	case !ok, text == "false":
		return false, nil
	case text == "true":
		return true, nil
	}
	return false, fmt.Errorf("%s: want true or false", strings.ToLower(name))
}

func wishedNumber(h http.Header, name string, unset, most int64) (int64, error) {
	text, ok := option(h, name)
	if !ok {
		return unset, nil
	}
	n, err := strconv.ParseUint(text, 10, 62)
	if err != nil || n == 0 || n > uint64(most) {
		return 0, fmt.Errorf("%s: want a whole number from 1 to %d", strings.ToLower(name), most)
	}
	return int64(n), nil
}
