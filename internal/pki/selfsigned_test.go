package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

func TestSelfSignedIsKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "tls")
	names := []string{"Proxy.example.com", "localhost"}
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	ensure := func(names []string, addrs []netip.Addr) (Files, bool) {
		t.Helper()
		p, created, err := SelfSigned(dir, Subject{names, addrs})
		if err != nil {
			t.Fatal(err)
		}
		return p, created
	}
	p, created := ensure(names, addrs)
	if !created {
		t.Error("the first one counts as kept")
	}
	for _, path := range []string{p.Cert, p.Key} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v (%v), want 0600", path, info.Mode(), err)
		}
	}
	first := read(t, p.Cert)

	cert, err := tls.LoadX509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := cert.Leaf
	for _, host := range []string{"proxy.example.com", "localhost", "192.0.2.1", "2001:db8::1"} {
		if err := leaf.VerifyHostname(host); err != nil {
			t.Errorf("does not cover %s: %v", host, err)
		}
	}
	if !isRoot(leaf) || leaf.IsCA || len(leaf.IPAddresses) != 2 {
		t.Errorf("self-signed %v, CA %v, addresses %v; want true, false, two", isRoot(leaf), leaf.IsCA, leaf.IPAddresses)
	}
	if life := leaf.NotAfter.Sub(leaf.NotBefore); life > 366*24*time.Hour {
		t.Errorf("valid for %v: clients refuse more than 366 days", life)
	}

	if _, created := ensure(names, addrs); created || !bytes.Equal(read(t, p.Cert), first) {
		t.Error("made anew though it still serves")
	}
	if _, created := ensure(names[:1], nil); created {
		t.Error("made anew though it covers more than is asked for")
	}
	if _, created := ensure(append(names, "new.example.com"), addrs); !created {
		t.Error("kept though a name is not covered")
	}
	if _, created := ensure(names, append(addrs, netip.MustParseAddr("192.0.2.2"))); !created {
		t.Error("kept though an address is not covered")
	}
	os.WriteFile(p.Cert, first, 0o600) // a crash between the two renames
	if _, created := ensure(names, addrs); !created {
		t.Error("kept though certificate and key do not match")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) != 0 {
		t.Errorf("temporary files left: %v", left)
	}
	if _, _, err := SelfSigned(dir, Subject{}); err == nil {
		t.Error("no error without any name")
	}
}

func TestSelfSignedIsRenewedInTime(t *testing.T) {
	dir := t.TempDir()
	names := []string{"a.test"}
	synctest.Test(t, func(t *testing.T) {
		renew := func() (bool, error) {
			_, created, err := SelfSigned(dir, Subject{Names: names})
			return created, err
		}
		p, _, err := SelfSigned(dir, Subject{Names: names})
		if err != nil {
			t.Fatal(err)
		}
		first := read(t, p.Cert)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- Keep(ctx, "certificate", renew, slog.New(slog.DiscardHandler)) }()
		const day = 24 * time.Hour
		time.Sleep(330 * day)
		synctest.Wait()
		if !bytes.Equal(read(t, p.Cert), first) {
			t.Error("renewed more than 30 days before its end")
		}
		time.Sleep(6 * day)
		synctest.Wait()
		if bytes.Equal(read(t, p.Cert), first) {
			t.Error("not renewed 30 days before its end")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Keep returned %v, want nil", err)
		}
	})
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
