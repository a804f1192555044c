package turnclient

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

// ErrorResponse is an error response as an error.
type ErrorResponse struct{ Message *Message }

// Code returns the code of the response, 0 if it carries none.
func (e *ErrorResponse) Code() int { return e.Message.ErrorCode() }

// Error names the response.
func (e *ErrorResponse) Error() string { return e.Message.String() }

// Do sends a request with the credential and follows the long-term mechanism
// (RFC 8489 section 9.2): it answers one 401 and one 438. build may be called
// again for the second try, with another transaction id. The answer to a
// signed request must be signed; an error response is returned as message and
// as *ErrorResponse.
func (c *Client) Do(ctx context.Context, method uint16, build func(*Builder)) (*Message, error) {
	for try := 0; ; try++ {
		b := NewBuilder(method, ClassRequest)
		if build != nil {
			build(b)
		}
		signed := c.Sign(b)
		if c.opts.fingerprint {
			b.Fingerprint()
		}
		m, err := c.RoundTrip(ctx, b.Bytes())
		if err != nil {
			return nil, err
		}
		if m.Class() == ClassError {
			code := m.ErrorCode()
			if again := code == 401 && !signed || code == 438; again && try < 2 && c.learn(m) {
				continue
			}
			return m, &ErrorResponse{m}
		}
		if m.Class() != ClassSuccess || m.Method() != method {
			return m, fmt.Errorf("answer is %v", m)
		}
		if signed {
			if err := m.CheckIntegrity(c.Key()); err != nil {
				return m, fmt.Errorf("answer %v: %w", m, err)
			}
		}
		return m, nil
	}
}

// Request is Do for attributes that do not depend on the transaction id.
func (c *Client) Request(ctx context.Context, method uint16, attrs ...Attr) (*Message, error) {
	return c.Do(ctx, method, func(b *Builder) { b.Add(attrs...) })
}

// learn takes realm and nonce from a challenge and reports whether there is
// something to try again with.
func (c *Client) learn(m *Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	realm, okR := m.Get(AttrRealm)
	nonce, okN := m.Get(AttrNonce)
	if !okR || !okN || c.auth.User == "" {
		return false
	}
	c.realm, c.nonce = string(realm), nonce
	c.offered, _ = m.Get(AttrPasswordAlgorithms)
	c.sha256 = c.auth.SHA256 && offers(c.offered, AlgorithmSHA256)
	return true
}

// Learn asks for a challenge with a bare Allocate, so that Sign can be used.
func (c *Client) Learn(ctx context.Context) error {
	m, err := c.RoundTrip(ctx, NewBuilder(MethodAllocate, ClassRequest).Add(RequestedTransport(TransportUDP)).Bytes())
	if err != nil {
		return err
	}
	if m.ErrorCode() != 401 || !c.learn(m) {
		return fmt.Errorf("bare Allocate was answered with %v", m)
	}
	return nil
}

// Sign appends the attributes of the credential and the integrity, and reports
// whether it did: before the first challenge there is nothing to sign with.
func (c *Client) Sign(b *Builder) bool {
	c.mu.Lock()
	nonce, none := c.nonce, c.nonce == nil || c.auth.User == ""
	c.mu.Unlock()
	if none {
		return false
	}
	c.Credential(b, nonce)
	c.mu.Lock()
	useSHA256 := c.sha256
	c.mu.Unlock()
	if useSHA256 {
		b.IntegritySHA256(c.Key(), 32)
	} else {
		b.Integrity(c.Key())
	}
	return true
}

// Credential appends USERNAME or USERHASH, REALM, NONCE and what SHA-256 needs,
// without the integrity.
func (c *Client) Credential(b *Builder, nonce []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.auth.UserHash {
		b.Add(Bytes(AttrUserhash, UserHash(c.auth.User, c.realm)))
	} else {
		b.Add(String(AttrUsername, c.auth.User))
	}
	b.Add(String(AttrRealm, c.realm), Bytes(AttrNonce, nonce))
	if c.offered != nil {
		algorithm := uint32(AlgorithmMD5)
		if c.sha256 {
			algorithm = AlgorithmSHA256
		}
		if c.auth.SHA256 {
			b.Add(Bytes(AttrPasswordAlgorithms, c.offered), Uint32(AttrPasswordAlgorithm, algorithm<<16))
		}
	}
}

// Key returns the key for the realm of the last challenge.
func (c *Client) Key() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sha256 {
		return KeySHA256(c.auth.User, c.realm, c.auth.Password)
	}
	return KeyMD5(c.auth.User, c.realm, c.auth.Password)
}

// offers reports whether a PASSWORD-ALGORITHMS value lists the algorithm.
func offers(value []byte, algorithm uint16) bool {
	for len(value) >= 4 {
		if binary.BigEndian.Uint16(value) == algorithm {
			return true
		}
		skip := 4 + (int(binary.BigEndian.Uint16(value[2:]))+3)&^3
		value = bytes.Clone(value[min(skip, len(value)):])
	}
	return false
}
