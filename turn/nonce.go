package turn

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/netip"
	"time"
)

// Nonces are stateless: a time and a MAC over it and the client's transport
// address (RFC 8489 section 9.2, 14.10). A nonce that comes back proves that
// its sender receives at the address it sends from, and one that was captured
// is of no use from another address. They are short because the answer that
// carries one goes to an address that may be spoofed.
type nonces struct {
	key [32]byte // random per process
}

const (
	nonceLifetime = 10 * time.Minute
	nonceStep     = time.Minute // resolution of the time in a nonce
	nonceTime     = 3           // bytes: minutes, wrapping after 31 years
	nonceMAC      = 9           // bytes: one guess in 2^72
)

// nonceSize is the length of the text form.
var nonceSize = base64.RawURLEncoding.EncodedLen(nonceTime + nonceMAC)

// make returns a nonce for a client.
func (n *nonces) make(client netip.AddrPort, now time.Time) []byte {
	var raw [nonceTime + nonceMAC]byte
	putMinutes(raw[:], minutes(now))
	n.mac(raw[nonceTime:], raw[:nonceTime], client)
	return base64.RawURLEncoding.AppendEncode(nil, raw[:])
}

// ok reports whether the nonce was made for the client and is fresh.
func (n *nonces) ok(nonce []byte, client netip.AddrPort, now time.Time) bool {
	var raw, want [nonceTime + nonceMAC]byte
	if len(nonce) != nonceSize {
		return false
	}
	if _, err := base64.RawURLEncoding.Decode(raw[:], nonce); err != nil {
		return false
	}
	n.mac(want[nonceTime:], raw[:nonceTime], client)
	if !hmac.Equal(raw[nonceTime:], want[nonceTime:]) {
		return false
	}
	age := (minutes(now) - getMinutes(raw[:])) & 0xFFFFFF
	return age <= uint32(nonceLifetime/nonceStep)
}

func (n *nonces) mac(dst, at []byte, client netip.AddrPort) {
	h := hmac.New(sha256.New, n.key[:])
	addr := client.Addr().As16()
	h.Write(at)
	h.Write(addr[:])
	h.Write(binary.BigEndian.AppendUint16(nil, client.Port()))
	copy(dst, h.Sum(nil)[:nonceMAC])
}

func minutes(t time.Time) uint32 { return uint32(t.Unix()/int64(nonceStep/time.Second)) & 0xFFFFFF }

func putMinutes(b []byte, m uint32) { b[0], b[1], b[2] = byte(m>>16), byte(m>>8), byte(m) }

func getMinutes(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }
