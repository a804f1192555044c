package turn

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"net/netip"
	"sync"
	"time"
)

// Nonces are stateless: a time and a MAC over it and the client's transport
// address (RFC 8489 section 9.2, 14.10). A nonce that comes back proves that
// its sender receives at the address it sends from, and one that was captured
// is of no use from another address. They are short because the answer that
// carries one goes to an address that may be spoofed.
type nonces struct {
	key  [32]byte  // random per process; set before the first use
	macs sync.Pool // of hash.Hash with the key: a flood asks for many
}

const (
	nonceLifetime = 10 * time.Minute
	nonceStep     = time.Minute // resolution of the time in a nonce
	nonceTime     = 1           // byte: minutes, of which 256 are told apart
	nonceMAC      = 5           // bytes: one guess in 2^40
)

// nonceSize is the length of the text form.
var nonceSize = base64.RawURLEncoding.EncodedLen(nonceTime + nonceMAC)

// features begins a nonce that comes with an offer of password algorithms
// (RFC 8489 section 9.2.1): the nonce cookie, and the security features
// "password algorithms" and "username anonymity" as 24 bits in base64.
var features = "obMatJos2" + base64.StdEncoding.EncodeToString([]byte{0xC0, 0, 0})

// make returns a nonce for a client, with the security features or without.
func (n *nonces) make(client netip.AddrPort, now time.Time, offer bool) []byte {
	var raw [nonceTime + nonceMAC]byte
	raw[0] = minute(now)
	n.mac(raw[nonceTime:], raw[0], offer, client)
	var text []byte
	if offer {
		text = append(text, features...)
	}
	return base64.RawURLEncoding.AppendEncode(text, raw[:])
}

// ok reports whether the nonce was made for the client and is fresh, and
// whether it came with an offer.
func (n *nonces) ok(nonce []byte, client netip.AddrPort, now time.Time) (offered, ok bool) {
	var raw, want [nonceTime + nonceMAC]byte
	nonce, offered = bytes.CutPrefix(nonce, []byte(features))
	if len(nonce) != nonceSize {
		return false, false
	}
	if _, err := base64.RawURLEncoding.Decode(raw[:], nonce); err != nil {
		return false, false
	}
	// The features are part of what is signed: they cannot be taken off.
	n.mac(want[nonceTime:], raw[0], offered, client)
	fresh := minute(now)-raw[0] <= uint8(nonceLifetime/nonceStep)
	return offered, hmac.Equal(raw[nonceTime:], want[nonceTime:]) && fresh
}

func (n *nonces) mac(dst []byte, at uint8, offer bool, client netip.AddrPort) {
	h, ok := n.macs.Get().(hash.Hash)
	if !ok {
		h = hmac.New(sha256.New, n.key[:])
	}
	defer n.macs.Put(h)
	h.Reset()
	addr := client.Addr().As16()
	kind := byte(0)
	if offer {
		kind = 1
	}
	var sum [sha256.Size]byte
	text := append(sum[:0], at, kind)
	text = append(text, addr[:]...)
	h.Write(binary.BigEndian.AppendUint16(text, client.Port()))
	copy(dst, h.Sum(sum[:0])[:nonceMAC])
}

func minute(t time.Time) uint8 { return uint8(t.Unix() / int64(nonceStep/time.Second)) }
