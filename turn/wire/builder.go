package wire

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"net/netip"

	"github.com/pion/stun/v2"
)

// Builder writes one STUN message, attribute by attribute in the order of the
// calls. Integrity and Fingerprint come last, in this order.
type Builder struct {
	m stun.Message
}

// NewBuilder starts a message.
func NewBuilder(method Method, class Class, id TransactionID) *Builder {
	b := &Builder{m: stun.Message{
		Type:          stun.NewType(method, class),
		TransactionID: id,
		Raw:           make([]byte, 0, 160), // an Allocate success with everything
	}}
	b.m.WriteHeader()
	return b
}

// NewTransactionID returns an unpredictable transaction id.
func NewTransactionID() (id TransactionID) {
	rand.Read(id[:]) // never fails, crypto/rand
	return id
}

// Add appends an attribute; the value is copied.
func (b *Builder) Add(t Attr, value []byte) { b.m.Add(t, value) }

// AddUint32 appends an attribute whose value is one 32-bit number.
func (b *Builder) AddUint32(t Attr, v uint32) {
	b.m.Add(t, binary.BigEndian.AppendUint32(nil, v))
}

// AddError appends ERROR-CODE without a reason phrase: a phrase would only
// make the answer to a spoofed request larger (RFC 8489 section 14.8).
func (b *Builder) AddError(code int) {
	b.m.Add(ErrorCode, []byte{0, 0, byte(code / 100), byte(code % 100)})
}

// AddPlainAddress appends an address attribute that is not XORed, as
// ALTERNATE-SERVER is.
func (b *Builder) AddPlainAddress(t Attr, a netip.AddrPort) {
	// XOR with nothing: the cookie and transaction id of a header of zeroes
	// leave the address, and the port takes its own XOR twice.
	var value [20]byte
	plain := netip.AddrPortFrom(a.Addr(), a.Port()^cookie>>16)
	b.m.Add(t, appendXORAddress(value[:0], plain, make([]byte, headerSize)))
}

// AddAddressError appends ADDRESS-ERROR-CODE: why there is no relayed address of
// a family (RFC 8656 section 18.12).
func (b *Builder) AddAddressError(v6 bool, code int) {
	family := byte(familyIPv4)
	if v6 {
		family = familyIPv6
	}
	b.m.Add(AddressErrorCode, []byte{family, 0, byte(code / 100), byte(code % 100)})
}

// AddUnknown appends UNKNOWN-ATTRIBUTES (RFC 8489 section 14.9).
func (b *Builder) AddUnknown(unknown []Attr) {
	value := make([]byte, 0, 2*len(unknown))
	for _, t := range unknown {
		value = binary.BigEndian.AppendUint16(value, uint16(t))
	}
	b.m.Add(UnknownAttributes, value)
}

// AddAddress appends an XOR-…-ADDRESS attribute.
func (b *Builder) AddAddress(t Attr, a netip.AddrPort) {
	var value [20]byte
	b.m.Add(t, appendXORAddress(value[:0], a, b.m.Raw))
}

// Integrity appends MESSAGE-INTEGRITY made with the key.
func (b *Builder) Integrity(key Key) {
	// The only error is FINGERPRINT before it, which no caller writes.
	_ = stun.MessageIntegrity(key).AddTo(&b.m)
}

// IntegritySHA256 appends MESSAGE-INTEGRITY-SHA256 made with the key.
func (b *Builder) IntegritySHA256(key Key) {
	at := len(b.m.Raw)
	b.m.Add(MessageIntegritySHA256, make([]byte, sha256.Size))
	mac := hmac.New(sha256.New, key)
	mac.Write(b.m.Raw[:at]) // the length in the header counts the attribute already
	mac.Sum(b.m.Raw[at+attrHeader:][:0])
}

// Fingerprint appends FINGERPRINT.
func (b *Builder) Fingerprint() { _ = stun.Fingerprint.AddTo(&b.m) }

// Bytes returns the message. It is the builder's own memory.
func (b *Builder) Bytes() []byte { return b.m.Raw }

// appendXORAddress encodes a as RFC 8489 section 14.2 says, with the cookie
// and transaction id that stand at header[4:20].
func appendXORAddress(dst []byte, a netip.AddrPort, header []byte) []byte {
	family := byte(familyIPv6)
	if a.Addr().Is4() {
		family = familyIPv4
	}
	dst = append(dst, 0, family)
	dst = binary.BigEndian.AppendUint16(dst, a.Port()^cookie>>16)
	if a.Addr().Is4() {
		for i, x := range a.Addr().As4() {
			dst = append(dst, x^header[4+i])
		}
		return dst
	}
	for i, x := range a.Addr().As16() {
		dst = append(dst, x^header[4+i])
	}
	return dst
}

// AppendDataIndication appends a Data indication (RFC 8656 section 11.6) that
// carries payload from peer. It allocates only when dst must grow. The
// transaction id may be any value; an indication is never answered.
//
// A payload that does not fit the 16 bits of a STUN length appends nothing: of
// a datagram over IPv6 the last bytes do not.
func AppendDataIndication(dst []byte, id TransactionID, peer netip.AddrPort, payload []byte) []byte {
	start := len(dst)
	dst = append(dst, 0x00, 0x17, 0, 0, 0x21, 0x12, 0xA4, 0x42)
	dst = append(dst, id[:]...)
	size := 20
	if peer.Addr().Is4() {
		size = 8
	}
	if length := attrHeader + size + attrHeader + (len(payload)+3)&^3; length > math.MaxUint16 {
		return dst[:start]
	}
	dst = append(dst, 0x00, 0x12, 0, byte(size))
	dst = appendXORAddress(dst, peer, dst[start:start+headerSize])
	dst = append(dst, 0x00, 0x13, byte(len(payload)>>8), byte(len(payload)))
	dst = append(dst, payload...)
	for (len(dst)-start)%4 != 0 {
		dst = append(dst, 0)
	}
	binary.BigEndian.PutUint16(dst[start+2:], uint16(len(dst)-start-headerSize))
	return dst
}
