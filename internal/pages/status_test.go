package pages

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestTheStatusPageIsForThisHostOnly(t *testing.T) {
	page := NewStatus(NewRecorder(func() map[string]float64 { return nil }), func() any { return map[string]int{"pid": 7} })
	for _, c := range []struct {
		name, method, host, path string
		want                     int
	}{
		{"an address", "GET", "127.0.0.1:9642", "/", 200},
		{"an IPv6 address", "GET", "[::1]:9642", "/data", 200},
		{"localhost", "GET", "localhost:9642", "/data", 200},
		{"localhost in capitals with a final dot", "GET", "LOCALHOST.:9642", "/status.js", 200},
		{"a name that leads here", "GET", "rebind.example:9642", "/data", 421},
		{"a name that begins like an address", "GET", "127.0.0.1.rebind.example", "/data", 421},
		{"a name that ends like ours", "GET", "x.localhost", "/data", 421},
		{"no host", "GET", "", "/data", 421},
		{"something else than reading", "POST", "127.0.0.1", "/data", 405},
		{"a file of the other page", "GET", "127.0.0.1", "/check.js", 404},
		{"metrics", "GET", "127.0.0.1", "/metrics", 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, "http://x"+c.path, http.NoBody)
			r.Host = c.host
			w := httptest.NewRecorder()
			page.ServeHTTP(w, r)
			if w.Code != c.want {
				t.Errorf("got %d, want %d", w.Code, c.want)
			}
			if csp := w.Header().Get("Content-Security-Policy"); !strings.Contains(csp, "connect-src 'self';") || w.Header().Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("headers %v", w.Header())
			}
			if c.want == 200 && c.path == "/data" {
				var got struct{ Status map[string]int }
				if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Status["pid"] != 7 {
					t.Errorf("data is %s (%v)", w.Body, err)
				}
			}
		})
	}
}

func TestARecorderKeepsFifteenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, looking := 0.0, true
		r := NewRecorder(func() map[string]float64 {
			if !looking {
				return nil
			}
			n++
			return map[string]float64{"n": n}
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { r.Run(ctx); close(ended) }()
		time.Sleep(time.Hour + time.Second)
		all := r.Samples()
		if len(all) != sampleCount {
			t.Fatalf("%d samples, want %d", len(all), sampleCount)
		}
		if took := all[len(all)-1].At - all[0].At; took != (15 * time.Minute).Milliseconds() {
			t.Errorf("they span %d ms, want fifteen minutes", took)
		}
		if got := all[len(all)-1].Numbers["n"]; got != n {
			t.Errorf("the newest is %v, want %v", got, n)
		}
		looking = false
		time.Sleep(sampleEvery)
		if all := r.Samples(); len(all) != 0 {
			t.Errorf("%d samples are kept when nobody looks, want none", len(all))
		}
		cancel()
		<-ended
	})
}
