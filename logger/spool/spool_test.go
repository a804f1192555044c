package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

type queue struct {
	*Queue
	t   testing.TB
	opt Options
}

func open(t testing.TB, dir string, max int64) *queue {
	t.Helper()
	b := new(Budget)
	b.SetMax(max)
	q := &queue{t: t, opt: Options{Dir: dir, Budget: b, Segment: 128, Log: slog.New(slog.DiscardHandler)}}
	q.reopen()
	t.Cleanup(func() { q.Close() })
	return q
}

// reopen does what a restart does.
func (q *queue) reopen() {
	q.t.Helper()
	if q.Queue != nil {
		q.Close()
	}
	opened, err := Open(q.opt)
	if err != nil {
		q.t.Fatal(err)
	}
	q.Queue = opened
}

func (q *queue) put(records ...string) {
	q.t.Helper()
	for _, r := range records {
		if err := q.Put([]byte(r)); err != nil {
			q.t.Fatal(err)
		}
	}
}

// take returns the next n records, done with each.
func (q *queue) take(n int) (got []string) {
	q.t.Helper()
	for range n {
		r, ok := q.Next()
		if !ok {
			return got
		}
		got = append(got, string(r))
		if err := q.Done(); err != nil {
			q.t.Fatal(err)
		}
	}
	return got
}

func numbered(from, to int) (list []string) {
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf("record %03d", i))
	}
	return list
}

func (q *queue) want(got, want []string) {
	q.t.Helper()
	if !slices.Equal(got, want) {
		q.t.Errorf("got %q, want %q", got, want)
	}
}

func TestRecordsComeOutInOrderAcrossRestarts(t *testing.T) {
	q := open(t, t.TempDir(), 1<<20)
	for round := range 5 {
		q.put(numbered(round*20, round*20+20)...)
		q.want(q.take(3), numbered(round*3, round*3+3))
		q.reopen()
	}
	if n, size := q.Depth(); n != 85 || size != 85*10 {
		t.Errorf("depth %d records, %d bytes, want 85 and 850", n, size)
	}
	q.want(q.take(1000), numbered(15, 100))
	if n, size := q.Depth(); n != 0 || size != 0 || q.opt.Budget.Used() != 0 {
		t.Errorf("empty: depth %d, %d bytes, %d on the disk", n, size, q.opt.Budget.Used())
	}
	if left, _ := filepath.Glob(filepath.Join(q.opt.Dir, "*.seg")); len(left) > 0 {
		t.Errorf("files left: %v", left)
	}
	q.reopen()
	q.put("again")
	q.reopen()
	q.want(q.take(5), []string{"again"})
}

func TestARecordThatIsNotDoneComesAgain(t *testing.T) {
	q := open(t, t.TempDir(), 1<<20)
	q.put("a", "", "c")
	for range 3 {
		if r, ok := q.Next(); !ok || string(r) != "a" {
			t.Fatalf("got %q, %v", r, ok)
		}
		q.reopen()
	}
	q.want(q.take(5), []string{"a", "", "c"})
}

func TestRecordsAreDealtWithOutOfTurn(t *testing.T) {
	all := numbered(0, 30) // of several segments
	for _, restart := range []bool{false, true} {
		q := open(t, t.TempDir(), 1<<20)
		q.put(all...)
		q.take(2)
		for n, want := range map[int]string{1: all[3], 5: all[7], 20: all[22]} {
			got, done, ok := q.Ahead(n)
			if !ok || string(got) != want {
				t.Fatalf("the record %d behind the oldest is %q, %v, want %q", n, got, ok, want)
			}
			if err := done(); err != nil {
				t.Fatal(err)
			}
			if got, _, ok := q.Ahead(n); ok {
				t.Errorf("%q is dealt with, and comes again", got)
			}
		}
		if got, _, ok := q.Ahead(28); ok {
			t.Errorf("behind the last record is %q", got)
		}
		q.want(q.take(2), []string{all[2], all[4]})
		if oldest, _ := q.Next(); string(oldest) != all[5] {
			t.Fatalf("the oldest is %q, want %q", oldest, all[5])
		}
		if err := q.Behind([]byte("changed")); err != nil {
			t.Fatal(err)
		}
		if restart {
			q.reopen()
		}
		if n, _ := q.Depth(); n != 23 {
			t.Errorf("%d records wait, want 23", n)
		}
		q.want(q.take(40), slices.Concat(all[6:7], all[8:22], all[23:], []string{"changed"}))
		if records, bytes := q.Depth(); records != 0 || bytes != 0 {
			t.Errorf("%d records of %d bytes are left", records, bytes)
		}
		q.reopen()
		q.want(q.take(1), nil)
	}
}

