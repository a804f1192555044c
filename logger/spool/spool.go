// Package spool is a queue of byte strings on disk, first in, first out, that
// survives the end of the process at any moment.
//
// # Promises
//
// [Queue.Put] returns when the record is on the disk (fsync; callers that come together
// share one). [Queue.Done] returns when it is on the disk that the oldest record is dealt
// with. So nothing that Put accepted is lost by a crash or a power cut, and after one the
// queue begins with the record that Done was last asked for, or the one behind it: what is sent
// between Next and Done can be sent once more, and nothing else can. A process that
// is killed loses nothing that was written, so for it the window ends with one write of 28
// bytes; for the power cut it ends with the fsync behind that.
//
// # Files
//
//	0000000000000007.seg   records, appended: length, checksum, bytes
//	position               how far the oldest segment is dealt with
//	lock                   held while a process has the queue open
//
// A segment that is dealt with is removed. After a start writing begins with a new one, so
// a record that a crash cut short is the last of its segment: it was promised to nobody and is
// skipped. The directory has mode 0700, the files 0600.
package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
)

// Errors of Put.
var (
	ErrFull   = errors.New("the spool is full")
	ErrClosed = errors.New("the spool is closed")
	ErrInUse  = errors.New("another process has the spool open")
)

// A Budget bounds what the segments of several queues take on the disk. The zero value allows
// nothing. It may be used by many goroutines.
type Budget struct {
	max  atomic.Int64
	used atomic.Int64
}

// SetMax sets the limit in bytes; what is over it already stays.
func (b *Budget) SetMax(n int64) { b.max.Store(n) }

// Used returns the bytes taken.
func (b *Budget) Used() int64 { return b.used.Load() }

func (b *Budget) take(n int64) bool {
	if b.used.Add(n) > b.max.Load() {
		b.used.Add(-n)
		return false
	}
	return true
}

// MaxRecord bounds a record; a longer length in a file is damage.
const MaxRecord = 1 << 20

// Options configure a Queue.
type Options struct {
	Dir    string  // is made if it is not there; its parent too
	Budget *Budget // required; the files that are found count at once, even over the limit

	// Segment is the size at which a new segment begins; 0 means 1 MiB. The space of
	// records that are dealt with comes back with their segment.
	Segment int64

	Log *slog.Logger // nil: slog.Default
}

// A Queue is an open spool. Put and Depth may be called by many goroutines; Next
// and Done by one at a time.
type Queue struct {
	opt  Options
	log  *slog.Logger
	lock *os.File
	pos  *position

	mu       sync.Mutex // guards the fields below
	closed   bool
	segments []*segment // oldest first; the last one may be open for writing
	offset   int64      // in the oldest, behind what is dealt with
	number   uint64     // of the newest segment that ever was
	written  uint64     // puts so far
	failed   uint64     // puts up to here that were not on the disk when an fsync failed may never be
	damaged  int        // places where records could not be read

	syncMu sync.Mutex // one fsync at a time; guards synced
	synced uint64     // puts that are on the disk

	arrived chan struct{}
}

// Open opens a spool, or makes it, and reads what it holds.
func Open(opt Options) (*Queue, error) {
	if opt.Segment == 0 {
		opt.Segment = 1 << 20
	}
	q := &Queue{opt: opt, log: opt.Log, arrived: make(chan struct{}, 1)}
	if q.log == nil {
		q.log = slog.Default()
	}
	if err := makeDir(opt.Dir); err != nil {
		return nil, err
	}
	if err := os.Chmod(opt.Dir, 0o700); err != nil {
		return nil, err
	}
	var err error
	if q.lock, err = lockFile(filepath.Join(opt.Dir, "lock")); err != nil {
		return nil, err
	}
	if err := q.load(); err != nil {
		q.free()
		return nil, err
	}
	if records, _ := q.Depth(); records > 0 {
		q.wake()
	}
	return q, nil
}

