package turnclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Allocation is what a server granted.
type Allocation struct {
	Relayed  []netip.AddrPort // one, or one of each family
	Mapped   netip.AddrPort
	Lifetime time.Duration
	Token    []byte // RESERVATION-TOKEN, if there is one
	Response *Message
}

// Binding asks for the reflexive address, unsigned.
func (c *Client) Binding(ctx context.Context) (netip.AddrPort, error) {
	m, err := c.RoundTrip(ctx, NewBuilder(MethodBinding, ClassRequest).Bytes())
	if err != nil {
		return netip.AddrPort{}, err
	}
	a, ok := m.XORAddress(AttrXORMappedAddress)
	if !ok || m.Class() != ClassSuccess {
		return a, fmt.Errorf("answer is %v", m)
	}
	return a, nil
}

// Allocate asks for a relayed address. REQUESTED-TRANSPORT UDP is added unless
// an attribute of that type is given.
func (c *Client) Allocate(ctx context.Context, attrs ...Attr) (*Allocation, error) {
	if !slices.ContainsFunc(attrs, func(a Attr) bool { return a.Type == AttrRequestedTransport }) {
		attrs = append([]Attr{RequestedTransport(TransportUDP)}, attrs...)
	}
	m, err := c.Request(ctx, MethodAllocate, attrs...)
	if err != nil {
		return nil, err
	}
	a := &Allocation{Relayed: m.XORAddresses(AttrXORRelayedAddress), Response: m}
	a.Mapped, _ = m.XORAddress(AttrXORMappedAddress)
	a.Token, _ = m.Get(AttrReservationToken)
	seconds, ok := m.Uint32(AttrLifetime)
	a.Lifetime = time.Duration(seconds) * time.Second
	if len(a.Relayed) == 0 || !a.Mapped.IsValid() || !ok {
		return a, fmt.Errorf("answer lacks relayed address, mapped address or lifetime: %v", m)
	}
	return a, nil
}

// Refresh asks for a lifetime; zero ends the allocation. It returns what was granted.
func (c *Client) Refresh(ctx context.Context, seconds uint32) (time.Duration, error) {
	m, err := c.Request(ctx, MethodRefresh, Lifetime(seconds))
	if err != nil {
		return 0, err
	}
	granted, ok := m.Uint32(AttrLifetime)
	if !ok {
		return 0, fmt.Errorf("answer lacks a lifetime: %v", m)
	}
	return time.Duration(granted) * time.Second, nil
}

// CreatePermission asks for permissions for peers.
func (c *Client) CreatePermission(ctx context.Context, peers ...netip.AddrPort) error {
	_, err := c.Do(ctx, MethodCreatePermission, func(b *Builder) {
		for _, p := range peers {
			b.Add(XORAddress(AttrXORPeerAddress, p, b.ID()))
		}
	})
	return err
}

// ChannelBind binds a channel to a peer.
func (c *Client) ChannelBind(ctx context.Context, channel uint16, peer netip.AddrPort) error {
	_, err := c.Do(ctx, MethodChannelBind, func(b *Builder) {
		b.Add(ChannelNumber(channel), XORAddress(AttrXORPeerAddress, peer, b.ID()))
	})
	return err
}

// Send sends a Send indication.
func (c *Client) Send(ctx context.Context, peer netip.AddrPort, payload []byte, attrs ...Attr) error {
	b := NewBuilder(MethodSend, ClassIndication)
	b.Add(XORAddress(AttrXORPeerAddress, peer, b.ID()), Bytes(AttrData, payload)).Add(attrs...)
	return c.SendRaw(ctx, b.Bytes())
}

// SendChannel sends a ChannelData message, padded over a stream.
func (c *Client) SendChannel(ctx context.Context, channel uint16, payload []byte) error {
	return c.SendRaw(ctx, ChannelData(channel, payload, -1, c.stream))
}

// Code returns the error code that an operation was answered with: 0 for
// success, -1 for an error that is no answer.
func Code(err error) int {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*ErrorResponse](err); ok {
		return e.Code()
	}
	return -1
}
