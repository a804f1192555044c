package spool

import (
	"encoding/binary"
	"hash/crc32"
	"os"
)

// place is a point in the row of records.
type place struct {
	segment uint64
	offset  int64
}

// position keeps a place in a file of two slots that are written in turn, so that a write
// that is cut short leaves the one before: generation, segment and offset of 8 bytes each, and
// their CRC-32C, big-endian.
type position struct {
	file       *os.File
	generation uint64
	at         place
	lost       bool // there was something, and none of it could be read
}

const slotSize = 28

func openPosition(name string) (*position, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	p := &position{file: f}
	var b [2 * slotSize]byte
	n, _ := f.ReadAt(b[:], 0)
	for i := range 2 {
		slot := b[i*slotSize : (i+1)*slotSize]
		if (i+1)*slotSize > n || crc32.Checksum(slot[:24], castagnoli) != binary.BigEndian.Uint32(slot[24:]) {
			continue
		}
		offset := int64(binary.BigEndian.Uint64(slot[16:]))
		if g := binary.BigEndian.Uint64(slot); g > p.generation && offset >= 0 {
			p.generation = g
			p.at = place{binary.BigEndian.Uint64(slot[8:]), offset}
		}
	}
	p.lost = n >= slotSize && p.generation == 0
	return p, nil
}

// set makes a place the current one; it is on the disk when set returns.
func (p *position) set(at place) error {
	var b [slotSize]byte
	p.generation++
	p.at = at
	binary.BigEndian.PutUint64(b[:], p.generation)
	binary.BigEndian.PutUint64(b[8:], at.segment)
	binary.BigEndian.PutUint64(b[16:], uint64(at.offset))
	binary.BigEndian.PutUint32(b[24:], crc32.Checksum(b[:24], castagnoli))
	if _, err := p.file.WriteAt(b[:], int64(p.generation%2)*slotSize); err != nil {
		return err
	}
	return p.file.Sync()
}
