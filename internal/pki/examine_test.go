package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// issuer signs certificates for a test.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

var serial int64

// issue signs what change makes of a server certificate; nil above: by itself.
func issue(t *testing.T, above *issuer, key crypto.Signer, name string, change func(*x509.Certificate)) *issuer {
	t.Helper()
	if key == nil {
		var err error
		if key, err = newKey(ECDSA); err != nil {
			t.Fatal(err)
		}
	}
	serial++
	c := serverTemplate(Subject{})
	c.SerialNumber, c.Subject = big.NewInt(serial), pkix.Name{CommonName: name}
	if change != nil {
		change(c)
	}
	by, byKey := c, key
	if above != nil {
		by, byKey = above.cert, above.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), byKey)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{parsed, key}
}

func isCA(c *x509.Certificate) {
	c.IsCA, c.KeyUsage, c.ExtKeyUsage = true, x509.KeyUsageCertSign, nil
}

func TestExamine(t *testing.T) {
	now := time.Now()
	want := Subject{Names: []string{"proxy.corp.example"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.4")}}
	named := func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = want.names(), want.addrs() }
	and := func(list ...func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			for _, f := range list {
				f(c)
			}
		}
	}
	key, err := newKey(ECDSA)
	if err != nil {
		t.Fatal(err)
	}
	root := issue(t, nil, nil, "corp root", isCA)
	middle := issue(t, root, nil, "corp issuing CA", isCA)
	short := issue(t, root, nil, "corp short CA", and(isCA, func(c *x509.Certificate) { c.MaxPathLenZero = true }))
	below := issue(t, short, nil, "corp CA below", isCA)
	bounded := issue(t, root, nil, "corp bounded CA", and(isCA, func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"other.example"} }))
	ended := issue(t, root, nil, "corp ended CA", and(isCA, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = now.Add(-48*time.Hour), now.Add(-24*time.Hour)
	}))
	noCA := issue(t, root, nil, "a server", nil)
	impostor := issue(t, nil, nil, "corp issuing CA", and(isCA, func(c *x509.Certificate) { c.SubjectKeyId = middle.cert.SubjectKeyId }))
	good := issue(t, middle, key, "proxy.corp.example", named)
	direct := issue(t, root, key, "proxy.corp.example", named)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Log(err) // Go refuses to make such a key; then its row is left out
	}
	leaf := func(by *issuer, change func(*x509.Certificate)) *x509.Certificate {
		return issue(t, by, key, "proxy.corp.example", and(named, change)).cert
	}
	type certs = []*x509.Certificate
	none := func(*x509.Certificate) {}
	for _, c := range []struct {
		name     string
		certs    certs
		key      crypto.Signer
		roots    certs
		want     []string // in the problems, in order; "warning: " for one that does not refuse
		chainLen int
	}{
		{"a whole chain", certs{good.cert, middle.cert, root.cert}, key, nil, nil, 2},
		{"in any order", certs{root.cert, middle.cert, good.cert}, key, nil, nil, 2},
		{"the root named apart", certs{good.cert, middle.cert}, key, certs{root.cert}, nil, 2},
		{"issued by the root", certs{direct.cert}, key, certs{root.cert}, nil, 1},
		{"issued by the root, which is in the file", certs{direct.cert, root.cert}, key, nil, nil, 2},
		{"a certificate too many", certs{good.cert, middle.cert, root.cert, noCA.cert}, key, nil, []string{`warning: "CN=a server" is not part of the chain`}, 2},
		{"another key", certs{good.cert, middle.cert}, root.key, nil, []string{"does not match the key"}, 0},
		{"no key", certs{good.cert, middle.cert}, nil, nil, []string{"no request was made here"}, 0},
		{"nothing", nil, key, nil, []string{"there is no certificate"}, 0},
		{"authorities only", certs{middle.cert, root.cert}, key, nil, []string{"authorities only"}, 0},
		{"no intermediate", certs{good.cert}, key, nil, []string{"the chain is not complete"}, 1},
		{"the root without the intermediate", certs{good.cert, root.cert}, key, nil, []string{"not part of the chain", "the chain is not complete"}, 1},
		{"an intermediate that did not issue it", certs{good.cert, impostor.cert}, key, nil, []string{"did not issue", "not part of the chain", "not complete"}, 1},
		{"another name", certs{leaf(middle, func(c *x509.Certificate) { c.DNSNames = []string{"www.corp.example"} }), middle.cert, root.cert}, key, nil, []string{"it is not for proxy.corp.example, but for www.corp.example"}, 2},
		{"the name in the common name only", certs{leaf(middle, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }), middle.cert, root.cert}, key, nil, []string{"only in the common name", "warning: it is not for the address"}, 2},
		{"a wildcard", certs{leaf(middle, func(c *x509.Certificate) { c.DNSNames = []string{"*.corp.example"} }), middle.cert, root.cert}, key, nil, nil, 2},
		{"no address", certs{leaf(middle, func(c *x509.Certificate) { c.IPAddresses = nil }), middle.cert, root.cert}, key, nil, []string{"warning: it is not for the address 10.0.0.4"}, 2},
		{"ended", certs{leaf(middle, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-48*time.Hour), now.Add(-time.Hour) }), middle.cert, root.cert}, key, nil, []string{"it ended on"}, 2},
		{"not yet valid", certs{leaf(middle, func(c *x509.Certificate) { c.NotBefore = now.Add(24 * time.Hour) }), middle.cert, root.cert}, key, nil, []string{"it is valid from"}, 2},
		{"ends soon", certs{leaf(middle, func(c *x509.Certificate) { c.NotAfter = now.Add(100 * time.Hour) }), middle.cert, root.cert}, key, nil, []string{"warning: it ends on"}, 2},
		{"too long for some", certs{leaf(middle, func(c *x509.Certificate) { c.NotAfter = now.AddDate(5, 0, 0) }), middle.cert, root.cert}, key, nil, []string{"warning: it is valid for"}, 2},
		{"an intermediate that ended", certs{leaf(ended, none), ended.cert, root.cert}, key, nil, []string{`the CA's certificate "CN=corp ended CA" ended on`}, 2},
		{"for clients only", certs{leaf(middle, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), middle.cert, root.cert}, key, nil, []string{"may not be used by a server"}, 2},
		{"a key that may not sign", certs{leaf(middle, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), middle.cert, root.cert}, key, nil, []string{"its key may not sign"}, 2},
		{"an authority as a server", certs{leaf(middle, func(c *x509.Certificate) { c.IsCA = true }), middle.cert, root.cert}, key, nil, []string{"the certificate of an authority"}, 2},
		{"issued by a server", certs{leaf(noCA, none), noCA.cert, root.cert}, key, nil, []string{"is not allowed to issue", "not part", "not part", "not complete"}, 1},
		{"a CA that may not for this name", certs{leaf(bounded, none), bounded.cert, root.cert}, key, nil, []string{"name constraints"}, 2},
		{"a CA below one that may have none", certs{leaf(below, none), below.cert, short.cert, root.cert}, key, nil, []string{"not allowed to have another one below"}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			var keys []crypto.Signer
			if c.key != nil {
				keys = append(keys, c.key)
			}
			chain, _, problems := Examine(append(slices.Clone(c.certs), c.roots...), keys, want, c.roots, now)
			for i, p := range problems {
				if i >= len(c.want) || !strings.Contains(p.String(), strings.TrimPrefix(c.want[i], "warning: ")) || p.Warning != (strings.HasPrefix(c.want[i], "warning: ") || strings.HasPrefix(c.want[i], "not part")) || p.Fix == "" {
					t.Errorf("problem %d: %s (warning %v)", i, p, p.Warning)
				}
			}
			if len(problems) != len(c.want) {
				t.Errorf("got %d problems %v, want %d", len(problems), problems, len(c.want))
			}
			if c.chainLen > 0 && len(c.roots) > 0 && len(chain) > c.chainLen {
				chain = chain[:c.chainLen] // the root that was named may be there
			}
			if len(chain) != c.chainLen {
				t.Errorf("a chain of %d, want %d", len(chain), c.chainLen)
			}
		})
	}
	if weak != nil {
		c := issue(t, middle, weak, "proxy.corp.example", named)
		_, _, problems := Examine(certs{c.cert, middle.cert, root.cert}, []crypto.Signer{weak}, want, nil, now)
		if len(problems) == 0 || !strings.Contains(problems[0].What, "1024 bits") {
			t.Errorf("a weak key: %v", problems)
		}
	}
}