func TestARecordGoesBehindTheOthersWhereTheSpoolIsFull(t *testing.T) {
	q := open(t, t.TempDir(), 256)
	for q.Put([]byte("record")) == nil {
	}
	n, _ := q.Depth()
	for range 3 * n {
		oldest, _ := q.Next()
		if err := q.Behind(oldest); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(q.take(2 * n)); got != n {
		t.Errorf("%d records, want %d", got, n)
	}
	if used := q.opt.Budget.Used(); used > 256 {
		t.Errorf("%d bytes are taken of 256", used)
	}
}

func TestTheBudgetHoldsOnTheDisk(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, 1000)
	n := 0
	for ; ; n++ {
		err := q.Put(make([]byte, 42)) // 50 on the disk
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n != 20 || diskUse(t, dir) != 1000 {
		t.Errorf("%d records of 50 bytes, %d bytes on the disk, want 20 and 1000", n, diskUse(t, dir))
	}
	q.reopen()
	if err := q.Put(make([]byte, 42)); !errors.Is(err, ErrFull) {
		t.Errorf("after a restart: %v, want %v", err, ErrFull)
	}
	q.take(2) // a segment holds two
	if err := q.Put(make([]byte, 42)); err != nil {
		t.Errorf("with a segment gone: %v", err)
	}
	other := open(t, t.TempDir(), 0)
	other.opt.Budget = q.opt.Budget
	other.reopen()
	other.put(strings.Repeat("x", 42))
	if err := other.Put(make([]byte, 42)); !errors.Is(err, ErrFull) {
		t.Errorf("a second queue on the same budget: %v, want %v", err, ErrFull)
	}
	q.opt.Budget.SetMax(0)
	if got := len(q.take(100)); got != 19 {
		t.Errorf("%d records with the budget at zero, want all 19", got)
	}
}

func diskUse(t *testing.T, dir string) (n int64) {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.seg"))
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		n += info.Size()
	}
	return n
}

// Wherever a crash cuts the newest segment, what was written before is there, whole and
// in order, and the queue goes on.
func TestATornTailIsSkipped(t *testing.T) {
	q := open(t, t.TempDir(), 1<<20)
	q.put(numbered(0, 20)...)
	q.take(2)
	q.Close()
	files, _ := filepath.Glob(filepath.Join(q.opt.Dir, "*.seg"))
	last := files[len(files)-1]
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	const record = headerSize + 10
	before := 20 - len(whole)/record
	for cut := range len(whole) {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(q.opt.Dir)); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, filepath.Base(last)), int64(cut)); err != nil {
			t.Fatal(err)
		}
		c := open(t, dir, 1<<20)
		c.put("behind")
		c.want(c.take(100), append(numbered(2, before+cut/record), "behind"))
		if torn := cut%record != 0; (c.Damaged() > 0) != torn {
			t.Errorf("cut at %d: %d places of damage", cut, c.Damaged())
		}
		c.Close()
	}
}

