package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// exitError ends a command with an exit code. What there is to say has been
// said by then.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// writeJSON prints what programs read.
func writeJSON(to io.Writer, v any) error {
	enc := json.NewEncoder(to)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// usageArgs makes a wrong number of arguments a [usageError].
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{fmt.Errorf("%w; %ssee \"%s --help\"", err, likeness(cmd, args), cmd.CommandPath())}
		}
		return nil
	}
}

// likeness asks whether a subcommand of nearly the same name was meant, with what
// separates it from the rest of a message; "" when none is.
func likeness(cmd *cobra.Command, args []string) string {
	if len(args) == 0 {
		return ""
	}
	cmd.SuggestionsMinimumDistance = 2 // letters that differ
	like := cmd.SuggestionsFor(args[0])
	if len(like) == 0 {
		return ""
	}
	return fmt.Sprintf("did you mean %q? Or ", like[0])
}
