//go:build docs

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/turngate/turngate/config"
)

// The files of a package that are made from the program: with the build tag
// "docs" only, so that what writes man pages is not in what is installed.
func init() { packagers = append(packagers, newDocsCommand) }

func newDocsCommand(streams) *cobra.Command {
	return &cobra.Command{
		Use:    "docs DIR",
		Short:  "Write man pages, completions and the first configuration file of a package",
		Hidden: true,
		Args:   usageArgs(cobra.ExactArgs(1)),
		RunE:   func(cmd *cobra.Command, args []string) error { return writeDocs(cmd.Root(), args[0]) },
	}
}

func writeDocs(root *cobra.Command, dir string) error {
	pages := filepath.Join(dir, "man")
	if err := os.MkdirAll(pages, 0o755); err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	root.CompletionOptions.HiddenDefaultCmd = true
	var topics strings.Builder
	for _, p := range topicPages(readManual()) {
		fmt.Fprintf(&topics, "    %-16s %s\n", p.Name, p.Title)
	}
	root.Long = root.Short + `.

The manual is in the program: "turngate help TOPIC" shows a topic, "turngate help 5501" what
is known about a symptom, "turngate help TG-061" about a code of "turngate check". Topics:

` + topics.String()
	header := &doc.GenManHeader{Section: "8", Source: "turngate " + version, Manual: "turngate"}
	if err := doc.GenManTree(root, header, pages); err != nil { // dated by SOURCE_DATE_EPOCH
		return err
	}
	write := func(name, text string) error {
		return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)
	}
	if err := write("man/turngate.toml.5", filePage(config.Reference)); err != nil {
		return err
	}
	// The password is made when the package is installed.
	starter := config.Starter{User: "turn", PasswordFile: "/etc/turngate/turn.password"}
	if err := write("turngate.toml", string(starter.TOML())); err != nil {
		return err
	}
	for name, generate := range map[string]func(string) error{
		"turngate.bash": func(f string) error { return root.GenBashCompletionFileV2(f, true) },
		"_turngate":     root.GenZshCompletionFile,
		"turngate.fish": func(f string) error { return root.GenFishCompletionFile(f, true) },
	} {
		if err := generate(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// filePage is turngate.toml(5): the reference file as it stands.
func filePage(reference string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `.TH "TURNGATE.TOML" "5" "" "turngate %s" "turngate"
.SH NAME
turngate.toml \- configuration file of turngate
.SH SYNOPSIS
.I %s
.SH DESCRIPTION
The file below has every key with its default. "turngate config check" finds
mistakes, "turngate config show" prints what holds and why.
.PP
.nf
`, version, defaultConfig)
	for line := range strings.Lines(reference) {
		line = strings.ReplaceAll(line, `\`, `\e`)
		line = strings.ReplaceAll(line, "-", `\-`)
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		b.WriteString(line)
	}
	b.WriteString(".fi\n.SH SEE ALSO\n.BR turngate (8)\n")
	return b.String()
}
