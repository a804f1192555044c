package accesslog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// serve runs l until the returned function is called, which waits for its end.
func serve(l *Log) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { l.Serve(ctx) })
	return func() { cancel(); wg.Wait() }
}

func mustOpen(t *testing.T, name string) *Target {
	t.Helper()
	target, err := Open(name, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func content(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLinesReachTheFileInOrder(t *testing.T) {
	name := filepath.Join(t.TempDir(), "access.log")
	if err := os.WriteFile(name, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l := New(quiet)
	l.Use(mustOpen(t, name))
	stop := serve(l)
	want := "before\n"
	for i := range 1000 {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", i))
		want += line
		l.Write([]byte(line))
	}
	stop()
	if got := content(t, name); got != want {
		t.Errorf("got %d bytes, want %d: %.200q", len(got), len(want), got)
	}
	if n := l.written.Load(); n != 1000 {
		t.Errorf("%d lines counted as written, want 1000", n)
	}
}

// logrotate moves the file away; what comes after Reopen stands in the new one,
// and nothing is lost in between.
func TestReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "access.log")
		l := New(quiet)
		l.Use(mustOpen(t, name))
		stop := serve(l)
		defer stop()
		write := func(line string) {
			io.WriteString(l, line)
			synctest.Wait()
		}
		write("one\n")
		if err := os.Rename(name, name+".1"); err != nil {
			t.Fatal(err)
		}
		write("two\n")
		l.Reopen()
		synctest.Wait()
		write("three\n")
		if got := content(t, name+".1"); got != "one\ntwo\n" {
			t.Errorf("the old file: got %q, want two lines", got)
		}
		if got := content(t, name); got != "three\n" {
			t.Errorf("the new file: got %q, want three", got)
		}
		// Without a signal the move is noticed too.
		os.Rename(name, name+".2")
		time.Sleep(lookEvery + time.Second)
		write("four\n")
		if got := content(t, name); got != "four\n" {
			t.Errorf("the file that was moved without a word: got %q in its place, want four", got)
		}
		// Nor does a directory that cannot be written end anything.
		os.Rename(name, name+".3")
		os.Mkdir(name, 0o700)
		l.Reopen()
		synctest.Wait()
		write("five\n")
		if got := content(t, name+".3"); got != "four\nfive\n" {
			t.Errorf("after a failed reopen: got %q in the file before, want four and five", got)
		}
	})
}

func TestUseChangesTheTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		l := New(quiet)
		io.WriteString(l, "to nobody\n")
		l.Use(mustOpen(t, a))
		stop := serve(l)
		synctest.Wait()
		io.WriteString(l, "one\n")
		synctest.Wait()
		l.Use(mustOpen(t, b))
		synctest.Wait()
		io.WriteString(l, "two\n")
		synctest.Wait()
		l.Use(nil)
		synctest.Wait()
		io.WriteString(l, "three\n")
		stop()
		if got := content(t, a); !strings.HasSuffix(got, "one\n") || strings.Contains(got, "two") {
			t.Errorf("the first file: got %q", got)
		}
		if got := content(t, b); got != "two\n" {
			t.Errorf("the second file: got %q, want two", got)
		}
	})
}

// stuckWriter takes nothing until it is let go.
type stuckWriter struct {
	bytes.Buffer
	let chan struct{}
}

func (w *stuckWriter) Write(p []byte) (int, error) {
	<-w.let
	return w.Buffer.Write(p)
}

func TestAWriterThatHangsCostsLinesAndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &stuckWriter{let: make(chan struct{})}
		l := New(quiet)
		target, _ := Open(Stdout, out)
		l.Use(target)
		stop := serve(l)
		began := time.Now()
		for range 8 * queueLines {
			io.WriteString(l, "line\n")
		}
		if d := time.Since(began); d > 0 {
			t.Errorf("Write waited %v", d)
		}
		if lost := l.full.Load(); lost < queueLines {
			t.Errorf("%d lines counted as lost, want at least %d", lost, queueLines)
		}
		stop() // also while it hangs
		if d := time.Since(began); d > flushLimit {
			t.Errorf("the end waited %v, want %v at most", d, flushLimit)
		}
		close(out.let)
		synctest.Wait()
	})
}

// fullDisk fails until it has room again.
type fullDisk struct {
	bytes.Buffer
	full bool
}

func (w *fullDisk) Write(p []byte) (int, error) {
	if w.full {
		return 0, errors.New("no space left on device")
	}
	return w.Buffer.Write(p)
}

func TestAFullDiskCostsLinesUntilItHasRoomAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs bytes.Buffer
		out := &fullDisk{full: true}
		l := New(slog.New(slog.NewTextHandler(&logs, nil)))
		target, _ := Open(Stdout, out)
		l.Use(target)
		stop := serve(l)
		for range 100 {
			io.WriteString(l, "lost\n")
			synctest.Wait()
		}
		out.full = false
		io.WriteString(l, "kept\n")
		stop()
		if got := out.String(); got != "kept\n" {
			t.Errorf("written: got %q, want kept", got)
		}
		if n := l.failed.Load(); n != 100 {
			t.Errorf("%d lines counted as lost, want 100", n)
		}
		if n := strings.Count(logs.String(), "\n"); n != 1 {
			t.Errorf("%d lines about it, want 1: %s", n, logs.String())
		}
	})
}

func TestWhatIsNoFileIsRefused(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{dir, filepath.Join(dir, "missing", "access.log")} {
		if target, err := Open(name, nil); err == nil {
			target.Close()
			t.Errorf("%s was opened", name)
		}
	}
}

func TestALineThatIsTooLongIsDropped(t *testing.T) {
	l := New(quiet)
	l.Write(make([]byte, maxLine+1))
	if l.full.Load() != 1 || len(l.queue) != 0 {
		t.Errorf("lost %d, queued %d; want 1 and 0", l.full.Load(), len(l.queue))
	}
}
