package importer

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/turngate/turngate/config"
)

// fuzz gives an import hostile bytes: it never panics, ends in time, loads what it
// wrote, and every error and remark has its place.
func fuzz(f *testing.F, name string, seeds ...string) {
	for _, pattern := range seeds {
		paths, _ := filepath.Glob(pattern)
		if len(paths) == 0 {
			f.Fatalf("no seed %s", pattern)
		}
		for _, p := range paths {
			data, err := os.ReadFile(p)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		start := time.Now()
		res, err := Import([]Source{{name, data}}, Options{})
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("took %v for %d bytes", d, len(data))
		}
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || errors.Is(err, errBug) {
				t.Fatalf("not an error of the source: %v", err)
			}
			return
		}
		if cfg, findings := config.LoadBytes("", res.TOML, config.Env{}); cfg == nil {
			t.Errorf("the result does not load: %v\n%s", findings, res.TOML)
		}
		for _, r := range res.Remarks {
			if r.File == "" || r.Why == "" {
				t.Errorf("a remark without a place or a reason: %+v", r)
			}
		}
	})
}

func FuzzNginx(f *testing.F) {
	fuzz(f, "nginx.conf", "testdata/*/etc/nginx/*.conf", "testdata/*/etc/nginx/*/*")
}
func FuzzCoturn(f *testing.F) { fuzz(f, "turnserver.conf", "testdata/*/etc/turnserver.conf") }
func FuzzCommand(f *testing.F) {
	fuzz(f, "run.sh", "testdata/*/opt/*.sh", "testdata/*/etc/systemd/system/*")
}
func FuzzHAProxy(f *testing.F) { fuzz(f, "haproxy.cfg", "testdata/*/etc/haproxy/haproxy.cfg") }