func TestTheAuthorityIssuesForItsNamesOnly(t *testing.T) {
	dir := t.TempDir() + "/state/ca"
	subject := Subject{Names: []string{"proxy.corp.example"}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.4")}}
	a, err := NewAuthority(dir, subject, []string{"*.lab.example", "10.1.0.0/16"})
	if err != nil {
		t.Fatal(err)
	}
	files, created, err := a.Server(subject)
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	if _, created, err := a.Server(subject); created || err != nil {
		t.Errorf("made anew: %v %v", created, err)
	}
	certs, err := ParseCertificates("server", read(t, files.Cert))
	if err != nil || len(certs) != 2 {
		t.Fatalf("%d certificates, %v; want the server's and the CA's", len(certs), err)
	}
	// What a thief of the key could issue, and for whom.
	again, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"proxy.corp.example": true, "x.proxy.corp.example": true, "a.lab.example": true, "10.0.0.4": true, "10.1.2.3": true,
		"www.corp.example": false, "www.bank.example": false, "10.0.0.5": false, "8.8.8.8": false, "2001:db8::1": false,
	} {
		var s Subject
		if addr, err := netip.ParseAddr(name); err == nil {
			s.Addrs = []netip.Addr{addr}
		} else {
			s.Names = []string{name}
		}
		leaf := issue(t, &issuer{again.Cert, again.key}, nil, name, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = s.names(), s.addrs() })
		if err := again.accepts(leaf.cert.Raw); (err == nil) != ok {
			t.Errorf("%s: %v, want accepted %v", name, err, ok)
		}
	}
	if _, _, err := again.Server(Subject{Names: []string{"other.example"}}); err == nil || !strings.Contains(err.Error(), "turngate cert ca --new") {
		t.Errorf("another domain: %v, want what to do", err)
	}
	if _, err := NewAuthority(dir, subject, nil); err == nil {
		t.Error("a second authority in the same place")
	}
	// No other authority below it.
	ca := issue(t, &issuer{again.Cert, again.key}, nil, "below", isCA)
	leaf := issue(t, ca, nil, "proxy.corp.example", func(c *x509.Certificate) { c.DNSNames = subject.names() })
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(again.Cert)
	middle.AddCert(ca.cert)
	if _, err := leaf.cert.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle}); err == nil {
		t.Error("an authority below it is accepted")
	}
}

