package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// An Undo takes back one change, from what was noted before it. It is asked again
// after a failure, so it must not mind a change that is not there.
type Undo func(ctx context.Context, data json.RawMessage) error

// A Journal is the list of what was changed on a host, in runs: each run is one
// setup. It lies in a directory that only root may look into, and the directory is
// there only while there is something to take back.
type Journal struct {
	// Say tells what a person should know while things are taken back.
	Say func(format string, args ...any)

	host    Host
	dir     string
	undo    map[string]Undo
	entries []entry
	lock    *os.File
}

// entry is a line of the journal.
type entry struct {
	Kind string          `json:"kind"`
	Data json.RawMessage `json:"data,omitempty"`
}

// Kinds of entries of the journal itself.
const (
	kindRun  = "run"  // a setup begins
	kindDone = "done" // and has come to its end
	kindPath = "path" // a file, or a directory with all in it, as it was
	kindList = "list" // the names in a directory
	kindLeft = "left" // what was written into a file
	kindMove = "move" // what was moved aside
)

// ErrBusy means that another setup is under way.
var ErrBusy = errors.New("another turngate setup is under way on this host")

// OpenJournal reads the journal in dir, which need not exist. undo has a function for
// each kind of change that the caller notes. Close is to be called.
func OpenJournal(host Host, dir string, undo map[string]Undo) (*Journal, error) {
	j := &Journal{Say: func(string, ...any) {}, host: host, dir: dir, undo: make(map[string]Undo)}
	for kind, f := range undo {
		j.undo[kind] = f
	}
	j.undo[kindPath], j.undo[kindList], j.undo[kindLeft], j.undo[kindMove] = j.undoPath, j.undoList, j.undoLeft, j.undoMove
	nothing := func(context.Context, json.RawMessage) error { return nil }
	j.undo[kindRun], j.undo[kindDone] = nothing, nothing
	if err := j.hold(); err != nil {
		return nil, err
	}
	data, err := host.ReadFile(j.file())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		j.Close()
		return nil, err
	}
	for line := range bytes.Lines(data) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			// The last line of a run that lost power: its change was not begun.
			if err := j.drop(len(j.entries)); err != nil {
				j.Close()
				return nil, err
			}
			break
		}
		if j.undo[e.Kind] == nil {
			j.Close()
			return nil, fmt.Errorf("%s is of another version of turngate: it knows a change of the kind %q", host.Path(j.file()), e.Kind)
		}
		j.entries = append(j.entries, e)
	}
	return j, nil
}

func (j *Journal) file() string { return j.dir + "/journal" }

// hold keeps a second setup away. The lock lies beside the directory's name in /run,
// because the directory comes and goes.
func (j *Journal) hold() error {
	path := j.host.Path("/run/turngate-setup.lock")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrBusy
		}
		return err
	}
	j.lock = f
	return nil
}

// Close lets another setup begin. What is in the journal stays.
func (j *Journal) Close() { j.lock.Close() }

// Empty reports whether there is nothing to take back.
func (j *Journal) Empty() bool { return len(j.entries) == 0 }

// Unfinished reports whether the last run neither came to its end nor was taken back.
func (j *Journal) Unfinished() bool {
	return !j.Empty() && j.entries[len(j.entries)-1].Kind != kindDone
}

// LastRun reads what the last run that came to its end was begun with.
func (j *Journal) LastRun(note any) bool {
	done := false
	for _, e := range slices.Backward(j.entries) {
		done = done || e.Kind == kindDone
		if done && e.Kind == kindRun {
			return json.Unmarshal(e.Data, note) == nil
		}
	}
	return false
}

// Begin begins a run.
func (j *Journal) Begin(note any) error {
	if j.Empty() {
		if err := os.MkdirAll(j.host.Path(j.dir), 0o700); err != nil {
			return err
		}
	}
	return j.Note(kindRun, note)
}

// Done ends a run. One that changed nothing leaves nothing behind.
func (j *Journal) Done() error {
	if n := len(j.entries); n > 0 && j.entries[n-1].Kind == kindRun {
		return j.drop(n - 1)
	}
	return j.Note(kindDone, nil)
}

// Note says how things are before they are changed; it is on the disk when it returns.
func (j *Journal) Note(kind string, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return err
	}
	return j.append(entry{kind, raw})
}

func (j *Journal) append(e entry) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(j.host.Path(j.file()), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	j.entries = append(j.entries, e)
	return nil
}

// drop shortens the journal to n entries, and removes it with the last one.
func (j *Journal) drop(n int) error {
	if n == 0 {
		j.entries = nil
		return os.RemoveAll(j.host.Path(j.dir))
	}
	return j.keep(j.entries[:n])
}

func (j *Journal) keep(entries []entry) error {
	var text bytes.Buffer
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		text.Write(append(line, '\n'))
	}
	j.entries = slices.Clone(entries)
	return j.host.Write(File{Path: j.file(), Data: text.Bytes(), Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid()})
}

// RollBack takes back the run under way, the last change first. A context that has
// ended does not keep it from that.
func (j *Journal) RollBack(ctx context.Context) error {
	for i := len(j.entries) - 1; i >= 0; i-- {
		if j.entries[i].Kind == kindRun {
			return j.takeBack(context.WithoutCancel(ctx), i)
		}
	}
	return nil
}

// UndoAll takes back every run.
func (j *Journal) UndoAll(ctx context.Context) error {
	return j.takeBack(context.WithoutCancel(ctx), 0)
}

// takeBack undoes the entries from the given one on. What cannot be undone stays in
// the journal, and the rest is undone all the same.
func (j *Journal) takeBack(ctx context.Context, from int) error {
	var failed []error
	kept := slices.Clone(j.entries[:from])
	var stuck []entry
	for i := len(j.entries) - 1; i >= from; i-- {
		e := j.entries[i]
		if err := j.undo[e.Kind](ctx, e.Data); err != nil {
			failed = append(failed, err)
			stuck = append([]entry{e}, stuck...)
		}
	}
	if len(stuck) > 0 { // a run of its own, so that undo can be asked for again
		kept = append(append(kept, entry{Kind: kindRun}), stuck...)
		return errors.Join(append(failed, j.keep(append(kept, entry{Kind: kindDone})))...)
	}
	if len(kept) == 0 {
		return j.drop(0)
	}
	return j.keep(kept)
}

// Describe says what would be taken back, a line each.
func (j *Journal) Describe() []string {
	var lines []string
	seen := make(map[string]bool)
	for _, e := range j.entries {
		line := ""
		switch e.Kind {
		case kindPath:
			var b before
			if json.Unmarshal(e.Data, &b) != nil || seen[b.Path] {
				continue
			}
			seen[b.Path] = true
			line = "put back  " + b.Path
			if len(b.Nodes) == 0 {
				line = "remove    " + b.Path
			}
		case kindList:
			var l listing
			if json.Unmarshal(e.Data, &l) != nil || seen[l.Path] {
				continue
			}
			seen[l.Path] = true
			line = fmt.Sprintf("empty     %s, but for the %d things that were there before", l.Path, len(l.Names))
		case kindMove:
			var m moved
			if json.Unmarshal(e.Data, &m) != nil {
				continue
			}
			line = "put back  " + m.From
		case kindRun, kindDone, kindLeft:
			continue
		default:
			line = "put back  " + e.Kind
			if seen[line] {
				continue
			}
			seen[line] = true
		}
		lines = append(lines, line)
	}
	return lines
}
