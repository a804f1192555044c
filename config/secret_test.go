package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"testing"
)

func TestASecretIsNeverPrinted(t *testing.T) {
	const value = "hunter2-very-secret"
	s := NewSecret(value)
	var out bytes.Buffer
	for _, verb := range []string{"v", "+v", "#v", "s", "q", "d", "x", "X", "t", "c", "U", "p"} {
		fmt.Fprintf(&out, "%"+verb+" ", s)
		fmt.Fprintf(&out, "%"+verb+" ", struct{ S Secret }{s})
		fmt.Fprintf(&out, "%"+verb+" ", struct{ s Secret }{s})
		fmt.Fprintf(&out, "%"+verb+" ", []Secret{s})
		fmt.Fprintf(&out, "%"+verb+" ", &s)
	}
	fmt.Fprintln(&out, s, &s, s.GoString())
	j, _ := json.Marshal(User{Name: "u", Password: s, Passwords: []Secret{s}})
	out.Write(j)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "s", s, "user", User{Name: "u", Password: s, Passwords: []Secret{s}})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "s", s, "user", User{Name: "u", Password: s, Passwords: []Secret{s}})

	cfg := mustLoad(t, "[[turn.user]]\nname = \"u\"\npassword = \""+value+"\"\n[turn]\nsecrets = [\""+value+"\"]\n")
	cfg.WriteTable(&out)
	cfg.WriteJSON(&out)
	cfg.WriteTOML(&out)
	fmt.Fprintln(&out, cfg.Values(), Changes(Default(), cfg))
	fmt.Fprintf(&out, "%+v %#v", cfg, cfg)

	hex := fmt.Sprintf("%x", value)
	for _, leak := range []string{value, hex, strings.ToUpper(hex)} {
		if i := strings.Index(out.String(), leak); i >= 0 {
			t.Errorf("leaked: …%q", out.String()[max(0, i-60):i+len(leak)])
		}
	}
	if got := s.Reveal(); got != value {
		t.Errorf("Reveal: got %q, want %q", got, value)
	}
}

func TestSecretsComeFromTheFileTheEnvironmentOrAnotherFile(t *testing.T) {
	env := machine(map[string]string{"PW": "from the environment", "EMPTY": ""}, map[string]file{
		"/s/good":   {"from a file\n", 0o640},
		"/s/crlf":   {"from a file\r\n", 0o600},
		"/s/open":   {"do not show me", 0o644},
		"/s/empty":  {"\n", 0o600},
		"/s/dir":    {"", fs.ModeDir | 0o700},
		"/etc/near": {"near", 0o600},
		"/s/long":   {strings.Repeat("x", 1<<17), 0o600},
	})
	for _, tc := range []struct{ name, text, want, wrong string }{
		{"a literal", "sesame", "sesame", ""},
		{"a literal with a colon", "a:b", "a:b", ""},
		{"the environment", "env:PW", "from the environment", ""},
		{"a file, without its line end", "file:/s/good", "from a file", ""},
		{"a file of another system", "file:/s/crlf", "from a file", ""},
		{"a file beside the configuration", "file:near", "near", ""},
		{"an escaped literal", "plain:env:PW", "env:PW", ""},
		{"a variable that is not set", "env:NONE", "", `"NONE" is not set`},
		{"a variable that is empty", "env:EMPTY", "", `"EMPTY" is not set or empty`},
		{"a file that everybody may read", "file:/s/open", "", "everybody on this machine can read"},
		{"an empty file", "file:/s/empty", "", "is empty"},
		{"a directory", "file:/s/dir", "", "is not a regular file"},
		{"a file that does not exist", "file:/s/none", "", "file does not exist"},
		{"a large file", "file:/s/long", "", "larger than 64 KiB"},
		{"the placeholder", "[secret]", "", "is the placeholder"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := "[[turn.user]]\nname = \"u\"\npassword = \"" + tc.text + "\"\n"
			cfg, findings := LoadBytes("/etc/turngate.toml", []byte(text), env)
			if tc.wrong == "" {
				if cfg == nil || cfg.TURN.User[0].Password.Reveal() != tc.want {
					t.Fatalf("got %v, want %q", findings, tc.want)
				}
				return
			}
			if len(findings) != 1 || findings[0].Line != 3 || findings[0].Key != "turn.user[0].password" || !strings.Contains(findings[0].What, tc.wrong) {
				t.Errorf("got %v, want line 3 and %q", findings, tc.wrong)
			}
			if strings.Contains(findings.Error(), "do not show me") {
				t.Errorf("leaked: %v", findings)
			}
		})
	}
}

// What the TOML parser says about a value it cannot read may quote the value.
func TestABrokenSecretIsNotQuoted(t *testing.T) {
	for _, text := range []string{
		"[[turn.user]]\nname = \"u\"\npassword = hunter2",
		"[[turn.user]]\nname = \"u\"\npassword = 0hunter2",
		"[[turn.user]]\nname = \"u\"\npassword = \"hun\\ter2\\q\"",
		"[turn]\nsecrets = [\n  0hunter2,\n]",
		"[turn]\nsecrets = [ 7hunter2 ]",
		"[[turn.user]]\nname = \"u\"\npassword = 72837465",
		"[turn]\nsecrets = \"hunter2hunter2\"",
		"[upstream]\nproxy = \"ftp://u:hunter2@host:3128\"",
		"[[signaling]]\npath=\"/x\"\nupstream = [\"https://u:hunter2@host/\"]",
		"[[signaling]]\npath=\"/x\"\nupstream = [\"u:hunter2@host/\"]",
		"[[signaling]]\npath=\"/x\"\nupstream = [\"https://host/?token=hunter2\"]",
		"[[signaling]]\npath=\"/x\"\nupstream = [\"ftp://host/?token=hunter2\"]",
		"[[signaling]]\npath=\"/x\"\nupstream = [\"https://host/#hunter2\"]",
		"[[signaling]]\npath=\"/x\"\nupstream = [\"https:///?token=hunter2\"]",
	} {
		cfg, findings := LoadBytes("f", []byte(text), machine(nil, nil))
		if cfg != nil || len(findings) == 0 || findings[0].Line == 0 {
			t.Errorf("%q: got %v, want a finding with a line", text, findings)
		}
		for _, leak := range []string{"hunter2", "72837465"} {
			if strings.Contains(findings.Error(), leak) {
				t.Errorf("leaked: %v", findings)
			}
		}
	}
}
