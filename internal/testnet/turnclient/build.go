package turnclient

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"net/netip"
)

// TransactionID ties an answer to its request.
type TransactionID [12]byte

// Attr is one attribute. Length is what its header claims; negative means the
// true length.
type Attr struct {
	Type   uint16
	Value  []byte
	Length int
}

// Builder writes a message from front to back, in whatever order it is told.
// Nothing is checked.
type Builder struct {
	b      []byte
	length int // what the header claims; negative: the true length
}

// NewBuilder begins a message with a random transaction id.
func NewBuilder(method, class uint16) *Builder {
	b := &Builder{b: make([]byte, headerSize), length: -1}
	binary.BigEndian.PutUint16(b.b, messageType(method, class))
	binary.BigEndian.PutUint32(b.b[4:], magicCookie)
	rand.Read(b.b[8:20]) // never fails
	return b
}

func messageType(method, class uint16) uint16 {
	return method&0xf80<<2 | method&0x70<<1 | method&0xf | class&2<<7 | class&1<<4
}

// ID returns the transaction id.
func (b *Builder) ID() TransactionID { return TransactionID(b.b[8:20]) }

// SetID replaces the transaction id.
func (b *Builder) SetID(id TransactionID) *Builder {
	copy(b.b[8:], id[:])
	return b
}

// SetType replaces the whole type field.
func (b *Builder) SetType(t uint16) *Builder {
	binary.BigEndian.PutUint16(b.b, t)
	return b
}

// SetCookie replaces the magic cookie.
func (b *Builder) SetCookie(c uint32) *Builder {
	binary.BigEndian.PutUint32(b.b[4:], c)
	return b
}

// SetLength makes the header claim a length.
func (b *Builder) SetLength(n int) *Builder {
	b.length = n
	return b
}

// Add appends attributes, padded with zeroes.
func (b *Builder) Add(attrs ...Attr) *Builder {
	for _, a := range attrs {
		n := a.Length
		if n < 0 {
			n = len(a.Value)
		}
		b.b = binary.BigEndian.AppendUint16(b.b, a.Type)
		b.b = binary.BigEndian.AppendUint16(b.b, uint16(n))
		b.b = append(b.b, a.Value...)
		for len(b.b)%4 != 0 {
			b.b = append(b.b, 0)
		}
	}
	return b
}

// AddBytes appends bytes as they are.
func (b *Builder) AddBytes(p ...byte) *Builder {
	b.b = append(b.b, p...)
	return b
}

// Integrity appends MESSAGE-INTEGRITY over what was written so far.
func (b *Builder) Integrity(key []byte) *Builder {
	return b.Add(Bytes(AttrMessageIntegrity, sign(sha1.New, key, b.b, sha1.Size)))
}

// IntegritySHA256 appends MESSAGE-INTEGRITY-SHA256, cut to size bytes
// (32, or 16 to 28 when truncated).
func (b *Builder) IntegritySHA256(key []byte, size int) *Builder {
	return b.Add(Bytes(AttrMessageIntegritySHA256, sign(sha256.New, key, b.b, size)))
}

// Fingerprint appends FINGERPRINT.
func (b *Builder) Fingerprint() *Builder {
	return b.Add(Uint32(AttrFingerprint, fingerprint(b.b)))
}

// Bytes returns the message. Further building does not change it.
func (b *Builder) Bytes() []byte {
	out := append([]byte(nil), b.b...)
	n := b.length
	if n < 0 {
		n = len(out) - headerSize
	}
	binary.BigEndian.PutUint16(out[2:], uint16(n))
	return out
}

// sign is the HMAC over a message whose length field reaches to the end of the
// integrity attribute (RFC 8489 sections 14.5 and 14.6).
func sign(h func() hash.Hash, key, before []byte, size int) []byte {
	m := append([]byte(nil), before...)
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)-headerSize+4+size))
	mac := hmac.New(h, key)
	mac.Write(m)
	return mac.Sum(nil)[:size]
}

func fingerprint(before []byte) uint32 {
	m := append([]byte(nil), before...)
	binary.BigEndian.PutUint16(m[2:], uint16(len(m)-headerSize+8))
	return crc32.ChecksumIEEE(m) ^ 0x5354554e
}

