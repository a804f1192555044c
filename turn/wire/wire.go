// Package wire is the codec between turngate and what strangers send: STUN
// messages (RFC 8489), the TURN attributes in them (RFC 8656), ChannelData,
// and the framing of both on a stream.
//
// Everything here is bounded and total: no input makes it panic, loop or
// allocate more than the input's own size. It is the one home of pion/stun,
// whose constants, message builder and checksums it uses; pion's decoder is
// not used, because it panics on addresses of the wrong length
// (CVE-2026-54909, not fixed in v2).
package wire

import (
	"crypto/sha256"

	"github.com/pion/stun/v2"
)

// Attr is the type of a STUN attribute.
type Attr = stun.AttrType

// Method is the method of a STUN message.
type Method = stun.Method

// Class is the class of a STUN message.
type Class = stun.MessageClass

// Methods and classes that turngate speaks.
const (
	Binding          = stun.MethodBinding
	Allocate         = stun.MethodAllocate
	Refresh          = stun.MethodRefresh
	Send             = stun.MethodSend
	Data             = stun.MethodData
	CreatePermission = stun.MethodCreatePermission
	ChannelBind      = stun.MethodChannelBind

	Request    = stun.ClassRequest
	Indication = stun.ClassIndication
	Success    = stun.ClassSuccessResponse
	Failure    = stun.ClassErrorResponse
)

// Attributes that turngate reads or writes.
const (
	Username                = stun.AttrUsername
	MessageIntegrity        = stun.AttrMessageIntegrity
	MessageIntegritySHA256  = stun.AttrMessageIntegritySHA256
	ErrorCode               = stun.AttrErrorCode
	UnknownAttributes       = stun.AttrUnknownAttributes
	Realm                   = stun.AttrRealm
	Nonce                   = stun.AttrNonce
	XORMappedAddress        = stun.AttrXORMappedAddress
	XORPeerAddress          = stun.AttrXORPeerAddress
	XORRelayedAddress       = stun.AttrXORRelayedAddress
	ChannelNumber           = stun.AttrChannelNumber
	Lifetime                = stun.AttrLifetime
	DataAttr                = stun.AttrData
	EvenPort                = stun.AttrEvenPort
	RequestedTransport      = stun.AttrRequestedTransport
	RequestedAddressFamily  = stun.AttrRequestedAddressFamily
	AdditionalAddressFamily = Attr(0x8000) // RFC 8656 section 18.11; not in pion/stun
	// The number of its draft, which coturn's tools of the distributions send.
	DraftAdditionalFamily = Attr(0x8032)
	AlternateServer       = stun.AttrAlternateServer
	AddressErrorCode      = Attr(0x8001) // RFC 8656 section 18.12
	MobilityTicket        = Attr(0x8030) // RFC 8016 section 5
	DontFragment          = stun.AttrDontFragment
	ReservationToken      = stun.AttrReservationToken
	PasswordAlgorithm     = stun.AttrPasswordAlgorithm
	PasswordAlgorithms    = stun.AttrPasswordAlgorithms
	UserHash              = stun.AttrUserhash
	Fingerprint           = stun.AttrFingerprint
)

// Address families as STUN writes them (RFC 8489 section 14.1).
const (
	familyIPv4 = 0x01
	familyIPv6 = 0x02
)

// Channel numbers (RFC 8656 section 12). RFC 5766 section 11 let clients
// choose up to LegacyMaxChannel.
const (
	MinChannel       = 0x4000
	MaxChannel       = 0x4FFF
	LegacyMaxChannel = 0x7FFF
)

// Algorithm is how a key is derived from a password (RFC 8489 section 18.5).
type Algorithm uint16

// The password algorithms.
const (
	MD5    Algorithm = 1
	SHA256 Algorithm = 2
)

// Key is the key of the long-term credential mechanism (RFC 8489 section
// 9.2.2). It is as secret as the password.
type Key []byte

// LongTermKey derives the MD5 key from a user's credential. User, realm and
// password are used as the bytes they are: no SASLprep.
func LongTermKey(user, realm, password string) Key {
	return Key(stun.NewLongTermIntegrity(user, realm, password))
}

// NewKey derives a key from a user's credential.
func (a Algorithm) NewKey(user, realm, password string) Key {
	if a == SHA256 {
		sum := sha256.Sum256([]byte(user + ":" + realm + ":" + password))
		return sum[:]
	}
	return LongTermKey(user, realm, password)
}

// HashUser is what USERHASH says instead of a user's name (RFC 8489 section
// 14.4).
func HashUser(user, realm string) [sha256.Size]byte {
	return sha256.Sum256([]byte(user + ":" + realm))
}
