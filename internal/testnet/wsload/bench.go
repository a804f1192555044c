package main

import (
	"crypto/tls"
	"fmt"
	"os/exec"
	"slices"
)

// A bench holds what the cases share.
type bench struct {
	options
	up        *upstream
	clientTLS *tls.Config
	chosen    []recipe
	fixed     *proxy // of -drive
	running   []*proxy
	table     []row
}

func newBench(o options) (*bench, error) {
	cert, roots, err := newCertificate(o.dir)
	if err != nil {
		return nil, err
	}
	up, err := newUpstream(o.upstream, cert)
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, up: up, clientTLS: &tls.Config{
		RootCAs: roots, ServerName: "localhost", NextProtos: []string{"http/1.1"}, DynamicRecordSizingDisabled: true,
		// Of a proxy that runs already the certificate is not ours.
		InsecureSkipVerify: o.turngate == "",
	}}
	return b, nil
}

// choose keeps the recipes that were asked for and whose program is there.
func (b *bench) choose(names []string) error {
	for _, r := range recipes(b.turngate) {
		if !slices.Contains(names, r.name) {
			continue
		}
		if _, err := exec.LookPath(r.binary); err != nil {
			return fmt.Errorf("%s is needed for the comparison: %w", r.name, err)
		}
		b.chosen = append(b.chosen, r)
	}
	return nil
}

// proxies returns the running proxies, started when that has not been done yet.
func (b *bench) proxies() ([]*proxy, error) {
	if b.fixed != nil {
		return []*proxy{b.fixed}, nil
	}
	if b.running == nil {
		for _, r := range b.chosen {
			p, err := b.start(r)
			if err != nil {
				return nil, err
			}
			b.running = append(b.running, p)
		}
	}
	return b.running, nil
}

// alone calls measure with each proxy in turn, each in a fresh process that ends afterwards.
func (b *bench) alone(measure func(*proxy) error) error {
	if b.fixed != nil {
		return measure(b.fixed)
	}
	for _, r := range b.chosen {
		p, err := b.start(r)
		if err != nil {
			return err
		}
		err = measure(p)
		p.stop()
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}

// turngateAlone calls measure with a fresh turngate, if one is compared.
func (b *bench) turngateAlone(measure func(*proxy) error) error {
	for _, r := range b.chosen {
		if r.name == "turngate" {
			p, err := b.start(r)
			if err != nil {
				return err
			}
			defer p.stop()
			return measure(p)
		}
	}
	return nil
}

func (b *bench) close() {
	for _, p := range b.running {
		p.stop()
	}
	b.up.ln.Close()
}
