package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/turngate/turngate/internal/doctor"
	"github.com/turngate/turngate/internal/doctor/turnprobe"
	"github.com/turngate/turngate/internal/proxy"
)

type netConn = net.Conn

// checkedTURN is a TURN server as its clients see it.
type checkedTURN struct {
	doors    []turnDoor
	user     string
	password string
	client   bool           // looked at from a client
	stun     netip.AddrPort // server outside for the way out; not valid: none
	refuses  bool           // try what has to be refused
	wait     time.Duration  // for each door
}

// turnDoor is one way to the server.
type turnDoor struct {
	name    string // "UDP 3478"
	network string // "udp", "tcp" or "tls"
	code    string // the transport whose codes it has
	addr    string
	tls     *tls.Config
}

// measure is what the measures of a door begin with: turn_udp, turn_tcp, turn_tls,
// and turn_plain for TCP on the HTTPS port.
func (d turnDoor) measure() string {
	if d.network != d.code {
		return "turn_plain"
	}
	return "turn_" + d.network
}

// through is what was found at a door.
type through struct {
	door    turnDoor
	outcome doctor.Outcome
	found   []doctor.Finding
	loop    []doctor.Finding
}

// Loops of the self-test: as many datagrams as make a loss of two per cent visible,
// as often as an audio stream has them.
const (
	loopCount = 50
	loopGap   = 10 * time.Millisecond
	slowLoop  = 300 * time.Millisecond
)

// check tries every door at once, then judges them together. Without a credential
// it sees which doors answer.
func (t *checkedTURN) check(ctx context.Context) []doctor.Finding {
	enter := t.enter
	if t.user == "" {
		enter = t.knock
	}
	results := make([]through, len(t.doors))
	var wg sync.WaitGroup
	for i, d := range t.doors {
		wg.Go(func() { results[i] = enter(ctx, d) })
	}
	wg.Wait()
	found := t.judge(results)
	i := slices.IndexFunc(results, func(r through) bool { return r.outcome == doctor.TransportOK })
	if i < 0 {
		return found
	}
	var refused, egress []doctor.Finding
	if t.refuses {
		wg.Go(func() { refused = t.refusals(ctx, results[i].door) })
	}
	wg.Go(func() { egress = t.egress(ctx, results[i].door) })
	wg.Wait()
	return slices.Concat(found, refused, egress)
}

// judge makes one picture of all doors: what is blocked matters less where another
// way is open.
func (t *checkedTURN) judge(results []through) []doctor.Finding {
	var found []doctor.Finding
	var open, shut []string
	blocked, udpOpen, udpBlocked := 0, false, false
	for _, r := range results {
		if r.outcome == doctor.TransportOK || r.outcome == doctor.TransportUntested {
			open = append(open, r.door.name)
			udpOpen = udpOpen || r.door.network == "udp"
		} else {
			shut = append(shut, r.door.name)
		}
		if r.outcome == doctor.TransportSilent || r.outcome == doctor.TransportRefused || r.outcome == doctor.TransportTLS || r.outcome == doctor.TransportAnswer {
			blocked++
			udpBlocked = udpBlocked || r.door.network == "udp"
		}
	}
	for _, r := range results {
		if t.client && len(open) > 0 && r.outcome != doctor.TransportOK {
			for i := range r.found {
				r.found[i] = r.found[i].At(min(r.found[i].Status, doctor.Warn))
			}
		}
		found = append(found, r.found...)
		found = append(found, r.loop...)
	}
	switch {
	case !t.client || len(results) == 0:
	case len(open) == 0 && blocked == len(results):
		found = append(found, doctor.As(doctor.BlockedMedia, "the media path is blocked: %s", strings.Join(shut, ", ")))
	case udpBlocked && !udpOpen && len(open) > 0:
		found = append(found, doctor.As(doctor.BlockedUDP, "UDP is blocked, media goes over %s", strings.Join(open, ", ")))
	}
	return found
}