func TestAnAuthorityWithoutAddressesOrNames(t *testing.T) {
	for _, s := range []Subject{{Names: []string{"a.test"}}, {Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.4")}}, {Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}} {
		a, err := NewAuthority(t.TempDir()+"/ca", s, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.Server(s); err != nil {
			t.Errorf("%v: %v", s, err)
		}
		for _, other := range []Subject{{Names: []string{"b.test"}}, {Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}, {Addrs: []netip.Addr{netip.MustParseAddr("2001:db8::2")}}} {
			if _, _, err := a.Server(other); err == nil {
				t.Errorf("the authority for %v issues for %v", s, other)
			}
		}
	}
	for _, bad := range []string{"", "*", "http://x", "a/b/c"} {
		if _, err := NewAuthority(t.TempDir()+"/ca", Subject{Names: []string{"a.test"}}, []string{bad}); err == nil {
			t.Errorf("--permit %q is accepted", bad)
		}
	}
}

func TestWhatIsNoCertificateIsExplained(t *testing.T) {
	for content, want := range map[string]string{
		"-----BEGIN PKCS7-----\nMA==\n-----END PKCS7-----\n":                             "openssl pkcs7 -print_certs",
		"-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----\n": "send it to the CA",
		"-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n":                 `but "PRIVATE KEY"`,
		"-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n":                 "certificate 1 of the file is broken",
		"\x30\x82\x01": "openssl pkcs12",
		"hello":        "BEGIN CERTIFICATE",
		"":             "BEGIN CERTIFICATE",
	} {
		if _, err := ParseCertificates("f", []byte(content)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", content, err, want)
		}
	}
}
