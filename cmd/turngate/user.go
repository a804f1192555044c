package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/turngate/turngate/config"
	"github.com/turngate/turngate/internal/pki"
)

func newUserCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "user",
		Short: "List, add and delete TURN users, and change their passwords",
		Long: `Lists, adds and deletes the TURN users of the configuration file, and changes
their passwords. The rest of the file stays as it is. The running turngate knows
of a change with "turngate reload"; no call ends by it.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newUserListCommand(s), newUserAddCommand(s), newUserDelCommand(s), newUserRotateCommand(s))
	return cmd
}

func newUserListCommand(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the TURN users of the configuration file, without their passwords",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := openUsers(s, cmd)
			if err != nil {
				return err
			}
			type user struct {
				Name      string `json:"name"`
				Passwords int    `json:"passwords"`
			}
			list := []user{}
			for _, u := range f.cfg.TURN.User {
				list = append(list, user{u.Name, len(u.All())})
			}
			if asJSON {
				return writeJSON(s.out, list)
			}
			w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "USER\tVALID PASSWORDS")
			for _, u := range list {
				fmt.Fprintf(w, "%s\t%d\n", u.Name, u.Passwords)
			}
			if err := w.Flush(); err != nil {
				return err
			}
			for _, more := range []struct {
				n    int
				what string
			}{
				{len(f.cfg.TURN.Secrets), "turn.secrets: whoever has a time-limited credential (turngate credential) is let in too"},
				{len(f.cfg.TURN.Database), "turn.database: its users are let in too"},
			} {
				if more.n > 0 {
					fmt.Fprintln(s.err, more.what)
				}
			}
			return nil
		},
	}
	configFlag(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func newUserAddCommand(s streams) *cobra.Command {
	var o passwordOptions
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Add a TURN user and print the password",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			f, err := openUsers(s, cmd)
			if err != nil {
				return err
			}
			if slices.ContainsFunc(f.cfg.TURN.User, func(u config.User) bool { return u.Name == name }) {
				return fmt.Errorf(`there is a user %q in %s already; "turngate user rotate" makes a new password`, name, f.path)
			}
			password, err := o.password(s)
			if err != nil {
				return err
			}
			if err := f.write(s, config.AddUser(f.text, name, password), nil); err != nil {
				return err
			}
			return o.print(s, f, name, password)
		},
	}
	configFlag(cmd)
	o.flags(cmd)
	return cmd
}

func newUserDelCommand(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "del NAME...",
		Short: "Delete TURN users",
		Long: `Deletes TURN users from the configuration file. What they have allocated when
turngate is reloaded ends when it would have been refreshed, within ten minutes;
"turngate kick --user NAME" ends it at once.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := openUsers(s, cmd)
			if err != nil {
				return err
			}
			text := f.text
			users := slices.Clone(f.cfg.TURN.User)
			for _, name := range args {
				i := slices.IndexFunc(users, func(u config.User) bool { return u.Name == name })
				if i < 0 {
					return f.unknown(name)
				}
				if text, err = config.RemoveUser(text, i); err != nil {
					return fmt.Errorf("%s: %w", f.path, err)
				}
				users = slices.Delete(users, i, i+1)
			}
			if err := f.write(s, text, nil); err != nil {
				return err
			}
			fmt.Fprintf(s.out, "%s: deleted from %s. Next: turngate reload\n", strings.Join(args, ", "), f.path)
			return nil
		},
	}
	configFlag(cmd)
	return cmd
}

func newUserRotateCommand(s streams) *cobra.Command {
	var o passwordOptions
	var now, settle bool
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a TURN user a new password, beside the old one until that is dropped",
		Long: `Gives a TURN user a new password and prints it. The old one is valid too until
the clients have the new one: then "turngate user rotate NAME --drop-old" ends it.
With --now the old one is not valid any more. A password that stands in a file
of its own (password = "file:/path") stays there; the old one goes to /path.old.`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if settle && (now || o.stdin) {
				return usageError{errors.New("--drop-old makes no new password: leave --now and --stdin out")}
			}
			f, err := openUsers(s, cmd)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(f.cfg.TURN.User, func(u config.User) bool { return u.Name == name })
			if i < 0 {
				return f.unknown(name)
			}
			u := f.cfg.TURN.User[i]
			current := u.All()[0]
			if settle {
				if len(u.All()) == 1 {
					fmt.Fprintf(s.out, "%s: has one password only: nothing to drop\n", name)
					return nil
				}
				text, err := config.SetPasswords(f.text, i, current.Source())
				if err != nil {
					return fmt.Errorf("%s: %w", f.path, err)
				}
				if err := f.write(s, text, nil); err != nil {
					return err
				}
				fmt.Fprintf(s.out, "%s: only the newest password is left in %s. Next: turngate reload\n", name, f.path)
				return nil
			}
			password, err := o.password(s)
			if err != nil {
				return err
			}
			next, old, err := rotation(current, password, now)
			if err != nil {
				return err
			}
			text, err := config.SetPasswords(f.text, i, next.source, old.sources()...)
			if err != nil {
				return fmt.Errorf("%s: %w", f.path, err)
			}
			if err := f.write(s, text, append(old, next)); err != nil {
				return err
			}
			return o.print(s, f, name, password)
		},
	}
	configFlag(cmd)
	o.flags(cmd)
	cmd.Flags().BoolVar(&now, "now", false, "the old password is not valid any more")
	cmd.Flags().BoolVar(&settle, "drop-old", false, "make no new password: only the newest one stays valid")
	return cmd
}

