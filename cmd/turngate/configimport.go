package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config/importer"
)

func newConfigImportCommand(s streams) *cobra.Command {
	var opts importer.Options
	var output string
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "import FILE...",
		Short: "Make a configuration file of nginx.conf, turnserver.conf or haproxy.cfg",
		Long: `Makes a configuration file of those of nginx, coturn and HAProxy. What each file is
for shows in it; a script, a unit file or a command that starts turnserver, and the
output of "nginx -T", are understood too. Several files, those of a web proxy and a
TURN server, become one. FILE "-" is standard input.

The file goes to standard output, and to standard error a list of what was not
carried over: "lost" is what turngate does not do, "changed" what works otherwise,
"not needed" what it does by itself. Exit code 0: nothing is lost; 1: something is;
2: a file cannot be read.`,
		Example: `  turngate config import /etc/nginx/nginx.conf /etc/turnserver.conf -o /etc/turngate/turngate.toml
  nginx -T | turngate config import -`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			sources, err := readSources(s, args)
			if err != nil {
				return usageError{err}
			}
			opts.ReadFile, opts.Glob = readRegular, filepath.Glob
			res, err := importer.Import(sources, opts)
			if err != nil {
				for _, e := range unjoin(err) {
					fmt.Fprintln(s.err, e)
				}
				return exitError{2}
			}
			if err := writeImport(s, res, output, force, asJSON); err != nil {
				return err
			}
			if res.Remarks.Count(importer.Lost) > 0 {
				return exitError{1}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "", "write this file, readable by its owner only, instead of standard output")
	f.BoolVar(&force, "force", false, "overwrite the file")
	f.BoolVar(&asJSON, "json", false, "print file and list as JSON")
	f.StringVar(&opts.Prefix, "prefix", "", "directory that relative paths of nginx start at (default: that of its file)")
	f.StringVar(&opts.ExternalIP, "external-ip", "", "the address, where a script of coturn has a variable")
	return cmd
}

// readSources reads the files of the command line. Names are made absolute,
// because paths in the result start at another directory.
func readSources(s streams, args []string) ([]importer.Source, error) {
	var all []importer.Source
	for _, name := range args {
		if name == "-" {
			data, err := io.ReadAll(io.LimitReader(s.in, 16<<20))
			if err != nil {
				return nil, err
			}
			all = append(all, importer.Source{Name: "standard input", Data: data})
			continue
		}
		data, err := readRegular(name)
		if err != nil {
			return nil, err
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			return nil, err
		}
		all = append(all, importer.Source{Name: abs, Data: data})
	}
	return all, nil
}

// readRegular reads a file, and neither a device nor a pipe that never ends.
func readRegular(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%s is a directory; name the file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 16<<20))
}

func writeImport(s streams, res *importer.Result, output string, force, asJSON bool) error {
	if output != "" && output != "-" {
		if err := writeConfig(output, res.TOML, force); err != nil {
			return usageError{err}
		}
	}
	if asJSON {
		doc := struct {
			File    string            `json:"file,omitempty"`
			OK      bool              `json:"ok"` // nothing is lost
			Remarks []importer.Remark `json:"remarks"`
			Config  string            `json:"config,omitempty"`
		}{File: output, OK: res.Remarks.Count(importer.Lost) == 0, Remarks: append([]importer.Remark{}, res.Remarks...)}
		if output == "" || output == "-" {
			doc.File, doc.Config = "", string(res.TOML)
		}
		return writeJSON(s.out, doc)
	}
	if output == "" || output == "-" {
		if _, err := s.out.Write(res.TOML); err != nil {
			return err
		}
	}
	for _, r := range res.Remarks {
		fmt.Fprintln(s.err, r)
	}
	if output != "" && output != "-" {
		fmt.Fprintf(s.out, "%s: written. Lost: %d, changed: %d, not needed: %d. Next: turngate config check %s\n", output,
			res.Remarks.Count(importer.Lost), res.Remarks.Count(importer.Changed), res.Remarks.Count(importer.NotNeeded), output)
	}
	return nil
}

func unjoin(err error) []error {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range many.Unwrap() {
			all = append(all, unjoin(e)...)
		}
		return all
	}
	return []error{err}
}
