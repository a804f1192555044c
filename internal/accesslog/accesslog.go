// Package accesslog writes lines to a file or to standard output without ever
// making the writer wait: lines go through a bounded queue to one goroutine, and
// what does not fit, or cannot be written, is dropped and counted. A full disk, a
// dead network file system or a pipe nobody reads costs lines and no call.
//
//	Write ─► queue ─► Serve ─► Target (a file, reopened after logrotate)
package accesslog

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	queueLines = 8192
	maxLine    = 16 << 10
	lookEvery  = 5 * time.Second // whether the file is still the one at its path
	flushLimit = 2 * time.Second // for what is queued when Serve ends
)

// Stdout is the name of the target that is standard output.
const Stdout = "stdout"

// A Target is where lines go. It is used by one Log.
type Target struct {
	name string
	out  io.Writer
	file *os.File    // nil: not a file of ours
	info os.FileInfo // of file
}

// Open opens a target: [Stdout], or a file that is made if need be and appended to.
func Open(name string, stdout io.Writer) (*Target, error) {
	t := &Target{name: name, out: stdout}
	if name == Stdout {
		return t, nil
	}
	return t, t.open()
}

func (t *Target) open() error {
	if info, err := os.Stat(t.name); err == nil && !info.Mode().IsRegular() && info.Mode()&os.ModeCharDevice == 0 {
		return fmt.Errorf("access log: %s is no file", t.name) // to open a pipe would wait for its reader
	}
	f, err := os.OpenFile(t.name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return fmt.Errorf("access log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("access log: %w", err)
	}
	t.Close()
	t.file, t.out, t.info = f, f, info
	return nil
}

// moved reports whether the path of a target leads to another file by now.
func (t *Target) moved() bool {
	if t.file == nil {
		return false
	}
	now, err := os.Stat(t.name)
	return err != nil || !os.SameFile(now, t.info)
}

// Close closes a file; standard output stays open.
func (t *Target) Close() error {
	if t.file == nil {
		return nil
	}
	err := t.file.Close()
	t.file = nil
	return err
}

// Log takes lines. Its methods may be called from many goroutines at once.
type Log struct {
	log    *slog.Logger // the log of the process, for what goes wrong here
	queue  chan []byte
	reopen chan struct{}

	swap chan struct{}

	mu      sync.Mutex // guards the fields below
	next    *Target    // to be used from now on
	waiting bool       // next was not taken yet

	written, full, failed atomic.Uint64
}

// New returns a Log without a target: lines are dropped uncounted until Use.
func New(log *slog.Logger) *Log {
	return &Log{log: log, queue: make(chan []byte, queueLines), reopen: make(chan struct{}, 1), swap: make(chan struct{}, 1)}
}

// Write queues one line and always succeeds; p is copied. It is for a
// slog.Handler, which writes a line at a time.
func (l *Log) Write(p []byte) (int, error) {
	if len(p) > maxLine {
		l.full.Add(1)
		return len(p), nil
	}
	select {
	case l.queue <- append(make([]byte, 0, len(p)), p...):
	default:
		l.full.Add(1)
	}
	return len(p), nil
}

// Use makes t the target, nil none, from the next line on. The one before is
// closed by Serve.
func (l *Log) Use(t *Target) {
	l.mu.Lock()
	if l.next != nil {
		l.next.Close() // nobody saw it
	}
	l.next, l.waiting = t, true
	l.mu.Unlock()
	signal(l.swap)
}

// Reopen opens the file at the path of the target anew, for logrotate.
func (l *Log) Reopen() { signal(l.reopen) }

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Serve writes until ctx ends, then what is queued, for a moment.
func (l *Log) Serve(ctx context.Context) {
	w := &writer{Log: l}
	done := make(chan struct{})
	go func() { // a write may hang for ever, which is nobody's reason to stay
		defer close(done)
		w.run(ctx)
	}()
	<-ctx.Done()
	limit := time.NewTimer(flushLimit)
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		l.log.Warn("access log: the last lines could not be written", "lines", len(l.queue))
	}
}

// writer is the goroutine of Serve.
type writer struct {
	*Log
	target *Target
	buf    *bufio.Writer
	lines  uint64 // in buf
	warned time.Time
}

func (w *writer) run(ctx context.Context) {
	w.buf = bufio.NewWriterSize(nil, 64<<10)
	w.take()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case line := <-w.queue:
			w.line(line)
			if len(w.queue) == 0 {
				w.flush()
			}
		case <-w.swap:
			w.take()
		case <-w.reopen:
			w.again()
		case <-look.C:
			if w.target != nil && w.target.moved() {
				w.again()
			}
		case <-ctx.Done():
			for len(w.queue) > 0 {
				w.line(<-w.queue)
			}
			w.flush()
			if w.target != nil {
				w.target.Close()
			}
			return
		}
	}
}

// take makes the target of the last Use the one that is written to.
func (w *writer) take() {
	w.mu.Lock()
	next, waiting := w.next, w.waiting
	w.next, w.waiting = nil, false
	w.mu.Unlock()
	if !waiting {
		return
	}
	w.flush()
	if w.target != nil {
		w.target.Close()
	}
	if w.target = next; next != nil {
		w.buf.Reset(next.out)
	}
}

// again opens the file anew; if it cannot, the old one goes on being written.
func (w *writer) again() {
	if w.target == nil || w.target.name == Stdout {
		return
	}
	w.flush()
	if err := w.target.open(); err != nil {
		w.warn(err)
		return
	}
	w.buf.Reset(w.target.out)
}

func (w *writer) line(line []byte) {
	if w.target == nil {
		return
	}
	if len(line) > w.buf.Available() {
		w.flush()
	}
	w.buf.Write(line) // into memory: flush has the errors
	w.lines++
}

func (w *writer) flush() {
	lines := w.lines
	w.lines = 0
	if lines == 0 {
		return
	}
	if err := w.buf.Flush(); err != nil {
		w.failed.Add(lines)
		w.warn(err)
		w.buf.Reset(w.target.out) // forgets the error and the lines
		return
	}
	w.written.Add(lines)
}

// warn tells the log of the process, at most once a minute.
func (w *writer) warn(err error) {
	if now := time.Now(); now.Sub(w.warned) >= time.Minute {
		w.warned = now
		w.log.Warn("access log: lines are lost", "err", err, "lost", w.full.Load()+w.failed.Load())
	}
}
