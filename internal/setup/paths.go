package setup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// node is a file, directory or link as it was.
type node struct {
	Name  string      `json:"name"` // below the path, "." for itself
	Mode  fs.FileMode `json:"mode"`
	UID   int         `json:"uid"`
	GID   int         `json:"gid"`
	Time  time.Time   `json:"time"`
	Link  string      `json:"link,omitempty"`
	Saved string      `json:"saved,omitempty"` // the copy in the journal's directory
	Sum   string      `json:"sum,omitempty"`
}

// before is a path as it was; without nodes there was nothing.
type before struct {
	Path  string `json:"path"`
	Nodes []node `json:"nodes,omitempty"`
}

// listing is a directory and the names in it; null names: it was not there.
type listing struct {
	Path  string   `json:"path"`
	Names []string `json:"names"`
	There bool     `json:"there"`
}

// left is a file and what was written into it.
type left struct {
	Path string `json:"path"`
	Sum  string `json:"sum"`
}

// moved is something that was renamed.
type moved struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// SavePath notes a file, or a directory with everything in it, before it is changed.
func (j *Journal) SavePath(path string) error {
	b := before{Path: path}
	err := filepath.WalkDir(j.host.Path(path), func(name string, _ fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := j.node(j.host.Path(path), name)
		b.Nodes = append(b.Nodes, n)
		return err
	})
	if err != nil {
		return err
	}
	return j.Note(kindPath, b)
}

func (j *Journal) node(base, name string) (n node, err error) {
	info, err := os.Lstat(name)
	if err != nil {
		return n, err
	}
	n.Name, err = filepath.Rel(base, name)
	if err != nil {
		return n, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return n, fmt.Errorf("%s: its owner cannot be told", name)
	}
	n.Mode, n.UID, n.GID, n.Time = info.Mode(), int(st.Uid), int(st.Gid), info.ModTime()
	switch {
	case info.Mode().IsRegular():
		data, err := os.ReadFile(name)
		if err != nil {
			return n, err
		}
		n.Sum = sum(data)
		n.Saved = fmt.Sprintf("saved-%s", n.Sum[:16])
		return n, j.host.Write(File{Path: j.dir + "/" + n.Saved, Data: data, Mode: 0o600, UID: os.Geteuid(), GID: os.Getegid()})
	case info.Mode().Type() == fs.ModeSymlink:
		n.Link, err = os.Readlink(name)
	case !info.IsDir():
		err = fmt.Errorf("%s is neither a file nor a directory", name)
	}
	return n, err
}

