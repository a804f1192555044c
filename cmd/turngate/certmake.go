package main

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/pki"
)

func newCertCSRCommand(s streams) *cobra.Command {
	var names []string
	var kind string
	var fresh, noAddresses bool
	cmd := &cobra.Command{
		Use:   "csr",
		Short: "Print a certificate request for your company's CA",
		Long: `Prints a certificate request (PKCS #10, PEM) for the domain and the addresses of
this host. Its key is made here and stays in state_dir, readable by the service
only. Send the request to the CA, and give its answer to "turngate cert install".
Until then every request is for the same key.`,
		Args: usageArgs(cobra.NoArgs),
	}
	r := newReloader(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(s, cmd, nil)
		if err != nil {
			return err
		}
		subject := authoritySubject(cfg)
		if noAddresses {
			subject.Addrs = nil
		}
		addNames(&subject, names)
		request, err := pki.Request(cfg.StateDir, subject, pki.KeyType(kind), fresh)
		if err != nil {
			return err
		}
		fmt.Fprintf(r.err, "Request for %s.\nSend it to your CA as a web server's certificate, then: turngate cert install FILE\n", subject)
		_, err = s.out.Write(request)
		return err
	}
	f := cmd.Flags()
	f.StringSliceVar(&names, "name", nil, "another name or address to ask for")
	f.BoolVar(&noAddresses, "no-addresses", false, "ask for names only")
	f.StringVar(&kind, "key-type", "", "ecdsa or rsa (default ecdsa, or that of the request under way)")
	f.BoolVar(&fresh, "new-key", false, "make a new key; answers to requests before are void")
	return cmd
}

// addNames adds what a command line names: addresses or DNS names.
func addNames(s *pki.Subject, names []string) {
	for _, n := range names {
		if addr, err := netip.ParseAddr(n); err == nil {
			s.Addrs = append(s.Addrs, addr)
		} else {
			s.Names = append(s.Names, n)
		}
	}
}

