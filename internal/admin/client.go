package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
)

// ErrNotRunning means that nobody serves the socket.
var ErrNotRunning = errors.New("no turngate is running")

// Client talks to a running turngate. It may be used by many goroutines at once.
type Client struct {
	socket string
	http   *http.Client
}

// Dial returns a client for the turngate at socket after making sure that
// there is one. The error wraps ErrNotRunning when there is none and
// fs.ErrPermission when the caller may not talk to it; both say what to do.
func Dial(socket string) (*Client, error) {
	c := &Client{socket: socket}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	c.http = &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	conn, err := dial(context.Background(), "", "")
	if err != nil {
		return nil, c.explain(err)
	}
	conn.Close()
	return c, nil
}

// Do sends in as JSON (nil: no body) and decodes the answer into out (nil: the
// body is dropped). A refusal is an *Error.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if out == nil {
		_, err := io.Copy(io.Discard, body)
		return err
	}
	if err := json.NewDecoder(body).Decode(out); err != nil && err != io.EOF { // EOF: 204
		return fmt.Errorf("answer to %s %s: %w", method, path, err)
	}
	return nil
}

// Get returns the body of a GET as it comes (metrics, profiles). The caller
// closes it.
func (c *Client) Get(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.open(ctx, http.MethodGet, path, nil)
}

func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://turngate"+path, body)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		defer res.Body.Close()
		return nil, readError(res)
	}
	return res.Body, nil
}

// readError makes an *Error of an answer, also of one that is no JSON (an
// older or newer turngate, another program).
func readError(res *http.Response) error {
	const maxBytes = 1 << 20
	b, err := io.ReadAll(io.LimitReader(res.Body, maxBytes))
	if err != nil {
		return err
	}
	e := &Error{Status: res.StatusCode}
	if json.Unmarshal(b, e) != nil || e.Message == "" {
		e.Message = res.Status
		if text := bytes.TrimSpace(b); len(text) > 0 && len(text) < 200 {
			e.Message += ": " + string(text)
		}
	}
	return e
}

func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w at %s: start it (systemctl start turngate), or name the socket of the one that runs", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the turngate at %s does not talk to this user: use sudo, or join the socket's group: %w", c.socket, fs.ErrPermission)
	}
	return fmt.Errorf("turngate at %s: %w", c.socket, err)
}