// Bytes is an attribute of the value as it stands. Attributes of RFC 8656 that
// mean fewer than four bytes (REQUESTED-TRANSPORT, the families,
// CHANNEL-NUMBER) have reserved bytes behind them; they have
// functions of their own.
func Bytes(t uint16, v []byte) Attr { return Attr{t, v, -1} }

// String is an attribute of text.
func String(t uint16, s string) Attr { return Bytes(t, []byte(s)) }

// Uint8 is an attribute of one byte.
func Uint8(t uint16, v uint8) Attr { return Bytes(t, []byte{v}) }

// Uint32 is an attribute of four bytes.
func Uint32(t uint16, v uint32) Attr { return Bytes(t, binary.BigEndian.AppendUint32(nil, v)) }

// XORAddress is an attribute such as XOR-PEER-ADDRESS. An IPv4-mapped address
// is written as IPv6, as it stands.
func XORAddress(t uint16, a netip.AddrPort, id TransactionID) Attr {
	v := []byte{0, FamilyIPv4}
	if a.Addr().Is6() {
		v[1] = FamilyIPv6
	}
	v = binary.BigEndian.AppendUint16(v, a.Port()^magicCookie>>16)
	mask := binary.BigEndian.AppendUint32(nil, magicCookie)
	mask = append(mask, id[:]...)
	for i, x := range a.Addr().AsSlice() {
		v = append(v, x^mask[i])
	}
	return Bytes(t, v)
}

// Lifetime is LIFETIME in seconds.
func Lifetime(seconds uint32) Attr { return Uint32(AttrLifetime, seconds) }

// RequestedTransport is REQUESTED-TRANSPORT.
func RequestedTransport(protocol uint8) Attr {
	return Bytes(AttrRequestedTransport, []byte{protocol, 0, 0, 0})
}

// RequestedAddressFamily is REQUESTED-ADDRESS-FAMILY.
func RequestedAddressFamily(family uint8) Attr {
	return Bytes(AttrRequestedAddressFamily, []byte{family, 0, 0, 0})
}

// AdditionalAddressFamily is ADDITIONAL-ADDRESS-FAMILY.
func AdditionalAddressFamily(family uint8) Attr {
	return Bytes(AttrAdditionalAddressFamily, []byte{family, 0, 0, 0})
}

// EvenPort is EVEN-PORT; reserve asks for the next port as well.
func EvenPort(reserve bool) Attr {
	if reserve {
		return Uint8(AttrEvenPort, 0x80)
	}
	return Uint8(AttrEvenPort, 0)
}

// ReservationToken is RESERVATION-TOKEN.
func ReservationToken(token []byte) Attr { return Bytes(AttrReservationToken, token) }

// DontFragment is DONT-FRAGMENT.
func DontFragment() Attr { return Bytes(AttrDontFragment, nil) }

// ChannelNumber is CHANNEL-NUMBER.
func ChannelNumber(n uint16) Attr {
	return Bytes(AttrChannelNumber, []byte{byte(n >> 8), byte(n), 0, 0})
}

// KeyMD5 is the long-term key of RFC 5389 and RFC 8489 section 18.5.1.1.
func KeyMD5(user, realm, password string) []byte {
	k := md5.Sum([]byte(user + ":" + realm + ":" + password))
	return k[:]
}

// KeySHA256 is the long-term key of RFC 8489 section 18.5.1.2.
func KeySHA256(user, realm, password string) []byte {
	k := sha256.Sum256([]byte(user + ":" + realm + ":" + password))
	return k[:]
}

// UserHash is the value of USERHASH (RFC 8489 section 14.4).
func UserHash(user, realm string) []byte {
	k := sha256.Sum256([]byte(user + ":" + realm))
	return k[:]
}

// ChannelData writes a ChannelData message that claims a length; negative
// means the true one. pad fills it up to four bytes as streams need it.
func ChannelData(channel uint16, payload []byte, claim int, pad bool) []byte {
	if claim < 0 {
		claim = len(payload)
	}
	b := binary.BigEndian.AppendUint16(nil, channel)
	b = binary.BigEndian.AppendUint16(b, uint16(claim))
	b = append(b, payload...)
	for pad && len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
