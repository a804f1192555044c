package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
)

func parsed(t testing.TB, c tls.Certificate) []*x509.Certificate {
	t.Helper()
	var certs []*x509.Certificate
	for _, der := range c.Certificate {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
	return certs
}

func TestExchangedCertificateIsNoticedAfterAGoodOne(t *testing.T) {
	const name = "signal.example.com"
	ca := testnet.NewCA(t, "Example Root")
	namesake := testnet.NewCA(t, "Example Root") // another key
	good, other := ca.Issue(t, name), ca.Issue(t, name)
	self := func() tls.Certificate { // nobody's but its own
		c := testnet.NewCA(t, name).Issue(t, name)
		c.Certificate = c.Certificate[:1]
		return c
	}()
	srv := testnet.NewUpstream(t, good, http.NotFoundHandler())
	d := mustDialer(t, DialOptions{CAFile: ca.File(t), Resolve: map[string]string{name: srv.Addr, "other.example.com": srv.Addr}})
	u := mustUpstream(t, "wss://"+name+"/")
	for _, tt := range []struct {
		name  string
		cert  tls.Certificate
		url   string
		cause Cause
	}{
		{"another good one is good", other, "", ""},
		{"its own authority", self, "", CauseIssuer},
		{"an authority of the same name", namesake.Issue(t, name), "", CauseIssuer},
		{"the good certificate behind another authority's", tls.Certificate{Certificate: [][]byte{self.Certificate[0], good.Certificate[0]}, PrivateKey: self.PrivateKey}, "", CauseIssuer},
		{"another name", ca.Issue(t, "other.example.com"), "", CauseName},
		{"the good certificate under another name", good, "wss://other.example.com/", CauseName},
		{"expired", ca.IssueUntil(t, time.Now().Add(-time.Minute), name), "", CauseExpired},
		{"not valid yet", ca.IssueBetween(t, time.Now().Add(time.Hour), time.Now().Add(2*time.Hour), name), "", CauseExpired},
		{"the good certificate without its key", tls.Certificate{Certificate: good.Certificate, PrivateKey: other.PrivateKey}, "", CauseTLS},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(tt.name+", "+tls.VersionName(version), func(t *testing.T) {
				srv.SetVersion(version)
				srv.SetCertificate(good)
				for range 2 { // the second time it is remembered
					c, err := connect(t, d, u)
					if err != nil {
						t.Fatal(err)
					}
					c.Close()
				}
				srv.SetCertificate(tt.cert)
				to := u
				if tt.url != "" {
					to = mustUpstream(t, tt.url)
				}
				for range 2 { // nor is a bad one remembered as good
					c, err := connect(t, d, to)
					got := Cause("")
					if err == nil {
						c.Close()
					} else {
						got = Classify(err)
					}
					if got != tt.cause {
						t.Errorf("got cause %q (%v), want %q", got, err, tt.cause)
					}
				}
			})
		}
	}
	if n := srv.Requests.Load(); n != 0 {
		t.Errorf("%d requests reached the upstream, want 0", n)
	}
}

func TestChainIsForgottenInTime(t *testing.T) {
	ca := testnet.NewCA(t, "Example Root")
	now := time.Now()
	end := now.Add(chainMemory / 2).Truncate(time.Second)
	long, short := parsed(t, ca.Issue(t, "a.test")), parsed(t, ca.IssueUntil(t, end, "a.test"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM)
	for _, tt := range []struct {
		name    string
		certs   []*x509.Certificate
		at      time.Time
		known   bool
		invalid bool
	}{
		{"at once", long, now, true, false},
		{"before it is verified again", long, now.Add(chainMemory), true, false},
		{"later", long, now.Add(chainMemory + time.Second), false, false},
		{"after its end", long, now.Add(25 * time.Hour), false, true},
		{"at the end of a certificate that ends before", short, end, true, false},
		{"after the end of one that ends before", short, end.Add(time.Second), false, true},
		{"when the clock was set back", long, now.Add(-time.Minute), false, false},
		{"when the clock was set back to before its beginning", long, now.Add(-30 * time.Hour), false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := newChains(roots)
			if err := c.verify("a.test", tt.certs, now); err != nil {
				t.Fatal(err)
			}
			if got := c.known(chainOf("a.test", tt.certs), tt.at); got != tt.known {
				t.Errorf("known: %v, want %v", got, tt.known)
			}
			err := c.verify("a.test", tt.certs, tt.at)
			if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok != tt.invalid || ok && invalid.Reason != x509.Expired {
				t.Errorf("got %v, want invalid: %v", err, tt.invalid)
			}
		})
	}
}

func TestChainsAreBounded(t *testing.T) {
	ca := testnet.NewCA(t, "Example Root")
	certs := parsed(t, ca.Issue(t, "*.a.test"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.PEM)
	c := newChains(roots)
	for i := range 2*maxChains + 1 {
		if err := c.verify(strconv.Itoa(i)+".a.test", certs, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(c.good); n == 0 || n > maxChains {
		t.Errorf("%d chains remembered, want 1 to %d", n, maxChains)
	}
}
