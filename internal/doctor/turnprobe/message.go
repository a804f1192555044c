package turnprobe

import (
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
)

// Methods, classes and attributes that a self-test needs (RFC 8489 section 18,
// RFC 8656 section 17 and 18).
const (
	methodBinding          = 0x001
	methodAllocate         = 0x003
	methodRefresh          = 0x004
	methodSend             = 0x006
	methodData             = 0x007
	methodCreatePermission = 0x008
	methodChannelBind      = 0x009

	classRequest    = 0
	classIndication = 1
	classSuccess    = 2
	classError      = 3

	attrUsername           = 0x0006
	attrMessageIntegrity   = 0x0008
	attrErrorCode          = 0x0009
	attrChannelNumber      = 0x000c
	attrLifetime           = 0x000d
	attrXORPeerAddress     = 0x0012
	attrData               = 0x0013
	attrRealm              = 0x0014
	attrNonce              = 0x0015
	attrXORRelayedAddress  = 0x0016
	attrRequestedTransport = 0x0019
	attrXORMappedAddress   = 0x0020

	magicCookie = 0x2112a442
	headerSize  = 20
)

// message is a STUN message.
type message struct {
	method, class uint16
	id            [12]byte
	attrs         []attr

	raw         []byte // of a received one
	integrityAt int    // offset of MESSAGE-INTEGRITY in raw, 0 for none
}

type attr struct {
	kind  uint16
	value []byte
}

func newMessage(method, class uint16) message {
	m := message{method: method, class: class}
	_, _ = rand.Read(m.id[:])
	return m
}

func (m *message) add(attrs ...attr) { m.attrs = append(m.attrs, attrs...) }

// bytes is the message on the wire.
func (m *message) bytes() []byte {
	b := make([]byte, headerSize, 256)
	// RFC 8489 section 5: the bits of the class stand among those of the method.
	binary.BigEndian.PutUint16(b, m.method&0xf80<<2|m.method&0x70<<1|m.method&0xf|m.class&2<<7|m.class&1<<4)
	binary.BigEndian.PutUint32(b[4:], magicCookie)
	copy(b[8:], m.id[:])
	for _, a := range m.attrs {
		b = binary.BigEndian.AppendUint16(b, a.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.value)))
		b = append(b, a.value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-headerSize))
	return b
}

// sign adds MESSAGE-INTEGRITY; its length counts in the header that is signed
// (RFC 8489 section 14.5).
func (m *message) sign(key []byte) {
	b := m.bytes()
	m.add(attr{attrMessageIntegrity, integrity(b, key)})
}

// integrity is the HMAC over a message up to MESSAGE-INTEGRITY, whose length it
// counts.
func integrity(b, key []byte) []byte {
	b = bytes.Clone(b)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-headerSize+24))
	h := hmac.New(sha1.New, key)
	h.Write(b)
	return h.Sum(nil)
}

// signedWith reports whether a received message carries the proof of the key.
func (m *message) signedWith(key []byte) bool {
	got, ok := m.get(attrMessageIntegrity)
	return ok && m.integrityAt > 0 && hmac.Equal(got, integrity(m.raw[:m.integrityAt], key))
}

// longTermKey is the key of RFC 8489 section 18.5.1.1.
func longTermKey(user, realm, password string) []byte {
	sum := md5.Sum([]byte(user + ":" + realm + ":" + password))
	return sum[:]
}

func parse(b []byte) (message, error) {
	if len(b) < headerSize || b[0]&0xc0 != 0 || binary.BigEndian.Uint32(b[4:]) != magicCookie ||
		int(binary.BigEndian.Uint16(b[2:])) != len(b)-headerSize {
		return message{}, errors.New("not a STUN message")
	}
	t := binary.BigEndian.Uint16(b)
	m := message{
		method: t&0x3e00>>2 | t&0xe0>>1 | t&0xf,
		class:  t&0x100>>7 | t&0x10>>4,
		id:     [12]byte(b[8:20]), raw: b,
	}
	for at := headerSize; at < len(b); {
		if len(b)-at < 4 {
			return m, errors.New("a cut attribute")
		}
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		if len(b)-at-4 < n {
			return m, errors.New("a cut attribute")
		}
		if kind == attrMessageIntegrity && m.integrityAt == 0 {
			m.integrityAt = at
		}
		m.add(attr{kind, b[at+4 : at+4+n]})
		at += 4 + (n+3)&^3
	}
	return m, nil
}