// placed is a password as the configuration writes it. One that stands in a file of its own has that
// file, and another one whose owner and mode it gets.
type placed struct{ source, value, file, like string }

type placedList []placed

func (l placedList) sources() (list []string) {
	for _, k := range l {
		list = append(list, k.source)
	}
	return list
}

// rotation says how a new password takes the place of a user's current one, and where that one goes.
func rotation(current config.Secret, password string, now bool) (next placed, old placedList, err error) {
	switch file, source := current.File(), current.Source(); {
	case file != "":
		next = placed{source, password, file, file}
		old = placedList{{source + ".old", current.Reveal(), file + ".old", file}}
	case strings.HasPrefix(source, "env:"):
		return next, nil, fmt.Errorf("the password is that of %s: change it there", source)
	default:
		next = placed{source: config.EscapeSecret(password)}
		old = placedList{{source: source}}
	}
	if now {
		old = nil
	}
	return next, old, nil
}

// passwordOptions say where a new password comes from and how it is printed.
type passwordOptions struct{ stdin, json bool }

func (o *passwordOptions) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.stdin, "stdin", false, "read the password from standard input; a random one is made otherwise")
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
}

func (o *passwordOptions) password(s streams) (string, error) {
	if !o.stdin {
		return config.NewPassword(), nil
	}
	b, err := io.ReadAll(io.LimitReader(s.in, 4096))
	if err != nil {
		return "", fmt.Errorf("standard input: %w", err)
	}
	p := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if p == "" {
		return "", errors.New("standard input holds no password")
	}
	return p, nil
}

func (o *passwordOptions) print(s streams, f *userFile, name, password string) error {
	if o.stdin {
		password = "" // it is known already
	}
	if o.json {
		return writeJSON(s.out, struct {
			Name     string `json:"name"`
			Password string `json:"password,omitempty"`
		}{name, password})
	}
	if password != "" {
		fmt.Fprintf(s.out, "user:     %s\npassword: %s\n", name, password)
	}
	fmt.Fprintf(s.out, "Written to %s. Next: turngate reload\n", f.path)
	return nil
}

// userFile is the configuration file whose users a command works on.
type userFile struct {
	path string // as it was named: what it refers to is relative to that
	file string // behind symbolic links
	text []byte
	cfg  *config.Config
}

func openUsers(s streams, cmd *cobra.Command) (*userFile, error) {
	path := configPath(cmd, nil)
	if path == "" {
		return nil, fmt.Errorf("there is no %s, and so no lasting users; name a file with --config, or begin one with \"turngate config init\"", defaultConfig)
	}
	cfg, err := loadConfig(s, cmd, nil)
	if err != nil {
		return nil, err
	}
	file, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	text, err := readRegular(file)
	if err != nil {
		return nil, err
	}
	return &userFile{path, file, text, cfg}, nil
}

func (f *userFile) unknown(name string) error {
	if len(f.cfg.TURN.User) == 0 {
		return fmt.Errorf("%s has no user %q, nor any other", f.path, name)
	}
	var names []string
	for _, u := range f.cfg.TURN.User {
		names = append(names, u.Name)
	}
	return fmt.Errorf("%s has no user %q; there are %s", f.path, name, strings.Join(names, ", "))
}

// write puts text in the place of the file, with the passwords that have files of their own. Old
// ones come first: what the file names must be there, and one that is valid too early harms nobody.
func (f *userFile) write(s streams, text []byte, passwords placedList) error {
	env := config.Machine()
	env.ReadFile = func(path string) ([]byte, os.FileMode, error) {
		for _, p := range passwords {
			if p.file == path {
				return []byte(p.value), 0o600, nil
			}
		}
		return config.Machine().ReadFile(path)
	}
	if _, findings := config.LoadBytes(f.path, text, env); findings.HasErrors() {
		fmt.Fprintln(s.err, findings.Err())
		fmt.Fprintf(s.err, "%s is left as it was\n", f.path)
		return exitError{1}
	}
	if now, err := readRegular(f.file); err != nil || !bytes.Equal(now, f.text) {
		return fmt.Errorf("%s has changed meanwhile and is left as it is: try again", f.path)
	}
	for _, p := range passwords {
		if p.file == "" {
			continue
		}
		if err := pki.WriteSecretLike(p.file, []byte(p.value+"\n"), p.like); err != nil {
			return err
		}
	}
	return pki.WriteSecret(f.file, text)
}