// load finds the segments and where the oldest begins.
func (q *Queue) load() error {
	var err error
	if q.pos, err = openPosition(filepath.Join(q.opt.Dir, "position")); err != nil {
		return err
	}
	at := q.pos.at
	if q.pos.lost {
		q.log.Warn("spool position is damaged: reports that were sent may be sent again", "dir", q.opt.Dir)
	}
	q.number = at.segment
	numbers, err := segmentNumbers(q.opt.Dir)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		q.number = max(q.number, n)
		if n < at.segment {
			_ = os.Remove(segmentName(q.opt.Dir, n)) // dealt with; a crash came before its removal
			continue
		}
		s, err := openSegment(q.opt.Dir, n)
		if err != nil {
			return err
		}
		from := int64(0)
		if n == at.segment {
			from = min(at.offset, s.size)
		}
		if len(q.segments) == 0 {
			q.offset = from
		}
		if bad := s.scan(from); bad > 0 {
			q.damaged++
			q.log.Warn("spool segment ends in damage, which is skipped", "file", s.file.Name(), "bytes", bad)
		}
		q.opt.Budget.used.Add(s.size)
		q.segments = append(q.segments, s)
	}
	q.collect()
	return nil
}

// Put appends a record and returns when it is on the disk.
func (q *Queue) Put(record []byte) error {
	err := q.put(record, q.opt.Budget.take)
	if err == nil {
		q.wake()
	}
	return err
}

// Behind puts the oldest record behind all others, with other content. Like Done it is for the
// record that Next returned. The budget is not asked: what it takes comes back with the
// segment it leaves. A crash may leave it in both places.
func (q *Queue) Behind(record []byte) error {
	err := q.put(record, func(n int64) bool { q.opt.Budget.used.Add(n); return true })
	if err != nil {
		return err
	}
	return q.Done()
}

// put appends a record for which take has room.
func (q *Queue) put(record []byte, take func(n int64) bool) error {
	if len(record) > MaxRecord {
		return fmt.Errorf("a record of %d bytes", len(record))
	}
	seq, out, err := q.append(record, take)
	if err != nil {
		return err
	}
	if err := q.sync(seq, out); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

func (q *Queue) append(record []byte, take func(n int64) bool) (seq uint64, out *segment, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return 0, nil, ErrClosed
	}
	n := int64(headerSize + len(record))
	if !take(n) {
		return 0, nil, ErrFull
	}
	defer func() {
		if err != nil {
			q.opt.Budget.used.Add(-n)
		}
	}()
	if out, err = q.writable(n); err != nil {
		return 0, nil, err
	}
	if err := out.append(record); err != nil {
		out.writable = false // whatever its tail is now, nothing is written behind it
		return 0, nil, fmt.Errorf("spool: %w", err)
	}
	q.written++
	return q.written, out, nil
}

// writable returns a segment with room; the caller holds mu.
func (q *Queue) writable(n int64) (*segment, error) {
	if len(q.segments) > 0 {
		s := q.segments[len(q.segments)-1]
		if s.writable && (s.size == 0 || s.size+n <= q.opt.Segment) {
			return s, nil
		}
		if s.writable {
			// A later fsync is for the new one: what is in this must be safe before.
			err := s.file.Sync()
			s.writable = false
			if err != nil {
				q.failed = q.written
				return nil, fmt.Errorf("spool: %w", err)
			}
		}
	}
	s, err := createSegment(q.opt.Dir, q.number+1)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	q.number++
	if len(q.segments) == 0 {
		q.offset = 0
	}
	q.segments = append(q.segments, s)
	return s, nil
}

// sync returns when everything up to seq is on the disk. Whoever comes while another
// one syncs is served by the next fsync, together with all that wait.
func (q *Queue) sync(seq uint64, out *segment) error {
	q.syncMu.Lock()
	defer q.syncMu.Unlock()
	if q.synced >= seq {
		return nil
	}
	q.mu.Lock()
	last, failed := q.written, q.failed
	if len(q.segments) > 0 {
		out = q.segments[len(q.segments)-1]
	}
	q.mu.Unlock()
	if seq <= failed {
		return errors.New("the disk did not take it")
	}
	// Segments before this one were synced when the next one began. One that is closed was
	// dealt with already, or synced by Close.
	if err := out.file.Sync(); err != nil && !errors.Is(err, fs.ErrClosed) {
		q.mu.Lock()
		out.writable = false // the kernel may have forgotten what it could not write
		q.failed = max(q.failed, last)
		q.mu.Unlock()
		return err
	}
	q.synced = last
	return nil
}

