package config

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// masked is what every printed secret looks like. As the value of a secret it
// is refused, so that the output of "config show --toml" is never run as it is.
const masked = "[secret]"

const maxSecretFile = 64 << 10

// Secret is a password or key. However it is printed, encoded or logged it
// reads "[secret]" (and nothing when it is empty); only [Secret.Reveal] gives
// the value. Secrets compare with [Secret.Equal], not with ==.
type Secret struct {
	// fmt prints an unexported struct field without asking its methods, and
	// follows one pointer in doing so, but never two.
	p **secret
}

type secret struct {
	value string
	ref   string // "env:NAME" or "file:/path" it was read from, else ""
	text  string // how the file writes it; "": as a literal
}

// NewSecret returns a secret with the given value.
func NewSecret(value string) Secret { return newSecret(value, "", "") }

func newSecret(value, ref, text string) Secret {
	if value == "" {
		return Secret{}
	}
	p := &secret{value, ref, text}
	return Secret{&p}
}

// Reveal returns the value.
func (s Secret) Reveal() string {
	if s.p == nil {
		return ""
	}
	return (*s.p).value
}

// IsEmpty reports whether no secret is set.
func (s Secret) IsEmpty() bool { return s.Reveal() == "" }

// Equal reports whether both hold the same value.
func (s Secret) Equal(t Secret) bool { return s.Reveal() == t.Reveal() }

func (s Secret) String() string {
	if s.IsEmpty() {
		return ""
	}
	return masked
}

func (s Secret) GoString() string             { return strconv.Quote(s.String()) }
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
func (s Secret) LogValue() slog.Value         { return slog.StringValue(s.String()) }

// Format covers the verbs for which fmt does not ask String.
func (s Secret) Format(w fmt.State, verb rune) {
	if verb == 'v' && w.Flag('#') || verb == 'q' {
		io.WriteString(w, s.GoString())
		return
	}
	io.WriteString(w, s.String())
}

// ref is where the value was read from, or "".
func (s Secret) ref() string {
	if s.p == nil {
		return ""
	}
	return (*s.p).ref
}

// Source is how a configuration file writes the secret: a reference, or the value itself, so it
// is as secret as that.
func (s Secret) Source() string {
	if s.p != nil && (*s.p).text != "" {
		return (*s.p).text
	}
	return EscapeSecret(s.Reveal())
}

// File is the path of the file that holds the value alone, or "".
func (s Secret) File() string {
	path, _ := strings.CutPrefix(s.ref(), "file:")
	if path == s.ref() {
		return ""
	}
	return path
}

// resolveSecret turns what the file says into the secret: a literal,
// "env:NAME", "file:/path", or "plain:literal" for a literal that begins like
// one of these. Its errors never hold the value.
func resolveSecret(text, dir string, env Env) (Secret, error) {
	switch kind, rest, _ := strings.Cut(text, ":"); {
	case text == masked:
		return Secret{}, &wrong{"is the placeholder that \"config show\" prints", "put the real value in its place"}
	case kind == "plain" && len(text) > len(kind):
		return NewSecret(rest), nil
	case kind == "env" && len(text) > len(kind):
		value, ok := env.lookup(rest)
		if !ok || value == "" {
			return Secret{}, &wrong{fmt.Sprintf("the environment variable %q is not set or empty", rest),
				"set it for the service, or use file:/path"}
		}
		return newSecret(value, text, text), nil
	case kind == "file" && len(text) > len(kind):
		value, err := readSecret(under(dir, rest), env)
		if err != nil {
			return Secret{}, err
		}
		return newSecret(value, "file:"+under(dir, rest), text), nil
	}
	return NewSecret(text), nil
}

func readSecret(path string, env Env) (string, error) {
	data, mode, err := env.readFile(path)
	switch {
	case err != nil:
		return "", &wrong{fmt.Sprintf("the file cannot be read: %v", err), "check path, owner and mode"}
	case !mode.IsRegular():
		return "", &wrong{fmt.Sprintf("%q is not a regular file", path), "name a file that holds the secret alone"}
	case mode.Perm()&0o004 != 0:
		return "", &wrong{fmt.Sprintf("everybody on this machine can read %q", path), "chmod 0600 " + path}
	case len(data) > maxSecretFile:
		return "", &wrong{fmt.Sprintf("%q is larger than 64 KiB", path), "name a file that holds the secret alone"}
	}
	value := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if value == "" {
		return "", &wrong{fmt.Sprintf("the file %q is empty", path), "put the secret into it"}
	}
	return value, nil
}

// under makes a path of the configuration file relative to the directory the
// file stands in.
func under(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// Secrets lists every secret value of a configuration, and the values of header
// fields, which may be one: for a reader that makes sure that none of them gets out.
func (c *Config) Secrets() (list []Secret) {
	add := func(v reflect.Value) {
		switch s := v.Interface().(type) {
		case Secret:
			list = append(list, s)
		case HeaderValue:
			list = append(list, s.Secret)
		}
	}
	walk(reflect.ValueOf(c).Elem(), "", byIndex, func(l leaf) {
		switch add(l.value); l.value.Kind() {
		case reflect.Slice:
			for i := range l.value.Len() {
				add(l.value.Index(i))
			}
		case reflect.Map:
			for _, v := range l.value.Seq2() {
				add(v)
			}
		}
	})
	return slices.DeleteFunc(list, Secret.IsEmpty)
}
