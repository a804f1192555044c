package wire

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"

	"github.com/pion/stun/v2"
)

const (
	headerSize = 20         // RFC 8489 section 5
	attrHeader = 4          // type and length of one attribute
	cookie     = 0x2112A442 // magic cookie, RFC 8489 section 5

	// maxAttributes bounds what one message makes us look at. The largest
	// legitimate request is a CreatePermission; see maxPeers in package turn.
	maxAttributes = 64
)

// Reasons for which a message is not looked at any further. None of them is
// worth an answer: RFC 8489 section 6.3 lets a server drop what does not parse.
var (
	ErrNotSTUN   = errors.New("not a STUN message")
	ErrLength    = errors.New("STUN length does not fit the bytes received")
	ErrAttribute = errors.New("STUN attribute does not fit its message")
)

// TransactionID identifies a transaction (RFC 8489 section 5).
type TransactionID [stun.TransactionIDSize]byte

// Message is a parsed STUN message. It borrows the bytes it was parsed from
// and is valid as long as they are. The zero value is ready for Parse, and one
// Message can be parsed into again and again without allocating.
//
// Attributes that follow MESSAGE-INTEGRITY, other than
// MESSAGE-INTEGRITY-SHA256 and FINGERPRINT, are as if they had not been sent
// (RFC 8489 section 14.5); of several attributes of one type the first counts
// (section 14).
type Message struct {
	Method Method
	Class  Class
	ID     TransactionID

	raw   []byte
	attrs []attribute
	// Offsets; 0 = absent.
	integrity    int // MESSAGE-INTEGRITY
	integrity256 int // MESSAGE-INTEGRITY-SHA256
	fingerprint  int // FINGERPRINT
}

type attribute struct {
	typ    Attr
	offset int // of the value
	size   int // of the value, padding not counted
}

// Looks reports whether p begins like a STUN message: two zero bits and the
// magic cookie. It needs eight bytes to say yes.
func Looks(p []byte) bool {
	return len(p) >= 8 && p[0]&0xC0 == 0 && binary.BigEndian.Uint32(p[4:8]) == cookie
}

// Parse reads the message that p consists of, neither more nor less.
func (m *Message) Parse(p []byte) error {
	*m = Message{attrs: m.attrs[:0]}
	if len(p) < headerSize || !Looks(p) {
		return ErrNotSTUN
	}
	size := int(binary.BigEndian.Uint16(p[2:4]))
	if size%4 != 0 || size != len(p)-headerSize {
		return ErrLength
	}
	var typ stun.MessageType
	typ.ReadValue(binary.BigEndian.Uint16(p[0:2]))
	m.Method, m.Class = typ.Method, typ.Class
	m.ID = TransactionID(p[8:20])
	m.raw = p
	return m.parseAttributes()
}

func (m *Message) parseAttributes() error {
	last := Attr(0) // the attribute behind which others are ignored
	for at := headerSize; at < len(m.raw); {
		if len(m.attrs) == maxAttributes || len(m.raw)-at < attrHeader || m.fingerprint != 0 {
			return ErrAttribute // FINGERPRINT is the last attribute, RFC 8489 section 14.7
		}
		a := attribute{
			typ:    Attr(binary.BigEndian.Uint16(m.raw[at:])),
			offset: at + attrHeader,
			size:   int(binary.BigEndian.Uint16(m.raw[at+2:])),
		}
		next := a.offset + (a.size+3)&^3
		if next > len(m.raw) {
			return ErrAttribute
		}
		switch {
		case a.typ == stun.AttrFingerprint:
			m.fingerprint = at
			m.attrs = append(m.attrs, a)
		case last == stun.AttrMessageIntegritySHA256,
			last == stun.AttrMessageIntegrity && a.typ != stun.AttrMessageIntegritySHA256:
			// Behind the integrity attributes: not protected, so not there.
		default:
			switch a.typ {
			case stun.AttrMessageIntegrity:
				m.integrity, last = at, a.typ
			case stun.AttrMessageIntegritySHA256:
				m.integrity256, last = at, a.typ
			}
			m.attrs = append(m.attrs, a)
		}
		at = next
	}
	return nil
}

// Get returns the value of the first attribute of the type. The slice
// borrows from the message.
func (m *Message) Get(t Attr) ([]byte, bool) {
	for _, a := range m.attrs {
		if a.typ == t {
			return m.raw[a.offset : a.offset+a.size : a.offset+a.size], true
		}
	}
	return nil, false
}

