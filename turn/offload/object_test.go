//go:build linux && (amd64 || arm64)

package offload

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/turngate/turngate/internal/testnet"
)

var update = flag.Bool("update", false, "rewrite program.sum, after go generate")

// generated are the flags that the object is compiled with, in offload.go.
func generated(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile("offload.go")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^//go:generate .*-cflags "([^"]*)".*$`).FindSubmatch(source)
	if line == nil {
		t.Fatal("offload.go does not say how the object is generated")
	}
	return string(line[1])
}

// program.sum says what the committed object was made of, and by which
// compiler: another version makes other instructions of the same source.
func TestTheObjectIsBuiltFromItsSource(t *testing.T) {
	var b strings.Builder
	fmt.Fprintln(&b, "flags", generated(t))
	sources, err := filepath.Glob("bpf/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(sources, "program_bpfel.o") {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s %x\n", filepath.ToSlash(name), sha256.Sum256(content))
	}
	if *update {
		line := "compiler " + compiler(t) + "\n"
		if err := os.WriteFile("program.sum", []byte(line+b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, got := recorded(t); got != b.String() {
		t.Errorf("the sources, the flags or the object have changed: go generate ./turn/offload && go test ./turn/offload -run Object -update\n got\n%s\nwant\n%s", b.String(), got)
	}
}

func TestCompilingTheSourceGivesTheObject(t *testing.T) {
	testnet.Need(t, "clang")
	out := filepath.Join(t.TempDir(), "program.o")
	args := append(strings.Fields(generated(t)), "-target", "bpfel", "-c", "bpf/turn.c", "-o", out)
	if text, err := exec.Command("clang", args...).CombinedOutput(); err != nil {
		t.Fatalf("clang: %v\n%s", err, text)
	}
	got, err := ebpf.LoadCollectionSpec(out)
	if err != nil {
		t.Fatal(err)
	}
	want, err := loadProgram()
	if err != nil {
		t.Fatal(err)
	}
	for name, m := range want.Maps {
		if n := got.Maps[name]; n == nil || n.Type != m.Type || n.KeySize != m.KeySize || n.ValueSize != m.ValueSize || n.Flags != m.Flags {
			t.Errorf("map %s: %v, committed %v", name, n, m)
		}
	}
	if by, _ := recorded(t); by != compiler(t) {
		t.Logf("compiled by %s, committed by %s: instructions are not compared", compiler(t), by)
		return
	}
	for name, p := range want.Programs {
		var a, b bytes.Buffer
		fmt.Fprintf(&a, "%v", got.Programs[name].Instructions)
		fmt.Fprintf(&b, "%v", p.Instructions)
		if a.String() != b.String() {
			t.Errorf("program %s: the committed instructions are others than those of its source", name)
		}
	}
}

func compiler(t *testing.T) string {
	t.Helper()
	testnet.Need(t, "clang")
	out, err := exec.Command("clang", "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}

// recorded reads program.sum: the compiler, and the rest.
func recorded(t *testing.T) (compiler, rest string) {
	t.Helper()
	content, err := os.ReadFile("program.sum")
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(content), "\n")
	return strings.TrimPrefix(first, "compiler "), rest
}
