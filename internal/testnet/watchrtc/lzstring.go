package watchrtc

import (
	"errors"
	"strings"
	"unicode/utf16"
)

const lzAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-$"

var errLZ = errors.New("not an LZ-string")

// lzReader gives bits out of characters of six, the highest first, and numbers with
// their lowest bit first.
type lzReader struct {
	values []int
	bit    int
	ended  bool
}

func (r *lzReader) number(bits int) int {
	n := 0
	for i := range bits {
		at := r.bit / 6
		if at >= len(r.values) {
			r.ended = true
			return 0
		}
		if r.values[at]&(32>>(r.bit%6)) != 0 {
			n |= 1 << i
		}
		r.bit++
	}
	return n
}

// decompress undoes compressToEncodedURIComponent of lz-string 1.4: LZ78 over
// UTF-16 units, with widths that grow with the dictionary.
func decompress(s string) (string, error) {
	r := &lzReader{}
	for _, c := range s {
		i := strings.IndexRune(lzAlphabet, c)
		if i < 0 {
			return "", errLZ
		}
		r.values = append(r.values, i)
	}
	dict := make([][]uint16, 3) // 0 to 2 announce a new unit of 8 or 16 bits, and the end
	var out, last []uint16
	width, left := 3, 4 // left: entries until the next width
	first := true
	for {
		bits := width
		if first {
			bits = 2
		}
		code := r.number(bits)
		if r.ended {
			return "", errLZ
		}
		switch code {
		case 0, 1:
			dict = append(dict, []uint16{uint16(r.number(8 << code))})
			code = len(dict) - 1
			if !first {
				left--
			}
		case 2:
			return string(utf16.Decode(out)), nil
		}
		if left == 0 {
			left = 1 << width
			width++
		}
		if first {
			last = dict[code]
			out = append(out, last...)
			first = false
			continue
		}
		var entry []uint16
		switch {
		case code < len(dict):
			entry = dict[code]
		case code == len(dict):
			entry = append(append([]uint16{}, last...), last[0])
		default:
			return "", errLZ
		}
		out = append(out, entry...)
		dict = append(dict, append(append([]uint16{}, last...), entry[0]))
		left--
		last = entry
		if left == 0 {
			left = 1 << width
			width++
		}
	}
}