// Has reports whether an attribute of the type is there.
func (m *Message) Has(t Attr) bool {
	_, ok := m.Get(t)
	return ok
}

// All calls yield with the value of every attribute of the type, in order,
// until yield returns false.
func (m *Message) All(t Attr) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for _, a := range m.attrs {
			if a.typ == t && !yield(m.raw[a.offset:a.offset+a.size:a.offset+a.size]) {
				return
			}
		}
	}
}

// Unknown returns the comprehension-required attributes that known does not
// report (RFC 8489 section 6.3.1), nil when there is none.
func (m *Message) Unknown(known func(Attr) bool) []Attr {
	var unknown []Attr
	for _, a := range m.attrs {
		if a.typ.Required() && !known(a.typ) {
			unknown = append(unknown, a.typ)
		}
	}
	return unknown
}

// Address decodes the value of an XOR-…-ADDRESS attribute. The address is
// exactly 8 bytes (IPv4) or 20 bytes (IPv6) long and its family says the
// same; anything else is refused. An IPv4-mapped IPv6 address is returned as
// it was written: the caller decides what it means.
func (m *Message) Address(value []byte) (netip.AddrPort, bool) {
	var addr netip.Addr
	switch {
	case len(value) == 8 && value[1] == familyIPv4:
		b := [4]byte(value[4:8])
		for i := range b {
			b[i] ^= m.raw[4+i]
		}
		addr = netip.AddrFrom4(b)
	case len(value) == 20 && value[1] == familyIPv6:
		b := [16]byte(value[4:20])
		for i := range b { // cookie and transaction id, RFC 8489 section 14.2
			b[i] ^= m.raw[4+i]
		}
		addr = netip.AddrFrom16(b)
	default:
		return netip.AddrPort{}, false
	}
	port := binary.BigEndian.Uint16(value[2:4]) ^ cookie>>16
	return netip.AddrPortFrom(addr, port), true
}

// FingerprintOK reports whether the message has no FINGERPRINT or a right one
// (RFC 8489 section 14.7).
func (m *Message) FingerprintOK() bool {
	if m.fingerprint == 0 {
		return true
	}
	value, _ := m.Get(stun.AttrFingerprint)
	return len(value) == 4 && binary.BigEndian.Uint32(value) == stun.FingerprintValue(m.raw[:m.fingerprint])
}

// Len returns the size of the message in bytes.
func (m *Message) Len() int { return len(m.raw) }

// HasFingerprint reports whether the sender added a FINGERPRINT, so that an
// answer adds one too.
func (m *Message) HasFingerprint() bool { return m.fingerprint != 0 }

// HasIntegrity reports whether a MESSAGE-INTEGRITY is there.
func (m *Message) HasIntegrity() bool { return m.integrity != 0 }

// IntegrityOK reports whether MESSAGE-INTEGRITY was made with the key
// (RFC 8489 section 14.5). It takes the same time for every key.
func (m *Message) IntegrityOK(key Key) bool {
	value, ok := m.Get(stun.AttrMessageIntegrity)
	if !ok || len(value) != sha1.Size {
		return false
	}
	var sum [sha1.Size]byte
	return hmac.Equal(value, m.sum(sha1.New, key, m.integrity, sha1.Size, sum[:0]))
}

// HasIntegritySHA256 reports whether a MESSAGE-INTEGRITY-SHA256 is there.
func (m *Message) HasIntegritySHA256() bool { return m.integrity256 != 0 }

// IntegritySHA256OK reports whether MESSAGE-INTEGRITY-SHA256 was made with the
// key (RFC 8489 section 14.6). It may be cut to 16 bytes, in steps of four.
func (m *Message) IntegritySHA256OK(key Key) bool {
	value, ok := m.Get(stun.AttrMessageIntegritySHA256)
	if !ok || len(value) < 16 || len(value) > sha256.Size || len(value)%4 != 0 {
		return false
	}
	var sum [sha256.Size]byte
	return hmac.Equal(value, m.sum(sha256.New, key, m.integrity256, len(value), sum[:0])[:len(value)])
}

// sum computes the HMAC over the message up to the attribute at offset, with
// the header's length as if that attribute were the last.
func (m *Message) sum(h func() hash.Hash, key Key, offset, size int, dst []byte) []byte {
	var head [headerSize]byte
	copy(head[:], m.raw)
	binary.BigEndian.PutUint16(head[2:4], uint16(offset+attrHeader+size-headerSize))
	mac := hmac.New(h, key)
	mac.Write(head[:])
	mac.Write(m.raw[headerSize:offset])
	return mac.Sum(dst)
}
