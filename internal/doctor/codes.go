package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Code names what was found, "TG-061".
type Code string

// Who is the one that has to act.
type Who string

const (
	Admin   Who = "administrator of this host"
	Network Who = "network and firewall team"
	CA      Who = "company CA or proxy team"
	Cloud   Who = "whoever manages the cloud console"
	Vendor  Who = "operator of the upstream"
	Nobody  Who = ""
)

// Topic is what is known about a code.
type Topic struct {
	Code   Code
	Status Status // usual
	Title  string // what it means, for the list
	Cause  string // longer: what leads there
	Fix    string // one line
	Who    Who
}

// Topic returns what is known about the code; the code must be one of this package.
func (c Code) Topic() Topic {
	i := slices.IndexFunc(topics, func(t Topic) bool { return t.Code == c })
	if i < 0 {
		panic("doctor: no topic for code " + string(c))
	}
	return topics[i]
}

// Lookup finds a topic as a person writes the code: "TG-061", "tg61", "061".
func Lookup(code string) (Topic, bool) {
	digits := strings.TrimPrefix(strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(code)), "TG"), "-")
	for _, t := range topics {
		if strings.TrimPrefix(string(t.Code), "TG-") == fmt.Sprintf("%03s", digits) {
			return t, true
		}
	}
	return Topic{}, false
}

// Topics are all codes in order.
func Topics() []Topic { return slices.Clone(topics) }

// group is where the check of a code belongs.
func (t Topic) group() Group {
	switch n := t.Code[3:5]; {
	case n <= "03":
		return Access
	case n == "04" || n == "22" || n == "23":
		return Signaling
	case n == "05" || n == "24":
		return Logs
	case n <= "11" || n == "21" || n >= "25" && n <= "29":
		return Media
	case n <= "16":
		return Host
	}
	return Service
}