// Next returns the oldest record that is not dealt with; ok is false when there is
// none. What cannot be read is skipped, logged and counted.
func (q *Queue) Next() (record []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.segments) > 0 && !q.closed {
		s := q.segments[0]
		record, next, err := s.read(q.offset)
		switch {
		case err == nil:
			return record, true
		case errors.Is(err, errDealtWith):
			q.offset = next
			q.collect()
			continue
		case errors.Is(err, errDamaged) && next > 0: // its length is plausible: go on behind it
			q.damaged++
			q.log.Warn("spooled record is damaged and skipped", "file", s.file.Name(), "offset", q.offset)
			q.pass(next)
			continue
		case errors.Is(err, io.EOF) && s.writable:
			return nil, false
		case !errors.Is(err, io.EOF) && !errors.Is(err, errDamaged):
			q.log.Error("spool cannot be read", "err", err)
			return nil, false
		}
		// The end of the segment, or damage behind which nothing can be found.
		q.drop()
	}
	return nil, false
}

// Ahead returns a record that waits behind the oldest: n is 1 for the next one. done says that
// it is dealt with before its turn, and returns when that is on the disk; Next will pass it
// over. ok is false when there is no such record, or it cannot be had.
func (q *Queue) Ahead(n int) (record []byte, done func() error, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	from := q.offset
	for _, s := range q.segments {
		for from < s.size {
			record, next, err := s.read(from)
			if next == 0 {
				break // nothing behind can be found in this one
			}
			if n == 0 {
				return record, func() error { return q.doneAhead(s, from) }, err == nil
			}
			n--
			from = next
		}
		from = 0
	}
	return nil, nil, false
}

// doneAhead marks a record of a segment that is behind the oldest.
func (q *Queue) doneAhead(s *segment, at int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	if err := s.markDealtWith(at); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// Done says that the record that Next returned is dealt with. An error means that a
// crash from now on would bring it back.
func (q *Queue) Done() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.segments) == 0 {
		return ErrClosed
	}
	s := q.segments[0]
	_, next, err := s.read(q.offset)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	q.pass(next)
	err = q.pos.set(place{s.number, q.offset})
	q.collect()
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// pass moves the offset behind one record; the caller holds mu.
func (q *Queue) pass(next int64) {
	s := q.segments[0]
	s.records, s.bytes = s.records-1, s.bytes-(next-q.offset-headerSize)
	q.offset = next
}

// collect removes segments that are dealt with; the caller holds mu, or nobody else
// knows the queue.
func (q *Queue) collect() {
	for len(q.segments) > 0 && q.offset >= q.segments[0].size {
		q.drop()
	}
}

// drop removes the oldest segment; the caller holds mu. The position may stay behind: it
// names a segment that is not there.
func (q *Queue) drop() {
	s := q.segments[0]
	if s.records > 0 { // readable when the spool was opened, and no more
		q.damaged++
		q.log.Warn("spool segment is damaged, the rest of it is lost", "file", s.file.Name(), "records", s.records)
	}
	s.writable = false
	s.file.Close()
	_ = os.Remove(s.file.Name())
	q.opt.Budget.used.Add(-s.size)
	q.segments, q.offset = q.segments[1:], 0
}

// Arrived returns a channel that receives after records have come, for who waits for
// Next to have something.
func (q *Queue) Arrived() <-chan struct{} { return q.arrived }

func (q *Queue) wake() {
	select {
	case q.arrived <- struct{}{}:
	default:
	}
}

// Depth returns how many records wait, and their bytes.
func (q *Queue) Depth() (records int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range q.segments {
		records, bytes = records+s.records, bytes+s.bytes
	}
	return records, bytes
}

// Damaged returns at how many places records could not be read.
func (q *Queue) Damaged() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.damaged
}

// Close leaves what waits on the disk.
func (q *Queue) Close() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return nil
	}
	q.closed = true
	var err error
	if n := len(q.segments); n > 0 && q.segments[n-1].writable { // for a Put that has yet to sync
		if err = q.segments[n-1].file.Sync(); err != nil {
			q.failed = q.written
		}
	}
	q.free()
	return err
}

func (q *Queue) free() {
	for _, s := range q.segments {
		q.opt.Budget.used.Add(-s.size)
		s.file.Close()
	}
	q.segments = nil
	if q.pos != nil {
		q.pos.file.Close()
	}
	q.lock.Close()
}
