package admin

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var discard = slog.New(slog.DiscardHandler)

// start serves opts until the test ends; register may add handlers.
func start(t *testing.T, opts Options, register func(*Server)) (socket string, stop func()) {
	t.Helper()
	if opts.Socket == "" {
		opts.Socket = filepath.Join(t.TempDir(), "run", "admin.sock")
	}
	opts.Log = discard
	s := New(opts)
	if register != nil {
		register(s)
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve returned %v, want nil", err)
		}
	})
	t.Cleanup(stop)
	return opts.Socket, stop
}

func dial(t *testing.T, socket string) *Client {
	t.Helper()
	c, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRequestsAndAnswers(t *testing.T) {
	type kick struct{ Session string }
	findings := []Finding{
		{Severity: "error", File: "turngate.toml", Line: 41, Key: "turn.max_port", What: "20000 is below min_port 30000", Fix: "swap the two values"},
		{What: "another"},
	}
	socket, _ := start(t, Options{}, func(s *Server) {
		s.Handle("POST "+PathKick, JSON(func(r *http.Request) (any, error) {
			var in kick
			if err := Read(r, &in); err != nil {
				return nil, err
			}
			return map[string]string{"kicked": in.Session}, nil
		}))
		s.Handle("POST "+PathReload, JSON(func(*http.Request) (any, error) {
			return nil, Refused("the configuration has 2 findings", findings)
		}))
		s.Handle("POST "+PathDrain, JSON(func(*http.Request) (any, error) { return nil, nil }))
		s.Handle("GET "+PathStatus, JSON(func(*http.Request) (any, error) { return nil, errors.New("no idea") }))
		s.Handle("GET "+PathSessions, JSON(func(*http.Request) (any, error) { return make(chan int), nil }))
	})
	c, ctx := dial(t, socket), t.Context()

	var out map[string]string
	if err := c.Do(ctx, "POST", PathKick, kick{"s1"}, &out); err != nil || out["kicked"] != "s1" {
		t.Errorf("kick: %v, %v; want s1 kicked", out, err)
	}
	if err := c.Do(ctx, "POST", PathDrain, nil, &out); err != nil {
		t.Errorf("an answer without body: %v", err)
	}

	err := c.Do(ctx, "POST", PathReload, nil, nil)
	var refused *Error
	if !errors.As(err, &refused) {
		t.Fatalf("reload: %v, want an *Error", err)
	}
	want := &Error{Status: 422, Message: "the configuration has 2 findings", Findings: findings}
	if diff := cmp.Diff(want, refused); diff != "" {
		t.Errorf("reload's findings (-want +got):\n%s", diff)
	}
	if want := "the configuration has 2 findings\nturngate.toml:41: error: turn.max_port: 20000 is below min_port 30000; swap the two values\nanother"; err.Error() != want {
		t.Errorf("error reads\n%s\nwant\n%s", err, want)
	}

	for _, bad := range []struct {
		name, method, path string
		in                 any
		status             int
		want               string
	}{
		{"an unknown path", "GET", "/v1/nothing", nil, 404, "no such thing: GET /v1/nothing"},
		{"an unknown field", "POST", PathKick, map[string]string{"sesion": "s1"}, 400, "sesion"},
		{"no body", "POST", PathKick, nil, 400, "request body"},
		{"an error of the handler", "GET", PathStatus, nil, 500, "no idea"},
		{"an answer without JSON form", "GET", PathSessions, nil, 500, "no JSON form"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			err := c.Do(ctx, bad.method, bad.path, bad.in, &out)
			var e *Error
			if !errors.As(err, &e) || e.Status != bad.status || !strings.Contains(e.Message, bad.want) {
				t.Errorf("%#v, want status %d with %q", err, bad.status, bad.want)
			}
		})
	}
}

func TestMetricsAndProfiles(t *testing.T) {
	socket, _ := start(t, Options{Gatherer: NewRegistry("1.2.3")}, nil)
	c := dial(t, socket)
	for path, want := range map[string]string{
		PathMetrics:                   `turngate_build_info{version="1.2.3"} 1`,
		PathPprof:                     "goroutine",
		PathPprof + "heap?debug=1":    "heap profile",
		PathPprof + "cmdline":         os.Args[0],
		PathPprof + "trace?seconds=0": "go 1.",
	} {
		body, err := c.Get(t.Context(), path)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		b, _ := io.ReadAll(body)
		body.Close()
		if !strings.Contains(string(b), want) {
			t.Errorf("%s: %.200q, want %q in it", path, b, want)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale.sock")
	leaveStale(t, stale)
	for name, socket := range map[string]string{
		"no socket":                    filepath.Join(dir, "none.sock"),
		"the socket of a dead process": stale,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(socket)
			if !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), socket) {
				t.Errorf("%v, want ErrNotRunning that names %s", err, socket)
			}
		})
	}
	t.Run("gone after Dial", func(t *testing.T) {
		socket, stop := start(t, Options{}, nil)
		c := dial(t, socket)
		stop()
		if err := c.Do(t.Context(), "GET", PathStatus, nil, nil); !errors.Is(err, ErrNotRunning) {
			t.Errorf("%v, want ErrNotRunning", err)
		}
	})
	t.Run("not allowed", func(t *testing.T) {
		c := &Client{socket: "/run/x.sock"}
		err := c.explain(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)})
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "sudo") {
			t.Errorf("%v, want a permission error with the way out", err)
		}
	})
}

