package turnprobe

import (
	"context"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// LoopResult is what came back of a loop.
type LoopResult struct {
	Sent, Received int
	Median, Max    time.Duration // of the way to the other client and back; 0 when nothing came
}

// Lost is the share of datagrams that did not come back, 0 to 1.
func (r LoopResult) Lost() float64 {
	if r.Sent == 0 {
		return 1
	}
	return 1 - float64(r.Received)/float64(r.Sent)
}

const (
	loopChannel = 0x4abc
	loopSize    = 200 // bytes, as an audio packet
)

// Loop sends n datagrams, one each gap, from client a through both relays to
// client b and back. The clients hold the given allocations. It waits a second at
// most for the last one, by its own ticks: a host that stops for a moment is no loss.
func Loop(ctx context.Context, a, b *Client, atA, atB Allocation, n int, gap time.Duration) (LoopResult, error) {
	var r LoopResult
	if err := a.Bind(ctx, loopChannel, atB.Relayed); err != nil {
		return r, err
	}
	if err := b.Bind(ctx, loopChannel, atA.Relayed); err != nil {
		return r, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	echoed := make(chan struct{})
	go func() { // ends with ctx
		defer close(echoed)
		for {
			d, err := b.Receive(ctx)
			if err != nil || b.SendChannel(loopChannel, d.Payload) != nil {
				return
			}
		}
	}()
	var sent []time.Time
	seen := make([]bool, n)
	var trips []time.Duration
	ticker := time.NewTicker(gap)
	defer ticker.Stop()
	for ticks := n + int(time.Second/gap); ticks > 0 && r.Received < n && ctx.Err() == nil; ticks-- {
		if len(sent) < n {
			payload := binary.BigEndian.AppendUint32(nil, uint32(len(sent)))
			sent = append(sent, time.Now())
			if err := a.SendChannel(loopChannel, append(payload, make([]byte, loopSize-4)...)); err != nil {
				break
			}
		}
	collect:
		for {
			select {
			case d := <-a.data:
				if len(d.Payload) != loopSize {
					continue
				}
				if i := int(binary.BigEndian.Uint32(d.Payload)); i < len(sent) && !seen[i] {
					seen[i] = true
					r.Received++
					trips = append(trips, d.At.Sub(sent[i]))
				}
				if r.Received == n {
					break collect
				}
			case <-ticker.C:
				break collect
			case <-ctx.Done():
				break collect
			}
		}
	}
	cancel()
	<-echoed
	r.Sent = len(sent)
	if len(trips) > 0 {
		slices.Sort(trips)
		r.Median, r.Max = trips[len(trips)/2], trips[len(trips)-1]
	}
	return r, nil
}

// ReflectRelayed asks a STUN server through the relay of an allocation which
// address its datagrams come from. It installs the permission for the server.
func (c *Client) ReflectRelayed(ctx context.Context, server netip.AddrPort) (netip.AddrPort, error) {
	if err := c.Permit(ctx, server); err != nil {
		return netip.AddrPort{}, err
	}
	m := newMessage(methodBinding, classRequest)
	for _, wait := range pauses {
		if err := c.Send(server, m.bytes()); err != nil {
			return netip.AddrPort{}, err
		}
		step, cancel := context.WithTimeout(ctx, wait)
		for {
			d, err := c.Receive(step)
			if err != nil {
				break
			}
			answer, err := parse(d.Payload)
			if err != nil || answer.id != m.id || d.From != server {
				continue
			}
			cancel()
			if err := answer.refusal(); err != nil {
				return netip.AddrPort{}, err
			}
			mapped, _ := answer.address(attrXORMappedAddress)
			return mapped, nil
		}
		cancel()
	}
	return netip.AddrPort{}, ErrSilence
}