func newCertInstallCommand(s streams) *cobra.Command {
	var keyFile string
	var caFiles []string
	cmd := &cobra.Command{
		Use:   "install FILE...",
		Short: "Check what the CA answered and serve it",
		Long: `Takes the certificate that a CA issued for the request of "turngate cert csr", with
the certificates above it, in one file or several, PEM or DER. It is checked:
key, names, chain, dates, and what the CAs may issue. Nothing changes when
clients would refuse it. The chain is put in order.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
	}
	r := newReloader(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := loadConfig(s, cmd, nil)
		if err != nil {
			return err
		}
		certs, err := readCertificates(s.in, args)
		if err != nil {
			return err
		}
		roots, err := readCertificates(s.in, caFiles)
		if err != nil {
			return err
		}
		keys, err := installKeys(cfg, keyFile)
		if err != nil {
			return err
		}
		chain, key, problems := pki.Examine(append(certs, roots...), keys, authoritySubject(cfg), roots, time.Now())
		refused := chain == nil
		for _, p := range problems {
			fmt.Fprintln(s.err, p)
			refused = refused || !p.Warning
		}
		if refused {
			return errProblems
		}
		files, err := pki.Install(cfg.StateDir, chain, key)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "%s: installed; %d certificates, until %s\n", files.Cert, len(chain), chain[0].NotAfter.Format(time.DateOnly))
		r.reloadRunning(cmd, cfg, config.TLSInstalled)
		return nil
	}
	cmd.Flags().StringVar(&keyFile, "key", "", "the key, if it was not made by \"turngate cert csr\"")
	cmd.Flags().StringSliceVar(&caFiles, "ca", nil, "the root certificate of the CA, if this host does not trust it")
	return cmd
}

// installKeys are the keys that a certificate may be for.
func installKeys(cfg *config.Config, keyFile string) ([]crypto.Signer, error) {
	if keyFile == "" {
		return pki.Keys(cfg.StateDir)
	}
	b, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	key, err := pki.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyFile, err)
	}
	return []crypto.Signer{key}, nil
}

// readCertificates reads files of certificates; "-" is standard input.
func readCertificates(in io.Reader, names []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, name := range names {
		var b []byte
		var err error
		if name == "-" {
			b, err = io.ReadAll(io.LimitReader(in, 1<<20))
		} else {
			b, err = os.ReadFile(name)
		}
		if err != nil {
			return nil, err
		}
		certs, err := pki.ParseCertificates(name, b)
		if err != nil {
			return nil, err
		}
		all = append(all, certs...)
	}
	return all, nil
}

func newCertCACommand(s streams) *cobra.Command {
	var permit []string
	var replace bool
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make a CA of this host and print its certificate to hand out",
		Long: `Makes a certificate authority on this host, once, issues the server's certificate
for the domain and the addresses from it, and prints the authority's certificate
(PEM) with how to make clients trust it. The server's certificate is renewed by
itself; clients keep trusting it for ten years.

The authority is bound to the names of this host: whoever steals its key can
impersonate this host and no other. --permit widens that when it is made.`,
		Args: usageArgs(cobra.NoArgs),
	}
	r := newReloader(s, cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadConfig(s, cmd, nil)
		if err != nil {
			return err
		}
		authority, made, err := openOrMakeAuthority(cfg, permit, replace, s.err)
		if err != nil {
			return err
		}
		_, created, err := authority.Server(authoritySubject(cfg))
		if err != nil {
			return err
		}
		fmt.Fprint(s.err, trustText(authority))
		if made || created {
			r.reloadRunning(cmd, cfg, config.TLSCA)
		}
		_, err = s.out.Write(authority.PEM())
		return err
	}
	cmd.Flags().StringSliceVar(&permit, "permit", nil, "another domain (with all names below it), address or prefix that it may issue for")
	cmd.Flags().BoolVar(&replace, "new", false, "move the present one aside and make another, which has to be handed out again")
	return cmd
}

func openOrMakeAuthority(cfg *config.Config, permit []string, replace bool, log io.Writer) (a *pki.Authority, made bool, err error) {
	dir := authorityDir(cfg)
	if replace {
		to, err := pki.Retire(dir)
		if err != nil {
			return nil, false, err
		}
		if to != "" {
			fmt.Fprintf(log, "The CA before is in %s.\n", to)
		}
	}
	a, err = pki.OpenAuthority(dir)
	switch {
	case err == nil && len(permit) > 0:
		return nil, false, usageError{fmt.Errorf("there is a CA already, for %s; --permit counts when one is made (--new)", strings.Join(a.Permits(), ", "))}
	case err == nil || !os.IsNotExist(err):
		return a, false, err
	}
	a, err = pki.NewAuthority(dir, authoritySubject(cfg), permit)
	return a, true, err
}

// trustText says how to make clients trust an authority.
func trustText(a *pki.Authority) string {
	return fmt.Sprintf(`%s
  issues for   %s
  until        %s
  SHA-256      %s

Hand out the certificate below as turngate-ca.pem; compare the SHA-256 where it arrives.
  Windows      certutil -addstore -f Root turngate-ca.pem   (as administrator)
               all of a domain: group policy, Computer Configuration > Policies > Windows Settings >
               Security Settings > Public Key Policies > Trusted Root Certification Authorities
  macOS        sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain turngate-ca.pem
  Debian       cp turngate-ca.pem /usr/local/share/ca-certificates/turngate-ca.crt && update-ca-certificates
  Red Hat      cp turngate-ca.pem /etc/pki/ca-trust/source/anchors/ && update-ca-trust
  Chrome       on Linux: certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n turngate-ca -i turngate-ca.pem
  Firefox      policies.json: {"policies": {"Certificates": {"ImportEnterpriseRoots": true}}} takes the system's;
               or {"policies": {"Certificates": {"Install": ["turngate-ca.pem"]}}}
`, a.Cert.Subject.CommonName, strings.Join(a.Permits(), ", "), a.Cert.NotAfter.Format(time.DateOnly), a.Fingerprint())
}