func TestSocketIsPrivate(t *testing.T) {
	for _, c := range []struct {
		name string
		opts Options
		want fs.FileMode
	}{
		{"by default", Options{}, 0o600},
		{"with a mode", Options{Mode: 0o660}, 0o660},
	} {
		t.Run(c.name, func(t *testing.T) {
			socket, stop := start(t, c.opts, nil)
			info, err := os.Stat(socket)
			if err != nil || info.Mode().Perm() != c.want {
				t.Errorf("mode %v (%v), want %v", info.Mode().Perm(), err, c.want)
			}
			stop()
			if left, _ := os.ReadDir(filepath.Dir(socket)); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	t.Run("an unknown group is an error", func(t *testing.T) {
		s := New(Options{Socket: filepath.Join(t.TempDir(), "a.sock"), Group: "no-such-group-here"})
		if err := s.Listen(); err == nil {
			s.Close()
			t.Error("no error")
		}
	})
	t.Run("a path too long for a socket is an error that says so", func(t *testing.T) {
		s := New(Options{Socket: filepath.Join(t.TempDir(), strings.Repeat("x", 100))})
		if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "bytes") {
			t.Errorf("%v, want an error about the length", err)
		}
	})
}

func TestWhatMayBeReplaced(t *testing.T) {
	t.Run("the socket of a dead process", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.sock")
		leaveStale(t, path)
		socket, _ := start(t, Options{Socket: path}, nil)
		dial(t, socket)
	})
	t.Run("not a living one's", func(t *testing.T) {
		socket, _ := start(t, Options{}, nil)
		err := New(Options{Socket: socket}).Listen()
		if !errors.Is(err, ErrInUse) {
			t.Errorf("%v, want ErrInUse", err)
		}
		dial(t, socket) // the first still answers
	})
	t.Run("not a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.sock")
		os.WriteFile(path, []byte("precious"), 0o600)
		if err := New(Options{Socket: path}).Listen(); err == nil || !strings.Contains(err.Error(), "no socket") {
			t.Errorf("%v, want that it is no socket", err)
		}
		if b, _ := os.ReadFile(path); string(b) != "precious" {
			t.Errorf("the file holds %q now", b)
		}
	})
	t.Run("closing leaves the successor's alone", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.sock")
		first := New(Options{Socket: path})
		if err := first.Listen(); err != nil {
			t.Fatal(err)
		}
		os.Remove(path)
		start(t, Options{Socket: path}, nil)
		first.Close()
		dial(t, path)
	})
	t.Run("of many that start at once, one gets it", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "a.sock")
		leaveStale(t, path)
		var mu sync.Mutex
		var won []*Server
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				s := New(Options{Socket: path})
				switch err := s.Listen(); {
				case err == nil:
					mu.Lock()
					won = append(won, s)
					mu.Unlock()
				case !errors.Is(err, ErrInUse):
					t.Errorf("a loser got %v, want ErrInUse", err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Errorf("%d servers got the socket, want one", len(won))
		}
		for _, s := range won {
			s.Close()
		}
	})
}

// A handler that waits, as a drain does, ends with the server.
func TestEndOfServeEndsHandlers(t *testing.T) {
	inside := make(chan struct{})
	socket, stop := start(t, Options{}, func(s *Server) {
		s.Handle("POST "+PathDrain, JSON(func(r *http.Request) (any, error) {
			close(inside)
			<-r.Context().Done()
			return nil, context.Cause(r.Context())
		}))
	})
	c := dial(t, socket)
	answer := make(chan error, 1)
	go func() { answer <- c.Do(context.Background(), "POST", PathDrain, nil, nil) }()
	<-inside
	stop()
	var e *Error
	if err := <-answer; !errors.As(err, &e) {
		t.Errorf("the waiting request got %v, want an answer", err)
	}
}

// leaveStale makes a socket that nobody serves, as a killed process leaves it.
func leaveStale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
}