// A byte that changed costs the record that it is in, or what is behind it in the segment.
func TestDamageYieldsNothingThatWasNotWritten(t *testing.T) {
	q := open(t, t.TempDir(), 1<<20)
	q.put(numbered(0, 12)...)
	q.Close()
	files, _ := filepath.Glob(filepath.Join(q.opt.Dir, "*.seg"))
	written := numbered(0, 12)
	for _, file := range files {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			bad := bytes.Clone(whole)
			bad[i] ^= 0x41
			if err := os.WriteFile(file, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			_ = os.Remove(filepath.Join(q.opt.Dir, "position"))
			c := open(t, q.opt.Dir, 1<<20)
			var got []string
			for {
				r, ok := c.Next()
				if !ok {
					break
				}
				got = append(got, string(r))
				c.mu.Lock() // on, without removing the file
				_, next, _ := c.segments[0].read(c.offset)
				c.pass(next)
				if c.offset == c.segments[0].size {
					c.segments[0].file.Close()
					c.segments, c.offset = c.segments[1:], 0
				}
				c.mu.Unlock()
			}
			for _, r := range got {
				if !slices.Contains(written, r) {
					t.Fatalf("byte %d of %s: got %q, which nobody wrote", i, file, r)
				}
			}
			if !slices.IsSorted(got) || len(got) < 12-len(whole)/18 || len(got) == 12 || c.Damaged() == 0 {
				t.Fatalf("byte %d of %s: got %q with %d places of damage", i, file, got, c.Damaged())
			}
			c.Close()
			for _, f := range files { // Next removed what it could not read
				if _, err := os.Stat(f); err != nil && f != file {
					t.Fatalf("byte %d of %s: %v", i, file, err)
				}
			}
		}
		if err := os.WriteFile(file, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A write of the position that is cut short, or damaged, leaves the one before it: one
// record comes twice, none is lost.
func TestADamagedPositionLosesNothing(t *testing.T) {
	for damage := range 2 * slotSize {
		q := open(t, t.TempDir(), 1<<20)
		q.opt.Segment = 1 << 20
		q.reopen()
		q.put(numbered(0, 6)...)
		q.take(3)
		q.Close()
		name := filepath.Join(q.opt.Dir, "position")
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		b[damage] ^= 0x10
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		q.reopen()
		got := q.take(100)
		if !slices.Equal(got, numbered(3, 6)) && !slices.Equal(got, numbered(2, 6)) {
			t.Errorf("byte %d: got %q, want the records from 3, or from 2", damage, got)
		}
	}
	q := open(t, t.TempDir(), 1<<20)
	q.put(numbered(0, 3)...)
	q.take(1)
	q.Close()
	if err := os.WriteFile(filepath.Join(q.opt.Dir, "position"), bytes.Repeat([]byte{7}, 2*slotSize), 0o600); err != nil {
		t.Fatal(err)
	}
	q.reopen()
	q.want(q.take(10), numbered(0, 3))
}

func TestPutsFromManyGoroutinesWhileOneReads(t *testing.T) {
	q := open(t, t.TempDir(), 1<<20)
	const writers, each = 16, 50
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := q.Put(fmt.Appendf(nil, "%02d %03d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := make(map[string]int)
	last := make(map[string]string)
	for len(seen) < writers*each {
		r, ok := q.Next()
		if !ok {
			<-q.Arrived()
			continue
		}
		if err := q.Done(); err != nil {
			t.Fatal(err)
		}
		seen[string(r)]++
		writer, number, _ := strings.Cut(string(r), " ")
		if number <= last[writer] && last[writer] != "" {
			t.Errorf("%s after %s of writer %s", number, last[writer], writer)
		}
		last[writer] = number
	}
	wg.Wait()
	for r, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times", r, n)
		}
	}
}

func TestASpoolBelongsToOneProcessAndToItsUserAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	q := open(t, dir, 1<<20)
	q.put("x")
	if _, err := Open(q.opt); !errors.Is(err, ErrInUse) {
		t.Errorf("a second Open: %v, want %v", err, ErrInUse)
	}
	err := filepath.WalkDir(filepath.Dir(dir), func(name string, d fs.DirEntry, walkErr error) error {
		info, err := d.Info()
		if err != nil || walkErr != nil {
			return errors.Join(err, walkErr)
		}
		want := fs.FileMode(0o600)
		if d.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: mode %v, want %v", name, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	q.Close()
	if err := q.Put([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Put after Close: %v, want %v", err, ErrClosed)
	}
	if _, ok := q.Next(); ok {
		t.Error("Next after Close has a record")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte{}, []byte{})
	f.Add([]byte("\x00\x00\x00\x01\x00\x00\x00\x00x"), bytes.Repeat([]byte{1}, 60))
	f.Fuzz(func(t *testing.T, segment, position []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segmentName(dir, 3), segment, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "position"), position, 0o600); err != nil {
			t.Fatal(err)
		}
		q := open(t, dir, 1<<20)
		if err := q.Put([]byte("new")); err != nil {
			t.Fatal(err)
		}
		got := q.take(len(segment) + 2)
		if len(got) == 0 || got[len(got)-1] != "new" {
			t.Errorf("got %q, want the new record at the end", got)
		}
		if n, size := q.Depth(); n != 0 || size != 0 || q.opt.Budget.Used() != 0 {
			t.Errorf("depth %d, %d, %d at the end", n, size, q.opt.Budget.Used())
		}
	})
}

func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			q := open(b, b.TempDir(), 1<<40)
			q.opt.Segment = 1 << 20
			q.reopen()
			record := make([]byte, 2000)
			b.SetParallelism(writers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := q.Put(record); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
