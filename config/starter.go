package config

import (
	"crypto/rand"
	"strings"
)

// Starter is a first configuration file: what the server uses when it starts
// without one, made permanent. Empty fields leave the default.
type Starter struct {
	Layout     string
	Domain     string
	ExternalIP string
	Cert, Key  string
	HTTPS      ListenAddr
	TURN       ListenAddr
	User       string
	Password   string
	// PasswordFile names a file with the password, in the place of Password.
	PasswordFile string
}

// NewPassword returns a random password of about 128 bits that needs no
// quoting anywhere.
func NewPassword() string { return rand.Text() }

// TOML is the file. It holds the password: write it with mode 0600.
func (s Starter) TOML() []byte {
	var b strings.Builder
	line := func(key, value, ifEmpty, comment string) {
		text := key + " = " + Quote(value)
		if value == "" && ifEmpty != "" {
			text = "# " + key + " = " + Quote(ifEmpty)
		}
		if comment != "" {
			text += "  # " + comment
		}
		b.WriteString(text + "\n")
	}
	listen := func(key string, l ListenAddr, ifEmpty string) {
		if !l.IsZero() {
			ifEmpty = l.String()
		}
		b.WriteString(key + " = [" + Quote(ifEmpty) + "]\n")
	}
	b.WriteString(`# Configuration of turngate. Every other key has a default:
# "turngate config init --reference FILE" writes a file that documents them all.

`)
	if s.Layout == "" {
		s.Layout = External
	}
	line("layout", s.Layout, "", `"external": in front of the company network; "intranet": inside`)
	line("domain", s.Domain, "proxy.example.com", "the name clients use")
	line("external_ip", s.ExternalIP, "203.0.113.7", `what TURN hands out; "public/private" behind NAT; unset: this host's address`)
	b.WriteString("\n[tls]\n")
	if s.Cert == "" {
		b.WriteString("# Without these, a self-signed certificate that browsers do not trust.\n")
	}
	line("cert", s.Cert, "/etc/turngate/tls/fullchain.pem", "")
	line("key", s.Key, "/etc/turngate/tls/privkey.pem", "")
	b.WriteString("\n[https]\n")
	listen("listen", s.HTTPS, ":443")
	b.WriteString("\n[turn]\n")
	listen("listen", s.TURN, ":3478")
	b.WriteString("min_port = 20000\nmax_port = 29999\n")
	if s.User != "" {
		b.WriteString("\n[[turn.user]]\n")
		line("name", s.User, "", "")
		password := EscapeSecret(s.Password)
		if s.PasswordFile != "" {
			password = "file:" + s.PasswordFile
		}
		line("password", password, "", "")
	}
	b.WriteString("\n[[signaling]]\npreset = \"trtc\"  # path \"/ws/\"\n\n[[logger]]\npreset = \"trtc\"  # path \"/logger/\"\n")
	return []byte(b.String())
}

// EscapeSecret writes a literal secret as it stands in a file, so that it is not
// taken for a reference.
func EscapeSecret(s string) string {
	for _, p := range []string{"env:", "file:", "plain:"} {
		if strings.HasPrefix(s, p) {
			return "plain:" + s
		}
	}
	return s
}
