package config

import (
	"bytes"
	"strings"
	"testing"
)

const showFile = `layout = "intranet"
domain = "proxy.example.com"
external_ip = ["203.0.113.7/10.0.0.4", "2001:db8::7"]
[turn]
secrets = ["a shared secret of ours", "env:OLD_SECRET"]
[[turn.user]]
name = "alice"
password = "file:/s/alice"
[[turn.user]]
name = "bob \"b\""
password = "a literal password"
[turn.peers]
deny = ["203.0.113.0/24:8000", "[2001:db8::/32]:8000-8010", "192.0.2.1"]
ports = [8000, "8080-8090"]
[upstream]
resolve = { "signaling.rtc.qq.com" = "192.0.2.7:443" }
[[signaling]]
preset = "trtc"
[[signaling]]
preset = "watchrtc"
idle_timeout = "1h30m"
[[logger]]
preset = "watchrtc"
[admin]
metrics = "127.0.0.1:9641"
`

func showEnv() Env {
	return machine(map[string]string{"OLD_SECRET": "the one before, still long"},
		map[string]file{"/s/alice": {"a password in a file\n", 0o600}})
}

func TestShowWritesEveryValueWithItsOrigin(t *testing.T) {
	cfg, findings := LoadBytes("/etc/turngate/turngate.toml", []byte(showFile), showEnv())
	if len(findings) > 0 {
		t.Fatalf("findings:\n%v", findings)
	}
	for name, write := range map[string]func(*bytes.Buffer) error{
		"show.txt":  func(b *bytes.Buffer) error { return cfg.WriteTable(b) },
		"show.json": func(b *bytes.Buffer) error { return cfg.WriteJSON(b) },
		"show.toml": func(b *bytes.Buffer) error { return cfg.WriteTOML(b) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}

func TestTheShownFileLoadsOnceItsSecretsArePutBack(t *testing.T) {
	cfg, _ := LoadBytes("turngate.toml", []byte(showFile), showEnv())
	var b bytes.Buffer
	cfg.WriteTOML(&b)
	if _, findings := LoadBytes("shown.toml", b.Bytes(), showEnv()); !findings.HasErrors() {
		t.Error("the placeholder was taken for a secret")
	}
	text := strings.Replace(b.String(), `["[secret]"`, `["a shared secret of ours"`, 1)
	text = strings.Replace(text, `"[secret]"`, `"a literal password"`, 1)
	again, findings := LoadBytes("shown.toml", []byte(text), showEnv())
	if again == nil {
		t.Fatalf("findings:\n%v", findings)
	}
	if changes := Changes(cfg, again); len(changes) > 0 {
		t.Errorf("changes: %v", changes)
	}
}

func TestChangesNameWhatIsDifferent(t *testing.T) {
	before := mustLoad(t, `state_dir = "/a"
[[turn.user]]
name = "alice"
password = "first password"
[[signaling]]
preset = "trtc"
`)
	after := mustLoad(t, `state_dir = "/b"
[turn]
max_port = 30000
[[turn.user]]
name = "bob"
password = "third password"
[[turn.user]]
name = "alice"
password = "second password"
[[signaling]]
preset = "watchrtc"
[[signaling]]
preset = "trtc"
xff = "append"
`)
	var b strings.Builder
	for _, c := range Changes(before, after) {
		if strings.HasPrefix(c.Key, `signaling["/watchrtc"]`) && !strings.HasSuffix(c.Key, ".preset") {
			continue // every key of the new route
		}
		b.WriteString(c.Key + ": " + c.Old + " -> " + c.New + " (" + string(c.Reload) + ")\n")
	}
	want := `state_dir: "/a" -> "/b" (restart)
turn.max_port: 29999 -> 30000 (live)
turn.user["alice"].password: "[secret]" -> "[secret]" (live)
signaling["/ws/"].xff: "replace" -> "append" (live)
turn.user["bob"].name:  -> "bob" (live)
turn.user["bob"].password:  -> "[secret]" (live)
turn.user["bob"].passwords:  -> [] (live)
signaling["/watchrtc"].preset:  -> "watchrtc" (live)
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	if c := Changes(after, after); c != nil {
		t.Errorf("no change: got %v", c)
	}
}
