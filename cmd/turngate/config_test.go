package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/turngate/turngate/config"
)

// turngate runs the program.
func turngate(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(args, strings.NewReader(""), &o, &e)
	return code, o.String(), e.String()
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "turngate.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigCheck(t *testing.T) {
	good := writeFile(t, "domain = \"proxy.example.com\"\n")
	warned := writeFile(t, "[[turn.user]]\nname = \"turn\"\npassword = \"turn\"\n")
	bad := writeFile(t, "layuot = 1\n[turn]\nmin_port = 70000\n")
	elsewhere := writeFile(t, "[tls]\ncert = \"/none/cert.pem\"\nkey = \"/none/key.pem\"\n")
	for _, tc := range []struct {
		name string
		args []string
		code int
		out  []string // in this order
	}{
		{"a good file", []string{good}, 0, []string{good + ": ok\n"}},
		{"a good file by flag", []string{"--config", good}, 0, []string{good + ": ok\n"}},
		{"a warning", []string{warned}, 0, []string{":3: warning: turn.user[0].password: is weak", ": ok\n"}},
		{"two mistakes", []string{bad}, 1, []string{`:1: layuot: unknown key; did you mean "layout"?`, ":3: turn.min_port: 70000 is not a port"}},
		{"files of another machine", []string{elsewhere}, 0, []string{":2: warning: tls.cert: cannot be read here", ":3: warning: tls.key", ": ok\n"}},
		{"no such file", []string{good + ".none"}, 1, []string{"cannot be read: no such file or directory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			code, out, errs := turngate(append([]string{"config", "check"}, tc.args...)...)
			if code != tc.code || errs != "" {
				t.Errorf("exit code %d, want %d; stderr %q", code, tc.code, errs)
			}
			rest := out
			for _, want := range tc.out {
				_, after, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("got %q, want %q in it", out, want)
				}
				rest = after
			}
		})
	}
	code, out, _ := turngate("config", "check", "--json", bad)
	if !json.Valid([]byte(out)) || code != 1 {
		t.Errorf("exit code %d, JSON %s", code, out)
	}
	if !strings.Contains(out, `"ok": false`) || strings.Count(out, `"severity": "error"`) != 2 || !strings.Contains(out, `"line": 3`) {
		t.Errorf("JSON: got %s", out)
	}
}

func TestConfigShow(t *testing.T) {
	path := writeFile(t, "domain = \"proxy.example.com\"\n[[turn.user]]\nname = \"u\"\npassword = \"correct horse battery\"\n")
	for _, flag := range []string{"", "--json", "--toml"} {
		args := []string{"config", "show", path}
		if flag != "" {
			args = append(args, flag)
		}
		code, out, errs := turngate(args...)
		if code != 0 || errs != "" || !strings.Contains(out, "proxy.example.com") {
			t.Errorf("%s: exit code %d, stderr %q, stdout %q", flag, code, errs, out)
		}
		if strings.Contains(out, "correct horse") {
			t.Errorf("%s: the password leaked", flag)
		}
	}
	_, out, _ := turngate("config", "show", path)
	if want := path + ":1"; !strings.Contains(out, want) {
		t.Errorf("got %q, want the origin %s", out, want)
	}
	if code, _, errs := turngate("config", "show", "--json", "--toml", path); code != 2 || errs == "" {
		t.Errorf("two forms at once: exit code %d, want 2; stderr %q", code, errs)
	}
	if code, out, errs := turngate("config", "show", writeFile(t, "x = 1")); code != 1 || out != "" || !strings.Contains(errs, ":1: x: unknown") {
		t.Errorf("a bad file: exit code %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestConfigInit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "turngate.toml")
	code, out, errs := turngate("config", "init", path, "--domain", "proxy.example.com", "--external-ip", "10.0.0.4")
	if code != 0 || !strings.Contains(out, "written") {
		t.Fatalf("exit code %d, %q, %q", code, out, errs)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v, %v, want 0600", info.Mode(), err)
	}
	cfg, findings := config.Load(path)
	if len(findings) > 0 || cfg.Layout != config.Intranet || len(cfg.TURN.User[0].Password.Reveal()) < 20 {
		t.Errorf("findings %v", findings)
	}
	before, _ := os.ReadFile(path)
	if code, _, errs = turngate("config", "init", path); code != 1 || !strings.Contains(errs, "exists already") {
		t.Errorf("again: exit code %d, %q", code, errs)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("the file was overwritten")
	}
	if code, _, errs = turngate("config", "init", path+".2", "--domain", "http://x"); code != 1 || !strings.Contains(errs, "domain:") {
		t.Errorf("a wrong domain: exit code %d, %q", code, errs)
	}
	if _, err := os.Stat(path + ".2"); err == nil {
		t.Error("a file with findings was written")
	}
	if code, out, _ = turngate("config", "init", "--reference", "-"); code != 0 || out != config.Reference {
		t.Errorf("--reference: exit code %d", code)
	}
	if code, _, _ = turngate("config", "init"); code != 2 {
		t.Errorf("no file: exit code %d, want 2", code)
	}
}
