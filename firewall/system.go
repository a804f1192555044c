package firewall

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// A System is how the host is reached: its programs and files.
type System struct {
	// Run runs a program with input and returns what it printed. The error of a
	// program that fails holds what it complained of.
	Run func(ctx context.Context, input, name string, args ...string) (string, error)
	// Has reports whether a program is installed.
	Has func(name string) bool
	// Root is put before the paths of files; empty on the host itself.
	Root string
}

// Host is the machine that this process runs on.
func Host() System {
	return System{Run: runProgram, Has: func(name string) bool { _, err := lookPath(name); return err == nil }}
}

// lookPath finds a program of the administrator also when the path of who calls
// lacks the directories for them, as after "su".
func lookPath(name string) (string, error) {
	found, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/local/sbin/"} {
		if err == nil {
			break
		}
		found, err = exec.LookPath(dir + name)
	}
	return found, err
}

func runProgram(ctx context.Context, input, name string, args ...string) (string, error) {
	path, err := lookPath(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // what is read back is English
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.TrimSpace(stderr.String())
		if said == "" {
			said = strings.TrimSpace(stdout.String())
		}
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, said)
	}
	return stdout.String(), nil
}

// A Step is one command that changes the host.
type Step struct {
	Name  string
	Args  []string
	Input string
}

// String is the step as a shell would take it.
func (s Step) String() string {
	words := []string{s.Name}
	for _, a := range s.Args {
		if strings.ContainsAny(a, ` "'$`) {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		words = append(words, a)
	}
	line := strings.Join(words, " ")
	if s.Input != "" {
		line += " <<'END'\n" + strings.TrimSuffix(s.Input, "\n") + "\nEND"
	}
	return line
}

func (sys System) do(ctx context.Context, steps []Step) error {
	for _, s := range steps {
		if _, err := sys.Run(ctx, s.Input, s.Name, s.Args...); err != nil {
			return err
		}
	}
	return nil
}

// readFile returns a small file of the host, "" when it is not there.
func (sys System) readFile(path string) string {
	data, err := os.ReadFile(sys.Root + path)
	if err != nil {
		return ""
	}
	return string(data)
}