// knock asks at one door for nothing but an answer.
func (t *checkedTURN) knock(ctx context.Context, d turnDoor) through {
	ctx, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	began := time.Now()
	c, err := turnprobe.Dial(ctx, d.network, d.addr, d.tls)
	if err == nil {
		defer c.Close()
		_, err = c.Binding(ctx)
	}
	if err != nil && turnprobe.Code(err) == 0 {
		return t.shut(d, err)
	}
	return through{door: d, outcome: doctor.TransportUntested, found: []doctor.Finding{doctor.As(doctor.Transport(d.code, doctor.TransportUntested),
		"%s: the server answers in %s; no credential to test a relay with", d.name, took(began)).With(d.measure()+"_time", time.Since(began).Seconds(), "s")}}
}

// enter tries one door: an allocation, and a loop to another one.
func (t *checkedTURN) enter(ctx context.Context, d turnDoor) through {
	ctx, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	began := time.Now()
	a, atA, err := t.allocate(ctx, d)
	if err != nil {
		return t.shut(d, err)
	}
	defer a.Close()
	r := through{door: d, outcome: doctor.TransportOK}
	r.found = append(r.found, doctor.As(doctor.Transport(d.code, r.outcome), "%s: relay %v in %s", d.name, atA.Relayed, took(began)).
		With(d.measure()+"_time", time.Since(began).Seconds(), "s"))
	b, atB, err := t.allocate(ctx, d)
	if err != nil {
		r.loop = append(r.loop, doctor.As(doctor.LoopRefused, "%s: no second relay for the loop: %v", d.name, err))
		return r
	}
	defer b.Close()
	loop, err := turnprobe.Loop(ctx, a, b, atA, atB, loopCount, loopGap)
	text := fmt.Sprintf("%s: %d of %d datagrams came back through two relays, round trip %s (at most %s)", d.name, loop.Received, loop.Sent, millis(loop.Median), millis(loop.Max))
	code := doctor.LoopOK
	switch {
	case turnprobe.Code(err) == 403:
		code, text = doctor.LoopRefused, d.name+": the server does not relay to its own relays"
	case err != nil:
		code, text = doctor.LoopDead, fmt.Sprintf("%s: the loop cannot be made: %v", d.name, err)
	case loop.Received == 0:
		code, text = doctor.LoopDead, fmt.Sprintf("%s: none of %d datagrams came back through two relays", d.name, loop.Sent)
	case loop.Sent-loop.Received > 1: // one is no measure of a path, and lost by a host that was busy
		code = doctor.LoopLoss
	case loop.Median > slowLoop:
		code = doctor.LoopSlow
	}
	f := doctor.As(code, "%s", text)
	if loop.Received > 0 {
		f = f.With(d.measure()+"_rtt", loop.Median.Seconds(), "s").With(d.measure()+"_loss", 100*loop.Lost(), "%")
	}
	r.loop = append(r.loop, f)
	return r
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
}

func (t *checkedTURN) allocate(ctx context.Context, d turnDoor) (*turnprobe.Client, turnprobe.Allocation, error) {
	c, err := turnprobe.Dial(ctx, d.network, d.addr, d.tls)
	if err != nil {
		return nil, turnprobe.Allocation{}, err
	}
	c.Login(t.user, t.password)
	a, err := c.Allocate(ctx)
	if err != nil {
		c.Close()
		return nil, a, err
	}
	return c, a, nil
}

// shut says why a door did not open.
func (t *checkedTURN) shut(d turnDoor, err error) through {
	outcome, text := doctor.TransportAnswer, err.Error()
	code := turnprobe.Code(err)
	cause := proxy.Classify(err)
	switch {
	case code == 401:
		outcome, text = doctor.TransportLogin, fmt.Sprintf("the credential of %q is refused: %v", t.user, err)
	case code == 486 || code == 508:
		outcome = doctor.TransportFull
	case code != 0:
	case errors.Is(err, turnprobe.ErrSilence) && d.network != "udp":
		outcome, text = doctor.TransportSilent, "the connection opens, and nothing answers in it"
	case errors.Is(err, turnprobe.ErrSilence), cause == proxy.CauseTimeout, cause == proxy.CauseUnreachable:
		outcome, text = doctor.TransportSilent, "no answer"
	case errors.Is(err, syscall.EPERM):
		outcome, text = doctor.TransportSilent, "the firewall of this machine does not let it out"
	case cause == proxy.CauseRefused:
		outcome, text = doctor.TransportRefused, "the port is closed"
	case strings.HasPrefix(text, "TLS: "):
		outcome = doctor.TransportTLS
	case cause == proxy.CauseReset:
		text = "the connection is cut instead of an answer: something in between, or another program, does not take TURN"
	}
	f := doctor.As(doctor.Transport(d.code, outcome), "%s: %s", d.name, text)
	if outcome == doctor.TransportSilent {
		port := strings.NewReplacer("TLS", "TCP", "plain ", "").Replace(d.name)
		if f = f.Do("allow %s from this client to the server, answers included", port); !t.client {
			f = f.Do("see who listens on %s, and what the firewall of this host drops", port).By(doctor.Admin)
		}
	}
	return through{door: d, outcome: outcome, found: []doctor.Finding{f}}
}

