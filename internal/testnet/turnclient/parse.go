package turnclient

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Message is a STUN message that was received.
type Message struct {
	Type          uint16
	TransactionID TransactionID
	Attrs         []Attr
	Raw           []byte
}

// Parse takes a message apart and is strict: lengths have to add up.
func Parse(raw []byte) (*Message, error) {
	if len(raw) < headerSize {
		return nil, fmt.Errorf("%d bytes are no STUN message", len(raw))
	}
	if c := binary.BigEndian.Uint32(raw[4:]); c != magicCookie {
		return nil, fmt.Errorf("magic cookie %08x", c)
	}
	n := int(binary.BigEndian.Uint16(raw[2:]))
	if n%4 != 0 || n != len(raw)-headerSize || raw[0]&0xc0 != 0 {
		return nil, fmt.Errorf("type %04x with length %d in %d bytes", raw[:2], n, len(raw))
	}
	m := &Message{
		Type:          binary.BigEndian.Uint16(raw),
		TransactionID: TransactionID(raw[8:20]),
		Raw:           bytes.Clone(raw),
	}
	for rest := m.Raw[headerSize:]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, fmt.Errorf("%d bytes behind the last attribute", len(rest))
		}
		t, n := binary.BigEndian.Uint16(rest), int(binary.BigEndian.Uint16(rest[2:]))
		padded := (n + 3) &^ 3
		if len(rest) < 4+padded {
			return nil, fmt.Errorf("attribute %04x of %d bytes with %d left", t, n, len(rest)-4)
		}
		m.Attrs = append(m.Attrs, Attr{t, rest[4 : 4+n : 4+n], n})
		rest = rest[4+padded:]
	}
	return m, nil
}

// Method returns the method.
func (m *Message) Method() uint16 {
	return m.Type&0x3e00>>2 | m.Type&0xe0>>1 | m.Type&0xf
}

// Class returns the class.
func (m *Message) Class() uint16 { return m.Type&0x100>>7 | m.Type&0x10>>4 }

// Get returns the value of the first attribute of the type.
func (m *Message) Get(t uint16) ([]byte, bool) {
	for _, a := range m.Attrs {
		if a.Type == t {
			return a.Value, true
		}
	}
	return nil, false
}

// Has reports whether an attribute of the type is there.
func (m *Message) Has(t uint16) bool {
	_, ok := m.Get(t)
	return ok
}

// Uint32 returns the value of an attribute of four bytes.
func (m *Message) Uint32(t uint16) (uint32, bool) {
	v, ok := m.Get(t)
	if !ok || len(v) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(v), true
}

// XORAddress returns the value of the first attribute of the type.
func (m *Message) XORAddress(t uint16) (netip.AddrPort, bool) {
	all := m.XORAddresses(t)
	if len(all) == 0 {
		return netip.AddrPort{}, false
	}
	return all[0], true
}

// XORAddresses returns the values of all well-formed attributes of the type.
func (m *Message) XORAddresses(t uint16) []netip.AddrPort {
	mask := binary.BigEndian.AppendUint32(nil, magicCookie)
	mask = append(mask, m.TransactionID[:]...)
	var out []netip.AddrPort
	for _, a := range m.Attrs {
		v := a.Value
		if a.Type != t || !(len(v) == 8 && v[1] == FamilyIPv4 || len(v) == 20 && v[1] == FamilyIPv6) {
			continue
		}
		raw := bytes.Clone(v[4:])
		for i := range raw {
			raw[i] ^= mask[i]
		}
		addr, _ := netip.AddrFromSlice(raw)
		out = append(out, netip.AddrPortFrom(addr, binary.BigEndian.Uint16(v[2:])^magicCookie>>16))
	}
	return out
}

// ErrorCode returns the code of ERROR-CODE, 0 if there is none or it is not
// well formed.
func (m *Message) ErrorCode() int {
	v, ok := m.Get(AttrErrorCode)
	if !ok || len(v) < 4 || v[2]&7 < 3 || v[2]&7 > 6 || v[3] > 99 {
		return 0
	}
	return int(v[2]&7)*100 + int(v[3])
}

// Unknown returns the types UNKNOWN-ATTRIBUTES lists.
func (m *Message) Unknown() []uint16 {
	v, _ := m.Get(AttrUnknownAttributes)
	var out []uint16
	for ; len(v) >= 2; v = v[2:] {
		out = append(out, binary.BigEndian.Uint16(v))
	}
	return out
}

// CheckIntegrity reports whether MESSAGE-INTEGRITY, or its SHA-256 form, is
// there and right for the key.
func (m *Message) CheckIntegrity(key []byte) error {
	at := headerSize
	for _, a := range m.Attrs {
		switch {
		case a.Type == AttrMessageIntegrity && len(a.Value) == sha1.Size:
			if !hmac.Equal(a.Value, sign(sha1.New, key, m.Raw[:at], sha1.Size)) {
				return fmt.Errorf("MESSAGE-INTEGRITY is wrong")
			}
			return nil
		case a.Type == AttrMessageIntegritySHA256 && len(a.Value) <= sha256.Size:
			if !hmac.Equal(a.Value, sign(sha256.New, key, m.Raw[:at], len(a.Value))) {
				return fmt.Errorf("MESSAGE-INTEGRITY-SHA256 is wrong")
			}
			return nil
		}
		at += 4 + (len(a.Value)+3)&^3
	}
	return fmt.Errorf("no MESSAGE-INTEGRITY")
}

// CheckFingerprint reports whether FINGERPRINT is the last attribute and right.
func (m *Message) CheckFingerprint() error {
	if len(m.Attrs) == 0 || m.Attrs[len(m.Attrs)-1].Type != AttrFingerprint {
		return fmt.Errorf("no FINGERPRINT at the end")
	}
	got, ok := m.Uint32(AttrFingerprint)
	if !ok || got != fingerprint(m.Raw[:len(m.Raw)-8]) {
		return fmt.Errorf("FINGERPRINT is wrong")
	}
	return nil
}

// String names the message for test output.
func (m *Message) String() string {
	if len(m.Raw) > 0 && m.Attrs == nil && m.Type == 0 {
		return fmt.Sprintf("%d bytes that are no STUN message", len(m.Raw))
	}
	class := [...]string{"request", "indication", "success", "error"}[m.Class()]
	if code := m.ErrorCode(); code != 0 {
		class = fmt.Sprint(class, " ", code)
	}
	var types []string
	for _, a := range m.Attrs {
		types = append(types, fmt.Sprintf("%04x", a.Type))
	}
	return fmt.Sprintf("method %03x %s with attributes %v", m.Method(), class, types)
}