func (m *message) get(kind uint16) ([]byte, bool) {
	for _, a := range m.attrs {
		if a.kind == kind {
			return a.value, true
		}
	}
	return nil, false
}

// refusal is the error of an answer that is no success.
func (m *message) refusal() error {
	switch m.class {
	case classSuccess:
		return nil
	case classError:
		v, _ := m.get(attrErrorCode)
		if len(v) < 4 {
			return errors.New("an error without a code")
		}
		reason := strings.Map(func(r rune) rune {
			if r < ' ' || r > '~' {
				return -1
			}
			return r
		}, string(v[4:min(len(v), 84)]))
		return &Refused{int(v[2]&7)*100 + int(v[3]), reason}
	}
	return fmt.Errorf("an answer of class %d", m.class)
}

// mask is what addresses are XORed with (RFC 8489 section 14.2).
func (m *message) mask() []byte {
	return append(binary.BigEndian.AppendUint32(nil, magicCookie), m.id[:]...)
}

func (m *message) address(kind uint16) (netip.AddrPort, bool) {
	v, ok := m.get(kind)
	if !ok || !(len(v) == 8 && v[1] == 1 || len(v) == 20 && v[1] == 2) {
		return netip.AddrPort{}, false
	}
	mask, ip := m.mask(), bytes.Clone(v[4:])
	for i := range ip {
		ip[i] ^= mask[i]
	}
	addr, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(addr, binary.BigEndian.Uint16(v[2:])^magicCookie>>16), true
}

func (m *message) xorAddress(a netip.AddrPort) []byte {
	ip, family := a.Addr().Unmap().AsSlice(), byte(1)
	if len(ip) == 16 {
		family = 2
	}
	v := binary.BigEndian.AppendUint16([]byte{0, family}, a.Port()^magicCookie>>16)
	for i, mask := range m.mask()[:len(ip)] {
		v = append(v, ip[i]^mask)
	}
	return v
}

// channelData is a ChannelData message, padded on a stream (RFC 8656 section
// 12.5).
func channelData(channel uint16, payload []byte, pad bool) []byte {
	b := binary.BigEndian.AppendUint16(nil, channel)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, payload...)
	for pad && len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func parseChannelData(b []byte) (channel uint16, payload []byte, ok bool) {
	if len(b) < 4 || b[0]>>6 != 1 || int(binary.BigEndian.Uint16(b[2:])) > len(b)-4 {
		return 0, nil, false
	}
	return binary.BigEndian.Uint16(b), b[4 : 4+binary.BigEndian.Uint16(b[2:])], true
}

// frames cuts what comes into messages.
type frames struct {
	conn   net.Conn
	stream bool
	buf    []byte
}

func newFrames(conn net.Conn, stream bool) *frames {
	return &frames{conn: conn, stream: stream, buf: make([]byte, 1<<16)}
}

// next returns a message in memory of its own.
func (f *frames) next() ([]byte, error) {
	if !f.stream {
		n, err := f.conn.Read(f.buf)
		return bytes.Clone(f.buf[:n]), err
	}
	head := make([]byte, 4)
	if _, err := io.ReadFull(f.conn, head); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(head[2:]))
	switch head[0] >> 6 {
	case 0:
		n += headerSize - 4
	case 1:
		n = (n + 3) &^ 3
	default:
		return nil, fmt.Errorf("what answers speaks no TURN: it begins with %q", head)
	}
	frame := append(head, make([]byte, n)...)
	_, err := io.ReadFull(f.conn, frame[4:])
	return frame, err
}