// deniedPeers are addresses that no relay may lead to, see turn/peers.
var deniedPeers = []struct{ what, addr string }{
	{"loopback", "127.0.0.1"}, {"a private network", "10.0.0.1"}, {"a private network", "172.16.0.1"}, {"a private network", "192.168.1.1"},
	{"the cloud's metadata", "169.254.169.254"}, {"loopback by IPv6", "::1"},
}

// refusals tries what has to be refused.
func (t *checkedTURN) refusals(ctx context.Context, d turnDoor) (found []doctor.Finding) {
	ctx, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	wrong := *t
	wrong.password = rand.Text()
	c, _, err := wrong.allocate(ctx, d)
	switch {
	case err == nil || errors.Is(err, turnprobe.ErrForged):
		if c != nil {
			c.Close()
		}
		return []doctor.Finding{doctor.As(doctor.WrongPassword, "%s: a random password of %q is accepted", d.name, t.user)}
	case turnprobe.Code(err) != 401:
		found = append(found, doctor.As(doctor.RefusesOddly, "%s: a wrong password is answered with %v", d.name, err))
	}
	c, at, err := t.allocate(ctx, d)
	if err != nil {
		return append(found, doctor.As(doctor.RefusesOddly, "%s: no relay to test peers with: %v", d.name, err))
	}
	defer c.Close()
	var open []string
	for _, p := range deniedPeers {
		addr := netip.MustParseAddr(p.addr)
		if addr.Is4() != at.Relayed.Addr().Is4() {
			continue // 443, whatever the policy
		}
		switch err := c.Permit(ctx, netip.AddrPortFrom(addr, 80)); {
		case err == nil:
			open = append(open, fmt.Sprintf("%s (%s)", p.addr, p.what))
		case turnprobe.Code(err) != 403:
			return append(found, doctor.As(doctor.RefusesOddly, "%s: the peer %s is answered with %v", d.name, p.addr, err))
		}
	}
	if len(open) > 0 {
		found = append(found, doctor.As(doctor.OpenPeer, "a relay may send to %s", strings.Join(open, ", ")))
	}
	if len(found) == 0 {
		found = append(found, doctor.As(doctor.RefusesOK, "a wrong password and peers on loopback, private and metadata addresses are refused"))
	}
	return found
}

// egress sends from a relay to a STUN server outside.
func (t *checkedTURN) egress(ctx context.Context, d turnDoor) []doctor.Finding {
	if !t.stun.IsValid() {
		return []doctor.Finding{doctor.As(doctor.EgressUntested, "whether UDP from the relay ports reaches the Internet cannot be told: name a STUN server outside with --stun HOST:PORT")}
	}
	ctx, cancel := context.WithTimeout(ctx, t.wait)
	defer cancel()
	c, at, err := t.allocate(ctx, d)
	if err != nil {
		return []doctor.Finding{doctor.As(doctor.EgressUntested, "no relay to send from: %v", err)}
	}
	defer c.Close()
	seen, err := c.ReflectRelayed(ctx, t.stun)
	switch {
	case turnprobe.Code(err) == 403:
		return []doctor.Finding{doctor.As(doctor.EgressRefused, "turn.peers does not allow %v", t.stun)}
	case err != nil:
		return []doctor.Finding{doctor.As(doctor.EgressBlocked, "the STUN server %v does not answer a relay: %v", t.stun, err)}
	case seen != at.Relayed:
		return []doctor.Finding{doctor.As(doctor.EgressAddress, "outside, the relay %v is seen as %v", at.Relayed, seen)}
	}
	return []doctor.Finding{doctor.As(doctor.EgressOK, "the STUN server %v sees the relay as %v, as it should", t.stun, seen)}
}
