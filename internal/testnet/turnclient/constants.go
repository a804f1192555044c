package turnclient

// Methods (RFC 8489 section 18.2, RFC 8656 section 17).
const (
	MethodBinding           = 0x001
	MethodAllocate          = 0x003
	MethodRefresh           = 0x004
	MethodSend              = 0x006
	MethodData              = 0x007
	MethodCreatePermission  = 0x008
	MethodChannelBind       = 0x009
	MethodConnect           = 0x00a // RFC 6062
	MethodConnectionBind    = 0x00b
	MethodConnectionAttempt = 0x00c
)

// Classes (RFC 8489 section 5).
const (
	ClassRequest    = 0
	ClassIndication = 1
	ClassSuccess    = 2
	ClassError      = 3
)

// Attributes (RFC 8489 section 18.3, RFC 8656 section 18).
const (
	AttrMappedAddress           = 0x0001
	AttrChangeRequest           = 0x0003 // RFC 5780
	AttrUsername                = 0x0006
	AttrMessageIntegrity        = 0x0008
	AttrErrorCode               = 0x0009
	AttrUnknownAttributes       = 0x000a
	AttrChannelNumber           = 0x000c
	AttrLifetime                = 0x000d
	AttrXORPeerAddress          = 0x0012
	AttrData                    = 0x0013
	AttrRealm                   = 0x0014
	AttrNonce                   = 0x0015
	AttrXORRelayedAddress       = 0x0016
	AttrRequestedAddressFamily  = 0x0017
	AttrEvenPort                = 0x0018
	AttrRequestedTransport      = 0x0019
	AttrDontFragment            = 0x001a
	AttrMessageIntegritySHA256  = 0x001c
	AttrPasswordAlgorithm       = 0x001d
	AttrUserhash                = 0x001e
	AttrXORMappedAddress        = 0x0020
	AttrReservationToken        = 0x0022
	AttrPriority                = 0x0024
	AttrUseCandidate            = 0x0025
	AttrConnectionID            = 0x002a
	AttrAdditionalAddressFamily = 0x8000
	AttrAddressErrorCode        = 0x8001
	AttrPasswordAlgorithms      = 0x8002
	AttrAlternateDomain         = 0x8003
	AttrICMP                    = 0x8004
	AttrSoftware                = 0x8022
	AttrAlternateServer         = 0x8023
	AttrFingerprint             = 0x8028
	AttrMobilityTicket          = 0x8030 // RFC 8016
)

// Values of REQUESTED-TRANSPORT and of the address family attributes.
const (
	TransportUDP = 17
	TransportTCP = 6
	FamilyIPv4   = 1
	FamilyIPv6   = 2
)

// Password algorithms (RFC 8489 section 18.5).
const (
	AlgorithmMD5    = 1
	AlgorithmSHA256 = 2
)

const (
	magicCookie = 0x2112a442
	headerSize  = 20
)
