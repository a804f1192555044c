package edge

import (
	"crypto/tls"
	"errors"
)

// The application protocols (ALPN) of port 443; stun.turn is RFC 7443,
// acme-tls/1 RFC 8737.
const (
	protoACME  = "acme-tls/1"
	protoHTTP2 = "h2"
	protoHTTP1 = "http/1.1"
	protoTURN  = "stun.turn"
)

// ServerTLS returns a server configuration after Mozilla's "intermediate" 6.0:
// TLS 1.2 and 1.3, and for 1.2 forward secrecy and AEAD only. The order of
// suites and the key exchanges are left to Go, which offers the post-quantum
// X25519MLKEM768 first. Session tickets are on; Go changes their key daily, so
// that a config should live as long as the process.
//
// A client that offers ALPN and none of protos gets a no_application_protocol
// alert (RFC 7301 section 3.2); the order of protos is our preference.
func ServerTLS(certs *Certificates, protos ...string) *tls.Config {
	return &tls.Config{
		GetCertificate: certs.GetCertificate,
		MinVersion:     tls.VersionTLS12,
		// Go's own list for 1.2 adds AES-CBC-SHA.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: protos,
		// Small first records help the first paint of a page. What passes here
		// is frames and packets, each a record of its own size anyway.
		DynamicRecordSizingDisabled: true,
	}
}

// tlsSettings is a configuration and what it was made of.
type tlsSettings struct {
	certs      *Certificates
	http, turn bool
	ownTickets bool // keys of the process
	config     *tls.Config
}

// answersChallenges makes config answer TLS-ALPN challenges (RFC 8737) by a
// configuration of their own. When no challenge is under way for the name, a
// client that asks for one is refused like any other with an unknown protocol.
func answersChallenges(config *tls.Config, challenge func(serverName string) *tls.Certificate) {
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) != 1 || hello.SupportedProtos[0] != protoACME {
			return nil, nil
		}
		cert := challenge(hello.ServerName)
		if cert == nil {
			return nil, nil
		}
		return &tls.Config{
			Certificates:           []tls.Certificate{*cert},
			NextProtos:             []string{protoACME},
			MinVersion:             tls.VersionTLS12,
			SessionTicketsDisabled: true,
		}, nil
	}
}

// errTooFast ends a handshake over Caps.HandshakesPerSource.
var errTooFast = errors.New("too many TLS handshakes of this source")

// boundsHandshakes makes config refuse a handshake over the rate of its source, after
// the ClientHello and before the signature, which is what costs.
func boundsHandshakes(config *tls.Config) {
	next := config.GetConfigForClient
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, ok := hello.Conn.(*conn); ok && !c.mayShakeHands() {
			return nil, errTooFast
		}
		if next == nil {
			return nil, nil
		}
		return next(hello)
	}
}

// newTLSSettings returns last when it fits, so that a reload keeps the ticket
// keys and clients go on resuming their sessions.
func newTLSSettings(o Options, last *tlsSettings) *tlsSettings {
	http, turn, own := o.HTTP, o.TURN != nil, o.TicketKeys == nil
	if last != nil && last.certs == o.Certificates && last.http == http && last.turn == turn && last.ownTickets == own {
		if !own {
			last.config.SetSessionTicketKeys(o.TicketKeys)
		}
		return last
	}
	var protos []string
	if http {
		protos = append(protos, protoHTTP2, protoHTTP1)
	}
	if turn {
		protos = append(protos, protoTURN)
	}
	set := &tlsSettings{o.Certificates, http, turn, own, ServerTLS(o.Certificates, protos...)}
	if !own {
		set.config.SetSessionTicketKeys(o.TicketKeys)
	}
	if o.Challenge != nil {
		answersChallenges(set.config, o.Challenge)
	}
	boundsHandshakes(set.config)
	return set
}
