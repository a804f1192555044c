package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite the files in testdata")

// golden compares got with a file in testdata, or rewrites the file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

// at is a clock that stands still.
func at() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 500, time.UTC) }

// execute runs one command by itself, with its own clock.
func execute(make func(streams, func() time.Time) *cobra.Command, args ...string) (out, errs string, err error) {
	var o, e bytes.Buffer
	cmd := make(streams{nil, &o, &e}, at)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	err = cmd.Execute()
	return o.String(), e.String(), err
}

func TestClientPrintsWhatToPaste(t *testing.T) {
	for name, args := range map[string]string{
		"client-trtc.js":             "trtc -c testdata/client.toml",
		"client-trtc-v4.js":          "trtc -c testdata/client.toml --v4",
		"client-trtc-unified.js":     "trtc -c testdata/client.toml --unified",
		"client-trtc-unified-v4.js":  "trtc -c testdata/client.toml --unified --v4",
		"client-trtc-ttl.js":         "trtc -c testdata/client.toml --user bob --ttl 1h",
		"client-plain.js":            "plain -c testdata/client.toml",
		"client-watchrtc.js":         "watchrtc -c testdata/client.toml",
		"client-ports-trtc.js":       "trtc -c testdata/client-ports.toml",
		"client-ports-trtc-v4.js":    "trtc -c testdata/client-ports.toml --v4",
		"client-ports-unified.js":    "trtc -c testdata/client-ports.toml --unified",
		"client-ports-unified-v4.js": "trtc -c testdata/client-ports.toml --unified --v4",
		"client-listen-trtc.js":      "trtc -c testdata/client-listen.toml",
		"client-listen-watchrtc.js":  "watchrtc -c testdata/client-listen.toml",
		"client-ports-plain.js":      "plain -c testdata/client-ports.toml --host 192.0.2.1",
	} {
		t.Run(name, func(t *testing.T) {
			out, errs, err := execute(clientCommand, strings.Fields(args)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, errs)
			}
			golden(t, name, out)
			selfSigned := strings.Contains(args, "client-ports")
			if strings.Contains(errs, "self-signed") != selfSigned {
				t.Errorf("stderr: got %q", errs)
			}
		})
	}
}

func TestClientSaysWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	none := write("none.toml", "domain = \"proxy.example.com\"\nsignaling = []\nlogger = []\n")
	nobody := write("nobody.toml", "domain = \"proxy.example.com\"\n")
	broken := write("broken.toml", "layuot = 1\n")
	noUnified := write("noUnified.toml", "domain = \"proxy.example.com\"\n[trtc]\nunified = \"\"\n")
	for _, tc := range []struct{ name, args, want string }{
		{"no TRTC route", "trtc -c " + none, `no route has preset "trtc"`},
		{"no watchRTC route", "watchrtc -c " + nobody, `no route has preset "watchrtc"`},
		{"no credential", "plain -c " + nobody, "neither [[turn.user]] nor turn.secrets"},
		{"no secret", "plain --ttl 1h -c " + nobody, "turn.secrets"},
		{"an unknown user", "plain --user eve -c " + nobody, `no user "eve"`},
		{"no unified route", "trtc --unified -c " + noUnified, "trtc.unified is empty"},
		{"a host that is none", "plain --host https://x/ -c testdata/client.toml", "is not a host"},
		{"a broken file", "plain -c " + broken, `did you mean "layout"?`},
		{"a negative lifetime", "plain --ttl -1h -c testdata/client.toml", "too short"},
		{"an argument too many", "plain x", "unknown command"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, errs, err := execute(clientCommand, strings.Fields(tc.args)...)
			if err == nil || out != "" || !strings.Contains(errs+err.Error(), tc.want) {
				t.Errorf("got %q, %q, %v; want %q", out, errs, err, tc.want)
			}
		})
	}
}

func TestCredentialIsThatOfTheTURNRESTAPI(t *testing.T) {
	out, _, err := execute(credentialCommand, "bob", "--ttl", "1h", "-c", "testdata/client.toml", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Username, Password string
		TTL                int64
		URIs               []string
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	name := "1795352400:bob" // 2026-11-22 13:00:00 UTC
	mac := hmac.New(sha1.New, []byte("a secret that pages never see"))
	mac.Write([]byte(name))
	if got.Username != name || got.Password != base64.StdEncoding.EncodeToString(mac.Sum(nil)) || got.TTL != 3600 {
		t.Errorf("got %+v, want user %s", got, name)
	}
	want := []string{"turn:proxy.example.com:3478?transport=udp", "turn:proxy.example.com:3478?transport=tcp", "turns:proxy.example.com:443?transport=tcp"}
	if diff := cmp.Diff(want, got.URIs); diff != "" {
		t.Errorf("uris (-want +got):\n%s", diff)
	}
	text, _, err := execute(credentialCommand, "bob", "-c", "testdata/client.toml")
	if err != nil || !strings.Contains(text, "1795392000:bob") || !strings.Contains(text, "2026-11-23T00:00:00Z") {
		t.Errorf("the default lifetime of 12h: got %q, %v", text, err)
	}
	if _, _, err := execute(credentialCommand, "bob", "-c", "testdata/client-ports.toml"); err == nil || !strings.Contains(err.Error(), "turn.secrets") {
		t.Errorf("without a secret: got %v", err)
	}
}

func TestJavaScriptStringsCannotBreakOut(t *testing.T) {
	for in, want := range map[string]string{
		`a`:               `'a'`,
		`'; alert(1); '`:  `'\'; alert(1); \''`,
		`\`:               `'\\'`,
		"\n\u2028":        `'\u000a\u2028'`,
		`</script>`:       `'\u003c/script>'`,
		`"quotes" & more`: `'"quotes" & more'`,
	} {
		if got := js(in); got != want {
			t.Errorf("js(%q): got %s, want %s", in, got, want)
		}
	}
}
