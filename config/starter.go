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
	ExternalIP string // several are separated by commas
	Cert, Key  string
	ACME       *StarterACME // nil: nothing is ordered
	HTTPS      ListenAddr
	TURN       ListenAddr
	User       string
	Password   string
	// PasswordFile names a file with the password, in the place of Password.
	PasswordFile string
	// Proxy is that of the company, and CA a file with whom else upstreams are
	// verified with.
	Proxy, CA string
}

// StarterACME has certificates ordered. That the terms of the CA are agreed to is said
// by setting it.
type StarterACME struct {
	CA, CARoot, Email string // may be empty
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
	const handedOut = `what TURN hands out; "public/private" behind NAT; unset: this host's address`
	if many := strings.Split(s.ExternalIP, ","); len(many) > 1 {
		b.WriteString("external_ip = [" + quoteAll(many) + "]  # " + handedOut + "\n")
	} else {
		line("external_ip", s.ExternalIP, "203.0.113.7", handedOut)
	}
	b.WriteString("\n[tls]\n")
	switch {
	case s.ACME != nil:
		line("mode", TLSACME, "", "ordered and renewed by itself; see: turngate cert show")
	case s.Cert == "":
		b.WriteString("# Without these: what \"turngate cert install\" or \"turngate cert ca\" left, else a\n# self-signed certificate that browsers do not trust.\n")
	}
	if s.ACME == nil {
		line("cert", s.Cert, "/etc/turngate/tls/fullchain.pem", "")
		line("key", s.Key, "/etc/turngate/tls/privkey.pem", "")
	} else {
		s.ACME.write(&b, line)
	}
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
	if s.Proxy != "" || s.CA != "" {
		b.WriteString("\n[upstream]\n")
		if s.Proxy != "" {
			line("proxy", EscapeSecret(s.Proxy), "", "signaling, logs and scheduler go through it; media cannot")
		}
		if s.CA != "" {
			line("ca", s.CA, "", "beside those that this host trusts, for a firewall that opens TLS")
		}
	}
	b.WriteString("\n[[signaling]]\npreset = \"trtc\"  # path \"/ws/\"\n\n[[logger]]\npreset = \"trtc\"  # path \"/logger/\"\n")
	return []byte(b.String())
}

func (a *StarterACME) write(b *strings.Builder, line func(key, value, ifEmpty, comment string)) {
	b.WriteString("\n[tls.acme]\nterms_agreed = true  # of the CA; Let's Encrypt: https://letsencrypt.org/repository/\n")
	line("email", a.Email, "admin@example.com", "where the CA may write to")
	if a.CA != "" {
		line("ca", a.CA, "", "the directory of the ACME server")
	}
	if a.CARoot != "" {
		line("ca_root", a.CARoot, "", "whom its own certificate is verified with")
	}
}

func quoteAll(list []string) string {
	quoted := make([]string, len(list))
	for i, v := range list {
		quoted[i] = Quote(strings.TrimSpace(v))
	}
	return strings.Join(quoted, ", ")
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