// SaveNames notes what is in a directory, whose other inhabitants put new things
// there: undoing removes those.
func (j *Journal) SaveNames(dir string) error {
	l := listing{Path: dir}
	entries, err := os.ReadDir(j.host.Path(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l.There = err == nil
	for _, e := range entries {
		l.Names = append(l.Names, e.Name())
	}
	return j.Note(kindList, l)
}

// WriteFile changes a file that is not as wanted, and notes how it was. It reports
// whether there was something to change.
func (j *Journal) WriteFile(f File) (changed bool, err error) {
	if j.host.Is(f) {
		return false, nil
	}
	if err := j.SavePath(f.Path); err != nil {
		return false, err
	}
	// Before it is written: an entry too many does no harm.
	if err := j.Note(kindLeft, left{f.Path, sum(f.Data)}); err != nil {
		return false, err
	}
	return true, j.host.Write(f)
}

// IsOurs reports whether a file is as a run has left it.
func (j *Journal) IsOurs(path string) bool {
	data, err := j.host.ReadFile(path)
	if err != nil {
		return false
	}
	for _, e := range slices.Backward(j.entries) {
		var l left
		if e.Kind == kindLeft && json.Unmarshal(e.Data, &l) == nil && l.Path == path {
			return l.Sum == sum(data)
		}
	}
	return false
}

// MoveAside gives a file or a directory another name beside its own, which is returned.
func (j *Journal) MoveAside(path string) (string, error) {
	to := path + "-until-" + time.Now().Format("20060102-150405")
	if err := j.Note(kindMove, moved{path, to}); err != nil {
		return "", err
	}
	return to, os.Rename(j.host.Path(path), j.host.Path(to))
}

func (j *Journal) undoMove(_ context.Context, raw json.RawMessage) error {
	var m moved
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	if !j.host.Exists(m.To) {
		return nil
	}
	return errors.Join(os.RemoveAll(j.host.Path(m.From)), os.Rename(j.host.Path(m.To), j.host.Path(m.From)))
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

// undoLeft keeps what somebody has changed since: nobody's work is lost.
func (j *Journal) undoLeft(_ context.Context, raw json.RawMessage) error {
	var l left
	if err := json.Unmarshal(raw, &l); err != nil {
		return err
	}
	data, err := j.host.ReadFile(l.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && sum(data) == l.Sum {
		return nil
	}
	if err != nil {
		return err
	}
	if saved, err := j.before(l.Path); err == nil && saved == sum(data) {
		return nil // it was not written, or put back already
	}
	to := l.Path + ".undone"
	if err := os.Rename(j.host.Path(l.Path), j.host.Path(to)); err != nil {
		return err
	}
	j.Say("%s was changed after setup: that version is kept as %s", l.Path, to)
	return nil
}

// before is the checksum of a file as the newest entry about it has it.
func (j *Journal) before(path string) (string, error) {
	for _, e := range slices.Backward(j.entries) {
		var b before
		if e.Kind == kindPath && json.Unmarshal(e.Data, &b) == nil && b.Path == path && len(b.Nodes) == 1 {
			return b.Nodes[0].Sum, nil
		}
	}
	return "", fs.ErrNotExist
}

func (j *Journal) undoPath(_ context.Context, raw json.RawMessage) error {
	var b before
	if err := json.Unmarshal(raw, &b); err != nil {
		return err
	}
	base := j.host.Path(b.Path)
	there := make(map[string]node)
	for _, n := range b.Nodes {
		there[filepath.Join(base, n.Name)] = n
	}
	// What is new goes, from the innermost out.
	var extra []string
	err := filepath.WalkDir(base, func(name string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if n, was := there[name]; !was || n.Mode.Type() != d.Type() {
			extra = append(extra, name)
			if d.IsDir() {
				return filepath.SkipDir
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range extra {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	for _, n := range b.Nodes { // outer ones come first
		if err := j.restore(filepath.Join(base, n.Name), n); err != nil {
			return err
		}
	}
	return nil
}

// restore puts one node back, and leaves alone what is as it was.
func (j *Journal) restore(name string, n node) error {
	switch {
	case n.Mode.IsDir():
		if err := os.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if info, err := os.Lstat(name); err != nil || !info.IsDir() {
			return fmt.Errorf("%s is not the directory that was made", name)
		}
		return errors.Join(os.Lchown(name, n.UID, n.GID), os.Chmod(name, n.Mode))
	case n.Link != "":
		if have, err := os.Readlink(name); err == nil && have == n.Link {
			return nil
		}
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) { // it leads elsewhere
			return err
		}
		return errors.Join(os.Symlink(n.Link, name), os.Lchown(name, n.UID, n.GID))
	}
	f := File{Path: name, Mode: n.Mode, UID: n.UID, GID: n.GID}
	var err error
	if f.Data, err = j.host.ReadFile(j.dir + "/" + n.Saved); err != nil {
		return err
	}
	if sum(f.Data) != n.Sum {
		return fmt.Errorf("%s: the copy of %s is not what was saved", j.dir+"/"+n.Saved, name)
	}
	anywhere := Host{} // name is a path of this process already
	if anywhere.Is(f) {
		return nil
	}
	return errors.Join(anywhere.Write(f), os.Chmod(name, n.Mode), os.Chtimes(name, n.Time, n.Time))
}

func (j *Journal) undoList(_ context.Context, raw json.RawMessage) error {
	var l listing
	if err := json.Unmarshal(raw, &l); err != nil {
		return err
	}
	entries, err := os.ReadDir(j.host.Path(l.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(l.Names, e.Name()) {
			if err := os.RemoveAll(filepath.Join(j.host.Path(l.Path), e.Name())); err != nil {
				return err
			}
		}
	}
	if l.There {
		return nil
	}
	return os.Remove(j.host.Path(l.Path))
}
