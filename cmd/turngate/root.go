package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// defaultConfig is the file that is used when none is named and it exists.
const defaultConfig = "/etc/turngate/turngate.toml"

// run is the whole program: it returns the exit code. 0 is success, 1 a
// failure or findings, 2 a command line that makes no sense.
func run(args []string, in io.Reader, out, err io.Writer) int {
	io := streams{in, out, err}
	root := newRootCommand(io)
	root.SetArgs(args)
	failed := root.Execute()
	var exit exitError
	switch {
	case failed == nil:
		return 0
	case errors.As(failed, &exit):
		return exit.code
	}
	fmt.Fprintln(err, "turngate:", failed)
	var usage usageError
	if errors.As(failed, &usage) {
		return 2
	}
	return 1
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

// packagers are commands for making packages, which only a build for that has.
var packagers []func(streams) *cobra.Command

func newRootCommand(io streams) *cobra.Command {
	root := &cobra.Command{
		Use:           "turngate",
		Short:         "WebRTC out of a restrictive network: signaling and log proxy on 443, TURN on 3478 and 443",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; %ssee \"turngate help\"", args[0], likeness(cmd, args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(io.in)
	root.SetOut(io.out)
	root.SetErr(io.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w; see \"%s --help\"", err, cmd.CommandPath())}
	})
	root.AddCommand(
		newServeCommand(io),
		newSetupCommand(io),
		newConfigCommand(io),
		newCertCommand(io),
		newClientCommand(io),
		newFirewallCommand(io),
		newUserCommand(io),
		newCredentialCommand(io),
		newCheckCommand(io),
		newExplainCommand(io),
		newCheckLinkCommand(io),
		newStatusCommand(io),
		newTopCommand(io),
		newBundleCommand(io),
		newSessionsCommand(io),
		newKickCommand(io),
		newBansCommand(io),
		newUnbanCommand(io),
		newReloadCommand(io),
		newDrainCommand(io),
		newWsProxyCommand(io),
		newVersionCommand(io),
	)
	for _, packager := range packagers {
		root.AddCommand(packager(io))
	}
	root.SetHelpCommand(newHelpCommand(io, root))
	root.InitDefaultCompletionCmd()
	answerMisuse(root, "completion")
	return root
}

// answerMisuse has a group of commands that the library makes exit as ours do
// when a command line makes no sense.
func answerMisuse(root *cobra.Command, group string) {
	for _, c := range root.Commands() {
		if c.Name() != group {
			continue
		}
		c.Args = usageArgs(cobra.NoArgs)
		c.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
		for _, sub := range c.Commands() {
			sub.Args = usageArgs(sub.Args)
		}
	}
}

// choices has shells complete a flag with the values that it knows.
func choices(cmd *cobra.Command, flag string, values ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}

// configFile returns the file to use: the one named, or that of the
// environment, or the default one if it exists, or "".
func configFile(named string) string {
	if named != "" {
		return named
	}
	if env := os.Getenv("TURNGATE_CONFIG"); env != "" {
		return env
	}
	if _, err := os.Stat(defaultConfig); err == nil {
		return defaultConfig
	}
	return ""
}
