package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/edge"
)

// loadWithFiles is [config.Load] with all that the files tell which the configuration
// names. The Config is nil only when the file itself has an error.
func loadWithFiles(path string) (*config.Config, config.Findings) {
	cfg, findings := config.Load(path)
	if cfg == nil {
		return nil, findings
	}
	findings = append(findings, config.CheckFiles(cfg, config.Machine())...)
	return cfg, append(findings, checkPairs(cfg)...)
}

// checkPairs reports each pair of files that cannot be served, in the words of
// who serves it. Files that cannot be opened here are left out: that is a
// warning of [config.CheckFiles], since the check may be made elsewhere.
func checkPairs(cfg *config.Config) (findings config.Findings) {
	if cfg.TLS.Source() != config.TLSFiles {
		return nil
	}
	for i, pair := range cfg.TLS.Pairs() {
		_, err := edge.CheckCertificates([]edge.Pair{{Cert: pair[0], Key: pair[1]}})
		var f *edge.FileError
		if !errors.As(err, &f) || errors.Is(f, fs.ErrNotExist) || errors.Is(f, fs.ErrPermission) {
			continue
		}
		key := "tls.cert"
		if f.Path == pair[1] && f.Path != pair[0] {
			key = "tls.key"
		}
		line := cfg.Origin(key).Line
		if len(cfg.TLS.Cert) > 1 {
			key = fmt.Sprintf("%s[%d]", key, i)
		}
		findings = append(findings, config.Finding{
			File: cfg.File(), Line: line, Key: key, Severity: config.Error, What: f.Path + ": " + f.What, Fix: f.Fix,
		})
	}
	return findings
}
