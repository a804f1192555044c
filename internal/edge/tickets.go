package edge

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// maxTicketKeys is far above any rotation; every ticket may be tried with all.
const maxTicketKeys = 16

// TicketKeys are the keys of session tickets (RFC 5077, RFC 8446 section
// 4.6.1): the first encrypts, all decrypt. nil means keys of this process,
// which Go changes every day.
type TicketKeys [][32]byte

// ReadTicketKeys reads a file of ticket keys: 32 bytes in base64 on a line
// each, with lines that begin with "#" left out. The error is a *FileError.
func ReadTicketKeys(path string) (TicketKeys, error) {
	b, err := readFile(path, true)
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) error {
		return &FileError{Path: path, What: fmt.Sprintf(format, args...), Fix: "make one with: turngate cert ticket-key " + path}
	}
	var keys TicketKeys
	n := 0
	for line := range bytes.Lines(b) {
		n++
		text := strings.TrimSpace(string(line))
		if text == "" || text[0] == '#' {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(raw) != 32 { // the text is a secret and not shown
			return nil, bad("line %d is not a key of 32 bytes in base64", n)
		}
		if len(keys) == maxTicketKeys {
			return nil, bad("it holds more than %d keys", maxTicketKeys)
		}
		keys = append(keys, [32]byte(raw))
	}
	if len(keys) == 0 {
		return nil, bad("it holds no key")
	}
	return keys, nil
}

// Text is the file that ReadTicketKeys reads.
func (k TicketKeys) Text() []byte {
	var b strings.Builder
	b.WriteString("# Keys of TLS session tickets: the first encrypts, all decrypt. Keep them secret.\n")
	for _, key := range k {
		b.WriteString(base64.StdEncoding.EncodeToString(key[:]) + "\n")
	}
	return []byte(b.String())
}
