package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/turngate/turngate/docs"
	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/manual"
)

// newHelpCommand is "turngate help": about commands as cobra has it, and the
// manual by topic, symptom and code, out of the program itself.
func newHelpCommand(s streams, root *cobra.Command) *cobra.Command {
	about := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		about(cmd, args)
		if cmd == root {
			writeTopics(cmd.OutOrStdout(), readManual())
		}
	})
	return &cobra.Command{
		Use:   "help [COMMAND | TOPIC | SYMPTOM | CODE]",
		Short: "Help about a command, a topic, a symptom or a code",
		Long: `Without a word the commands and the topics. The manual is in the program: no
network is needed.

  turngate help reload            a command
  turngate help layout-2a         a topic: a document of the manual
  turngate help 5501              a symptom: 5501, 701, 1006, 401, 403, 437, 508 ...
  turngate help TG-061            a code of "turngate check"
  turngate help operations log    the section of a document, by words of its heading`,
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return slices.Concat(commandNames(root), topicNames(readManual())), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error { return help(s, root, args) },
	}
}

func help(s streams, root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil || len(rest) > 0 {
		cmd = nil
	}
	m := readManual()
	if cmd != nil {
		cmd.InitDefaultHelpFlag()
		if err := cmd.Help(); err != nil || cmd == root {
			return err
		}
		if p := m.Page(strings.Join(args, " ")); p != nil { // "wsproxy" is both
			fmt.Fprintln(s.out)
			return writeSection(s.out, m, p.Whole())
		}
		return nil
	}
	asked := strings.Join(args, " ")
	if strings.HasPrefix(strings.ToLower(asked), "tg") {
		if t, known := doctor.Lookup(asked); known {
			return writeCode(s.out, m, t)
		}
	}
	found := m.Find(args...)
	if len(found) == 0 {
		return usageError{unknownTopic(root, m, asked)}
	}
	if err := writeSection(s.out, m, found[0]); err != nil {
		return err
	}
	if more := found[1:]; len(more) > 0 {
		fmt.Fprintln(s.out, "\nAlso:")
		for _, f := range more[:min(8, len(more))] {
			fmt.Fprintf(s.out, "    turngate help %s\n", f.Address())
		}
	}
	return nil
}

// readManual reads the documents of this program, which its tests have read
// before.
func readManual() *manual.Manual {
	m, err := manual.Read(docs.Files)
	if err != nil {
		panic(err)
	}
	return m
}

// topicPages are the documents but the map of them, in whose place there is
// the list.
func topicPages(m *manual.Manual) []*manual.Page {
	return slices.DeleteFunc(m.Pages(), func(p *manual.Page) bool { return p.Name == "README" })
}

func topicNames(m *manual.Manual) []string {
	var names []string
	for _, p := range topicPages(m) {
		names = append(names, p.Name)
	}
	return names
}

func commandNames(root *cobra.Command) []string {
	var names []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

// writeTopics lists the documents, as cobra lists the commands.
func writeTopics(w io.Writer, m *manual.Manual) {
	fmt.Fprintln(w, "\nTopics (turngate help TOPIC, also a symptom like 5501 or a code like TG-061):")
	for _, p := range topicPages(m) {
		fmt.Fprintf(w, "  %-16s %s\n", p.Name, p.Title)
	}
}

func writeCode(w io.Writer, m *manual.Manual, t doctor.Topic) error {
	if err := t.WriteTopic(w); err != nil {
		return err
	}
	more := slices.DeleteFunc(m.Mentions(string(t.Code)), func(f manual.Section) bool { return strings.Contains(f.Page.Name, ".") }) // translations
	for i, f := range more {
		if i == 0 {
			fmt.Fprintln(w, "\nMore:")
		}
		fmt.Fprintf(w, "    turngate help %s\n", f.Address())
	}
	return nil
}

// writeSection renders for where it is written to.
func writeSection(w io.Writer, m *manual.Manual, section manual.Section) error {
	style := manual.Style{Width: 80, Link: func(target string) string { return linkOnATerminal(m, section.Page, target) }}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			style.Width = min(width, 110) // longer lines are hard to read
		}
		style.Bold = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	} else if width, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && width > 0 {
		style.Width = min(width, 110)
	}
	return section.Write(w, style)
}

// linkOnATerminal says how one gets to where a link leads.
func linkOnATerminal(m *manual.Manual, from *manual.Page, target string) string {
	page, anchor, _ := strings.Cut(target, "#")
	name, isPage := strings.CutSuffix(page, ".md")
	switch {
	case strings.Contains(target, "://"):
		return target
	case page == "": // in the same document
		name = from.Name
	case !isPage || m.Page(name) == nil || name == "README":
		return "" // in the sources alone
	}
	if anchor != "" {
		name += "#" + anchor
	}
	return "turngate help " + name
}

// unknownTopic says what might have been meant.
func unknownTopic(root *cobra.Command, m *manual.Manual, asked string) error {
	what := fmt.Sprintf("there is no command or topic %q", asked)
	if near := manual.Nearest(asked, slices.Concat(commandNames(root), topicNames(m))); len(near) > 0 {
		return fmt.Errorf("%s; did you mean \"turngate help %s\"?", what, near[0])
	}
	var at []string
	for _, f := range m.Mentions(asked) {
		at = append(at, "turngate help "+f.Address())
	}
	if len(at) > 0 {
		return fmt.Errorf("%s; it is mentioned in: %s", what, strings.Join(at[:min(5, len(at))], ", "))
	}
	return fmt.Errorf("%s; \"turngate help\" lists them", what)
}
