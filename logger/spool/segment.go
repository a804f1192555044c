package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A record in a segment: length and CRC-32C of the bytes, 4 bytes each, big-endian,
// then the bytes. The highest bit of the length is set when the record is dealt with before
// its turn.
const (
	headerSize = 8
	dealtWith  = 0x80
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errDamaged is a record that is not what was written.
var errDamaged = errors.New("damaged record")

// errDealtWith is a record that is passed over.
var errDealtWith = errors.New("record that is dealt with")

// segment is one file of records. Its owner's lock guards it; reads of what is written
// need none.
type segment struct {
	file     *os.File
	number   uint64
	size     int64 // of the file, or of the whole records while it is written
	writable bool

	records int   // that are not dealt with
	bytes   int64 // of these
}

const segmentSuffix = ".seg"

func segmentName(dir string, number uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%016x%s", number, segmentSuffix))
}

// segmentNumbers lists the segments in a directory, oldest first.
func segmentNumbers(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		n, err := strconv.ParseUint(name, 16, 64)
		if ok && err == nil && len(name) == 16 && e.Type().IsRegular() {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}

func createSegment(dir string, number uint64) (*segment, error) {
	f, err := os.OpenFile(segmentName(dir, number), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(dir); err != nil {
		f.Close()
		_ = os.Remove(f.Name())
		return nil, err
	}
	return &segment{file: f, number: number, writable: true}, nil
}

// syncDir makes a new name in a directory last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// makeDir is os.MkdirAll for directories that are to last: what a power cut takes out
// of the directory above is lost with all that was synced in it.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil // what is there and no directory shows itself soon
	}
	above := filepath.Dir(dir)
	if above != dir {
		if err := makeDir(above); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := syncDir(above); err != nil && !errors.Is(err, os.ErrPermission) { // what may not be read cannot be synced
		return err
	}
	return nil
}

// openSegment opens a segment of an earlier process: nothing is appended to it.
func openSegment(dir string, number uint64) (*segment, error) {
	f, err := os.OpenFile(segmentName(dir, number), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &segment{file: f, number: number, size: info.Size()}, nil
}

// scan counts the records from an offset on; bad is the length of a tail that is none.
func (s *segment) scan(from int64) (bad int64) {
	for from < s.size {
		_, next, err := s.read(from)
		if next == 0 {
			return s.size - from
		}
		if err != errDealtWith {
			s.records, s.bytes = s.records+1, s.bytes+next-from-headerSize
		}
		from = next
	}
	return 0
}

// read returns the record at an offset and where the next one begins. Damage to the bytes
// alone leaves next, as does a mark; with next zero nothing behind can be found.
func (s *segment) read(at int64) (record []byte, next int64, err error) {
	var head [headerSize]byte
	if at+headerSize > s.size {
		if at == s.size {
			return nil, 0, io.EOF
		}
		return nil, 0, errDamaged
	}
	if _, err := s.file.ReadAt(head[:], at); err != nil {
		return nil, 0, err
	}
	marked := head[0]&dealtWith != 0
	head[0] &^= dealtWith
	n := int64(binary.BigEndian.Uint32(head[:4]))
	if n > MaxRecord || at+headerSize+n > s.size {
		return nil, 0, errDamaged
	}
	record = make([]byte, n)
	next = at + headerSize + n
	if _, err := s.file.ReadAt(record, at+headerSize); err != nil {
		return nil, 0, err
	}
	if crc32.Checksum(record, castagnoli) != binary.BigEndian.Uint32(head[4:]) {
		return nil, next, errDamaged
	}
	if marked {
		return nil, next, errDealtWith
	}
	return record, next, nil
}

// markDealtWith marks a record that read returns.
func (s *segment) markDealtWith(at int64) error {
	_, next, err := s.read(at)
	if err != nil {
		return err
	}
	var b [1]byte
	if _, err := s.file.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] |= dealtWith
	if _, err := s.file.WriteAt(b[:], at); err != nil {
		return err
	}
	s.records, s.bytes = s.records-1, s.bytes-(next-at-headerSize)
	return s.file.Sync()
}

// append writes a record behind the last whole one.
func (s *segment) append(record []byte) error {
	b := make([]byte, 0, headerSize+len(record))
	b = binary.BigEndian.AppendUint32(b, uint32(len(record)))
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(record, castagnoli))
	b = append(b, record...)
	if _, err := s.file.WriteAt(b, s.size); err != nil {
		_ = s.file.Truncate(s.size)
		return err
	}
	s.size += int64(len(b))
	s.records, s.bytes = s.records+1, s.bytes+int64(len(record))
	return nil
}