// Codes. The first two digits are the check of the list in docs/operations.md.
const (
	NameOK        Code = "TG-010"
	NameUnknown   Code = "TG-011"
	NameElsewhere Code = "TG-012"
	NameNone      Code = "TG-013"
	NameNoAnswer  Code = "TG-014"

	CertOK         Code = "TG-020"
	CertUntrusted  Code = "TG-021"
	CertEnded      Code = "TG-022"
	CertWrongName  Code = "TG-023"
	CertIncomplete Code = "TG-024"
	CertEndsSoon   Code = "TG-025"
	CertWeak       Code = "TG-026"
	CertInspected  Code = "TG-027"
	CertFiles      Code = "TG-028"

	WebOK      Code = "TG-030"
	WebRefused Code = "TG-031"
	WebSilent  Code = "TG-032"
	WebNoTLS   Code = "TG-033"
	WebForeign Code = "TG-034"
	WebProxy   Code = "TG-035"

	WssOK       Code = "TG-040"
	WssDNS      Code = "TG-041"
	WssBlocked  Code = "TG-042"
	WssIssuer   Code = "TG-043"
	WssTLS      Code = "TG-044"
	WssProxy    Code = "TG-045"
	WssAnswer   Code = "TG-046"
	WssThrough  Code = "TG-047"
	WssPartly   Code = "TG-048"
	WssUntested Code = "TG-049"

	LogOK       Code = "TG-050"
	LogDNS      Code = "TG-051"
	LogBlocked  Code = "TG-052"
	LogIssuer   Code = "TG-053"
	LogTLS      Code = "TG-054"
	LogProxy    Code = "TG-055"
	LogAnswer   Code = "TG-056"
	LogThrough  Code = "TG-057"
	LogCORS     Code = "TG-058"
	LogUntested Code = "TG-059"

	// The transports of TURN share their last digits, see [Transport].
	UDPOK       Code = "TG-060"
	UDPSilent   Code = "TG-061"
	UDPRefused  Code = "TG-062"
	UDPLogin    Code = "TG-063"
	UDPFull     Code = "TG-064"
	UDPTLS      Code = "TG-065"
	UDPAnswer   Code = "TG-066"
	UDPUntested Code = "TG-069"

	TCPOK       Code = "TG-070"
	TCPSilent   Code = "TG-071"
	TCPRefused  Code = "TG-072"
	TCPLogin    Code = "TG-073"
	TCPFull     Code = "TG-074"
	TCPTLS      Code = "TG-075"
	TCPAnswer   Code = "TG-076"
	TCPUntested Code = "TG-079"

	TLSOK       Code = "TG-080"
	TLSSilent   Code = "TG-081"
	TLSRefused  Code = "TG-082"
	TLSLogin    Code = "TG-083"
	TLSFull     Code = "TG-084"
	TLSTLS      Code = "TG-085"
	TLSAnswer   Code = "TG-086"
	TLSUntested Code = "TG-089"

	LoopOK      Code = "TG-090"
	LoopDead    Code = "TG-091"
	LoopLoss    Code = "TG-092"
	LoopRefused Code = "TG-093"
	LoopSlow    Code = "TG-094"

	RefusesOK     Code = "TG-100"
	WrongPassword Code = "TG-101"
	OpenPeer      Code = "TG-102"
	RefusesOddly  Code = "TG-103"

	EgressOK       Code = "TG-110"
	EgressBlocked  Code = "TG-111"
	EgressAddress  Code = "TG-112"
	EgressUntested Code = "TG-113"
	EgressRefused  Code = "TG-114"

	RangeOK      Code = "TG-120"
	RangeOverlap Code = "TG-121"
	RangeFew     Code = "TG-122"
	RangeTaken   Code = "TG-123"

	FirewallOK        Code = "TG-130"
	FirewallNotOpen   Code = "TG-131"
	FirewallTaken     Code = "TG-132"
	FirewallBlocks    Code = "TG-133"
	FirewallUnknown   Code = "TG-134"
	SELinuxOK         Code = "TG-140"
	SELinuxDenied     Code = "TG-141"
	SELinuxUnknown    Code = "TG-142"
	ClockOK           Code = "TG-150"
	ClockUnsynced     Code = "TG-151"
	ClockOff          Code = "TG-152"
	ClockUnknown      Code = "TG-153"
	LimitsOK          Code = "TG-160"
	LimitsFiles       Code = "TG-161"
	LimitsBuffers     Code = "TG-162"
	LimitsConntrack   Code = "TG-163"
	LimitsDrops       Code = "TG-164"
	LimitsUnknown     Code = "TG-165"
	CredentialOK      Code = "TG-170"
	CredentialWeak    Code = "TG-171"
	ConfigErrors      Code = "TG-172"
	ConfigWarnings    Code = "TG-173"
	CredentialMissing Code = "TG-174"
	VersionOK         Code = "TG-180"
	VersionOld        Code = "TG-181"
	VersionHole       Code = "TG-182"

	ServiceOK        Code = "TG-190"
	ServiceDown      Code = "TG-191"
	ServiceLocked    Code = "TG-192"
	ServiceReload    Code = "TG-193"
	ServiceDraining  Code = "TG-194"
	ServiceUpstream  Code = "TG-195"
	ServiceSpool     Code = "TG-196"
	ServiceRenewal   Code = "TG-197"
	ServiceBans      Code = "TG-198"
	CheckUnfinished  Code = "TG-199"
	KernelPathOK     Code = "TG-200"
	KernelPathOff    Code = "TG-201"
	KernelPathFailed Code = "TG-202"
	BlockedUDP       Code = "TG-210"
	BlockedMedia     Code = "TG-211"

	// The way of a request between a client and the server, which only a check
	// with a link can tell from what is behind the server.
	WssNotHere Code = "TG-221"
	WssNotBack Code = "TG-222"
	LogNotHere Code = "TG-241"
	LogNotBack Code = "TG-242"

	ScheduleOK       Code = "TG-230"
	ScheduleDNS      Code = "TG-231"
	ScheduleBlocked  Code = "TG-232"
	ScheduleIssuer   Code = "TG-233"
	ScheduleTLS      Code = "TG-234"
	ScheduleProxy    Code = "TG-235"
	ScheduleAnswer   Code = "TG-236"
	ScheduleThrough  Code = "TG-237"
	ScheduleCORS     Code = "TG-238"
	ScheduleUntested Code = "TG-239"

	// Of the check page alone.
	BrowserNoWebRTC Code = "TG-251"
	BrowserIdle     Code = "TG-252"
	PageBroken      Code = "TG-253"
	VideoOK         Code = "TG-260"
	VideoDead       Code = "TG-261"
	VideoFew        Code = "TG-262"

	// Of "turngate setup".
	SetupNotRoot     Code = "TG-301"
	SetupOwnFile     Code = "TG-302"
	SetupMissing     Code = "TG-303"
	SetupAddress     Code = "TG-304"
	SetupCertificate Code = "TG-305"
	SetupStart       Code = "TG-306"
	SetupTerms       Code = "TG-307"
	SetupStep        Code = "TG-308"
	SetupBusy        Code = "TG-309"
)

// Outcome is the last digit of the codes of a TURN transport.
type Outcome byte

const (
	TransportOK       Outcome = '0'
	TransportSilent   Outcome = '1'
	TransportRefused  Outcome = '2'
	TransportLogin    Outcome = '3'
	TransportFull     Outcome = '4'
	TransportTLS      Outcome = '5'
	TransportAnswer   Outcome = '6'
	TransportUntested Outcome = '9'
)

// Transport is the code for an outcome on "udp", "tcp" or "tls".
func Transport(network string, o Outcome) Code {
	check := map[string]string{"udp": "06", "tcp": "07", "tls": "08"}[network]
	return Code("TG-" + check + string(rune(o)))
}
