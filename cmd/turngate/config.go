package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/pki"
)

// configFlag gives a command the flag --config.
func configFlag(cmd *cobra.Command) {
	cmd.Flags().StringP("config", "c", "", "configuration file (default $TURNGATE_CONFIG, else "+defaultConfig+" if it is there)")
}

// configPath is the file that a command works on: its argument, else what
// [configFile] makes of --config.
func configPath(cmd *cobra.Command, args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	named, _ := cmd.Flags().GetString("config")
	return configFile(named)
}

// loadConfig loads the file that a command works on. Without one it is the
// configuration of a start without a file. Findings that are errors are
// printed.
func loadConfig(s streams, cmd *cobra.Command, args []string) (*config.Config, error) {
	path := configPath(cmd, args)
	if path == "" {
		return fileless()
	}
	cfg, findings := config.Load(path)
	if err := findings.Err(); err != nil {
		fmt.Fprintln(s.err, err)
		return nil, exitError{1}
	}
	return cfg, nil
}

func newConfigCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Check, show, begin or import a configuration file",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigCheckCommand(s), newConfigShowCommand(s), newConfigInitCommand(s), newConfigImportCommand(s))
	return cmd
}

func newConfigCheckCommand(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Report everything that is wrong with a configuration file",
		Long: `Reports everything that is wrong with a configuration file, as
FILE:LINE: key: what; what to do. Certificate files that it names are looked at
too. Ends with exit code 1 when the server would refuse the file; warnings
alone end with 0.`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := configPath(cmd, args)
			if path == "" {
				return usageError{fmt.Errorf("there is no %s; name the file to check", defaultConfig)}
			}
			return checkConfig(s, path, asJSON)
		},
	}
	configFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the findings as JSON")
	return cmd
}

func checkConfig(s streams, path string, asJSON bool) error {
	_, findings := loadWithFiles(path)
	ok := !findings.HasErrors()
	if asJSON {
		if err := writeJSON(s.out, struct {
			File     string          `json:"file"`
			OK       bool            `json:"ok"`
			Findings config.Findings `json:"findings"`
		}{path, ok, findings}); err != nil {
			return err
		}
	} else {
		if len(findings) > 0 {
			fmt.Fprintln(s.out, findings.Error())
		}
		if ok {
			fmt.Fprintf(s.out, "%s: ok\n", path)
		}
	}
	if !ok {
		return exitError{1}
	}
	return nil
}

func newConfigShowCommand(s streams) *cobra.Command {
	var asJSON, asTOML bool
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Print every effective value and where it came from",
		Long: `Prints every effective value and where it came from: the file, a preset, the
environment, or the default. Secrets are not printed.`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && asTOML {
				return usageError{errors.New("choose one of --json and --toml")}
			}
			cfg := config.Default() // not fileless: that makes a credential
			if configPath(cmd, args) == "" {
				fmt.Fprintln(s.err, "turngate: no configuration file: these are the defaults")
			} else {
				var err error
				if cfg, err = loadConfig(s, cmd, args); err != nil {
					return err
				}
			}
			write := cfg.WriteTable
			if asJSON {
				write = cfg.WriteJSON
			} else if asTOML {
				write = cfg.WriteTOML
			}
			return write(s.out)
		},
	}
	configFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, with the reload class of each key")
	cmd.Flags().BoolVar(&asTOML, "toml", false, "print a configuration file; secrets must be put back in")
	return cmd
}

func newConfigInitCommand(s streams) *cobra.Command {
	starter := config.Starter{User: "turn"}
	var reference, force bool
	cmd := &cobra.Command{
		Use:   "init FILE",
		Short: "Write a first configuration file",
		Long: `Writes a first configuration file with a random credential, readable by its
owner only. A file that exists is left as it is, unless --force is given.
FILE "-" prints it.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if reference {
				return writeFirst(s, args[0], []byte(config.Reference), force)
			}
			starter.Password = config.NewPassword()
			data := complete(starter, os.Geteuid() == 0).TOML()
			if _, findings := config.LoadBytes(args[0], data, config.Machine()); findings.HasErrors() {
				fmt.Fprintln(s.err, findings.Err())
				return exitError{1}
			}
			return writeFirst(s, args[0], data, force)
		},
	}
	f := cmd.Flags()
	f.StringVar(&starter.Layout, "layout", "", `"external" or "intranet" (default: by the external address)`)
	choices(cmd, "layout", "external", "intranet")
	f.StringVar(&starter.Domain, "domain", "", "the name clients use")
	f.StringVar(&starter.ExternalIP, "external-ip", "", "the address that TURN hands out")
	f.StringVar(&starter.Cert, "cert", "", "certificate file")
	f.StringVar(&starter.Key, "key", "", "key file")
	f.StringVar(&starter.User, "user", starter.User, "name of the TURN user")
	f.BoolVar(&reference, "reference", false, "write the file that documents every key instead")
	f.BoolVar(&force, "force", false, "overwrite the file")
	return cmd
}

// complete chooses what the command line left open. Who is not root may not
// open port 443.
func complete(st config.Starter, root bool) config.Starter {
	if st.Layout == "" {
		st.Layout = config.External
		if addr, err := netip.ParseAddr(st.ExternalIP); err == nil && addr.IsPrivate() {
			st.Layout = config.Intranet
		}
	}
	if !root {
		st.HTTPS = config.Listen(netip.Addr{}, 8443)
	}
	return st
}

// writeFirst writes a file, or prints it, and says what comes next.
func writeFirst(s streams, path string, data []byte, force bool) error {
	if path == "-" {
		_, err := s.out.Write(data)
		return err
	}
	if err := writeConfig(path, data, force); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "%s: written. Next: turngate config check %s; turngate serve --config %s\n", path, path, path)
	return nil
}

// writeConfig writes a file that holds passwords, for its owner only. What exists
// is replaced only when that was asked for, and then at once; it keeps its owner.
func writeConfig(path string, data []byte, force bool) error {
	err := writeNew(path, 0o600, func(w io.Writer) error { _, err := w.Write(data); return err })
	switch {
	case errors.Is(err, fs.ErrExist) && force:
		return pki.WriteSecret(path, data)
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s exists already and is left as it is; --force overwrites it", path)
	}
	return err
}

// writeNew makes a file that must not exist yet. One that cannot be written to its
// end, on a full disk for example, is taken away: the next try is not to find
// half of it.
func writeNew(path string, mode os.FileMode, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}
