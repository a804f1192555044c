package logger

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The front of the log route speaks h2 as well: deadlines then belong to a stream.
func TestReportsOverHTTP2(t *testing.T) {
	u, got := recorder(t, nil)
	rt := to(u)
	rt.MaxBody = 1 << 20
	stalling := rt
	stalling.Path, stalling.ReadTimeout = "/stalling/", 200*time.Millisecond
	s, err := New(Options{Routes: []Route{rt, stalling}})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewUnstartedServer(s)
	front.EnableHTTP2 = true
	front.StartTLS()
	t.Cleanup(func() { front.Close(); s.Close() })
	client := front.Client()
	post := func(target string, body io.Reader) *http.Response {
		t.Helper()
		resp, err := client.Post(front.URL+target, "text/plain", body)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.ProtoMajor != 2 {
			t.Errorf("%s, want h2", resp.Proto)
		}
		return resp
	}
	for _, size := range []int{0, 10, smallBody + 1} {
		resp := post("/logger//v5/x?a=*", strings.NewReader(strings.Repeat("x", size)))
		if s := <-got; resp.StatusCode != 200 || s.uri != "/v5/x?a=*" || len(s.body) != size {
			t.Errorf("a body of %d: answer %d, upstream got %s with %d bytes", size, resp.StatusCode, s.uri, len(s.body))
		}
	}
	if resp := post("/logger/", io.LimitReader(zeros{}, 1<<20+1)); resp.StatusCode != 413 {
		t.Errorf("a body over the limit: answer %d, want 413", resp.StatusCode)
	}
	pr, pw := io.Pipe()
	go func() { _, _ = io.WriteString(pw, "x") }()
	if resp := post("/stalling/", pr); resp.StatusCode != 408 {
		t.Errorf("a body that stalls: answer %d, want 408", resp.StatusCode)
	}
	pw.Close()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
