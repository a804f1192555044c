package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const journalDir = "/var/lib/journal"

// root is a host in a directory.
func root(t *testing.T) Host {
	t.Helper()
	h := Host{Root: t.TempDir()}
	for _, dir := range []string{"/etc/app/sub", "/var/lib", "/run"} {
		if err := os.MkdirAll(h.Path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// tree describes everything below a directory but /run: kind, mode, owner, time of
// files, content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		if rel == "run" || rel == "var/lib/journal" && d.IsDir() {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprintf("%v %d:%d", info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d %q", info.ModTime().UnixNano(), data)
		case info.Mode().Type() == fs.ModeSymlink:
			to, _ := os.Readlink(name)
			text += " -> " + to
		}
		all[rel] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t *testing.T, h Host, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(h.Path(path), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, h Host, undo map[string]Undo) *Journal {
	t.Helper()
	j, err := OpenJournal(h, journalDir, undo)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return j
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, j *Journal, path, text string) {
	t.Helper()
	if _, err := j.WriteFile(File{Path: path, Data: []byte(text), Mode: 0o640, UID: os.Getuid(), GID: os.Getgid()}); err != nil {
		t.Fatal(err)
	}
}

func TestUndoLeavesTheTreeAsItWas(t *testing.T) {
	h := root(t)
	write(t, h, "/etc/app/conf", "old", 0o604)
	write(t, h, "/etc/app/sub/a", "a", 0o600)
	must(t, os.Symlink("conf", h.Path("/etc/app/link")), os.MkdirAll(h.Path("/var/lib/app/kept"), 0o711))
	before := tree(t, h.Root)

	j := open(t, h, nil)
	must(t, j.Begin("first"))
	put(t, j, "/etc/app/conf", "new")
	put(t, j, "/etc/app/made", "made")
	must(t, j.SavePath("/etc/app/sub"), os.RemoveAll(h.Path("/etc/app/sub")), os.Mkdir(h.Path("/etc/app/sub"), 0o700))
	write(t, h, "/etc/app/sub/b", "b", 0o600)
	must(t, j.SavePath("/etc/app/link"), os.Remove(h.Path("/etc/app/link")))
	write(t, h, "/etc/app/link", "no link", 0o600)
	if to, err := j.MoveAside("/var/lib/app/kept"); err != nil || h.Exists("/var/lib/app/kept") || !h.Exists(to) {
		t.Errorf("moved to %s: %v", to, err)
	}
	must(t, os.Mkdir(h.Path("/var/lib/app/kept"), 0o700))
	must(t, j.SaveNames("/var/lib/app"), j.SaveNames("/var/lib/new"), os.MkdirAll(h.Path("/var/lib/new/x"), 0o700), os.MkdirAll(h.Path("/var/lib/app/by-service"), 0o700))
	must(t, j.Done())
	if !j.IsOurs("/etc/app/conf") || j.IsOurs("/etc/app/sub/b") {
		t.Error("IsOurs knows not what was written")
	}
	after := tree(t, h.Root)

	// A second run that fails goes back to the first one's end.
	must(t, j.Begin("second"))
	put(t, j, "/etc/app/conf", "newer")
	put(t, j, "/etc/app/more", "more")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	must(t, j.RollBack(ctx))
	if diff := cmp.Diff(after, tree(t, h.Root)); diff != "" {
		t.Errorf("after a run that failed (-want +got):\n%s", diff)
	}

	// Another process takes back all.
	must(t, j.Begin("third"))
	put(t, j, "/etc/app/conf", "newest")
	must(t, j.Done())
	j.Close()
	j = open(t, h, nil)
	var note string
	if !j.LastRun(&note) || note != "third" || j.Unfinished() {
		t.Errorf("last run: %q, unfinished: %v", note, j.Unfinished())
	}
	must(t, j.UndoAll(ctx))
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("after the undo (-want +got):\n%s", diff)
	}
}

func TestUndoPutsALinkBackThatLeadsElsewhere(t *testing.T) {
	h := root(t)
	link := h.Path("/etc/app/current")
	if err := os.Symlink("old", link); err != nil {
		t.Fatal(err)
	}
	j, err := OpenJournal(h, journalDir, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	for _, err := range []error{j.Begin("a run"), j.SavePath("/etc/app/current"), os.Remove(link), os.Symlink("new", link), j.Done(), j.UndoAll(t.Context())} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.Readlink(link); err != nil || got != "old" {
		t.Errorf("the link leads to %q (%v), want old", got, err)
	}
}

func TestARunThatChangesNothingLeavesNothing(t *testing.T) {
	h := root(t)
	write(t, h, "/etc/app/conf", "same", 0o640)
	must(t, os.Chmod(h.Path("/etc/app/conf"), 0o640))
	before := tree(t, h.Root)
	j := open(t, h, nil)
	must(t, j.Begin(nil))
	put(t, j, "/etc/app/conf", "same")
	must(t, j.Done())
	if diff := cmp.Diff(before, tree(t, h.Root)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A process that dies at any line of the journal, even in the middle of one, leaves a
// host that can be put back.
func TestEveryTornJournalCanBeTakenBack(t *testing.T) {
	whole := root(t)
	j := open(t, whole, nil)
	steps := func(h Host, j *Journal) {
		must(t, j.Begin(nil))
		put(t, j, "/etc/app/conf", "new")
		put(t, j, "/etc/app/made", "made")
	}
	steps(whole, j)
	text, err := whole.ReadFile(journalDir + "/journal")
	must(t, err)
	for cut := 0; cut <= len(text); cut += 7 {
		h := root(t)
		write(t, h, "/etc/app/conf", "old", 0o600)
		before := tree(t, h.Root)
		j := open(t, h, nil)
		steps(h, j)
		j.Close()
		own, err := h.ReadFile(journalDir + "/journal")
		must(t, err)
		cut := min(cut, len(own))
		must(t, os.WriteFile(h.Path(journalDir+"/journal"), own[:cut], 0o600))
		// What was not noted was not done either.
		noted := string(own[:cut])
		if !strings.Contains(noted, `"path":"/etc/app/made","sum"`) {
			must(t, os.Remove(h.Path("/etc/app/made")))
		}
		if !strings.Contains(noted, `"path":"/etc/app/conf","sum"`) {
			must(t, os.Remove(h.Path("/etc/app/conf")))
			write(t, h, "/etc/app/conf", "old", 0o600)
		}
		j = open(t, h, nil)
		must(t, j.UndoAll(t.Context()))
		j.Close()
		got := tree(t, h.Root)
		for name := range before {
			if strings.Split(before[name], " ")[0] != strings.Split(got[name], " ")[0] {
				t.Errorf("cut at %d: %s was %s, is %s", cut, name, before[name], got[name])
			}
		}
		if len(got) != len(before) {
			t.Errorf("cut at %d: got %v, want %v", cut, got, before)
		}
	}
}

func TestWorkOfSomebodyElseIsKept(t *testing.T) {
	h := root(t)
	write(t, h, "/etc/app/conf", "old", 0o600)
	j := open(t, h, nil)
	var said []string
	j.Say = func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	must(t, j.Begin(nil))
	put(t, j, "/etc/app/conf", "new")
	must(t, j.Done())
	write(t, h, "/etc/app/conf", "new, and edited", 0o600)
	if j.IsOurs("/etc/app/conf") {
		t.Error("an edited file is taken for setup's own")
	}
	must(t, j.UndoAll(t.Context()))
	for path, want := range map[string]string{"/etc/app/conf": "old", "/etc/app/conf.undone": "new, and edited"} {
		if got, err := h.ReadFile(path); string(got) != want {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "/etc/app/conf.undone") {
		t.Errorf("said %q", said)
	}
}

func TestWhatCannotBeUndoneStaysInTheJournal(t *testing.T) {
	h := root(t)
	var failing error = errors.New("not now")
	var undone []string
	j := open(t, h, map[string]Undo{"x": func(_ context.Context, raw json.RawMessage) error {
		if string(raw) == `"2"` && failing != nil {
			return failing
		}
		undone = append(undone, string(raw))
		return nil
	}})
	must(t, j.Begin(nil), j.Note("x", "1"), j.Note("x", "2"), j.Note("x", "3"), j.Done())
	if err := j.UndoAll(t.Context()); !errors.Is(err, failing) {
		t.Errorf("got %v, want the failure", err)
	}
	failing = nil
	if j.Empty() {
		t.Fatal("the journal is empty")
	}
	must(t, j.UndoAll(t.Context()))
	if got := strings.Join(undone, " "); got != `"3" "1" "2"` || !j.Empty() || h.Exists(journalDir) {
		t.Errorf("undone: %s, empty: %v", got, j.Empty())
	}
}

func TestOneSetupAtATime(t *testing.T) {
	h := root(t)
	j := open(t, h, nil)
	if _, err := OpenJournal(h, journalDir, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	j.Close()
	open(t, h, nil).Close()
}

func TestAJournalOfAnotherVersionIsNotGuessedAt(t *testing.T) {
	h := root(t)
	j := open(t, h, map[string]Undo{"future": func(context.Context, json.RawMessage) error { return nil }})
	must(t, j.Begin(nil), j.Note("future", 1), j.Done())
	j.Close()
	if _, err := OpenJournal(h, journalDir, nil); err == nil || !strings.Contains(err.Error(), `"future"`) {
		t.Errorf("got %v, want a refusal", err)
	}
}
