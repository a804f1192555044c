package turn_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
)

// site is one server together with one way to reach it.
type site struct {
	server      *turn.Server
	network     string
	addr        netip.AddrPort
	fingerprint bool // clients add FINGERPRINT
}

// dropped returns how much was not relayed for want of a permission.
func (s site) dropped(relayed netip.AddrPort) (n uint64) {
	for _, each := range s.server.Sessions() {
		if slices.Contains(each.Relays, relayed) {
			n += each.Dropped
		}
	}
	return n
}

// within bounds everything that one test waits for.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

var twoUsers = func(o *turn.Options) {
	o.Users = append(o.Users, turn.User{Name: "other", Passwords: []string{"other"}})
	o.Realm = "example.org"
}

// dial returns a client of the user turn. Its allocation ends with the test.
func (s site) dial(t testing.TB, opts ...tc.Option) *tc.Client {
	t.Helper()
	if s.fingerprint {
		opts = append(opts, tc.Fingerprint())
	}
	opts = append(opts, tc.TLS(&tls.Config{InsecureSkipVerify: true}))
	c, err := tc.Dial(within(t), s.network, s.addr.String(), tc.Auth{User: "turn", Password: "turn"}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer c.Close()
		if _, nonce := c.Challenge(); nonce == nil || s.network != "udp" {
			return
		}
		// The next client may well get the same port from the system.
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c.SetAuth(tc.Auth{User: "turn", Password: "turn"})
		c.Refresh(ctx, 0) // the test may have ended it
	})
	return c
}

// allocated returns a client with an allocation, and its relayed address.
func (s site) allocated(t testing.TB, attrs ...tc.Attr) (*tc.Client, netip.AddrPort) {
	t.Helper()
	c := s.dial(t)
	a, err := c.Allocate(within(t), attrs...)
	if err != nil {
		t.Fatalf("Allocate: %v", err)
	}
	return c, a.Relayed[0]
}

// ask sends a signed request and checks what holds for every answer to one:
// it is signed as well, and has a FINGERPRINT exactly if the request had one.
// It returns the error code, 0 for success.
func (s site) ask(t testing.TB, c *tc.Client, method uint16, build func(*tc.Builder)) (*tc.Message, int) {
	t.Helper()
	m, err := c.Do(within(t), method, build)
	code := tc.Code(err)
	if code < 0 {
		t.Fatalf("method %03x: %v", method, err)
	}
	if err := m.CheckIntegrity(c.Key()); err != nil && code != 401 && code != 438 {
		t.Errorf("answer %v: %v", m, err)
	}
	s.fingerprinted(t, m)
	return m, code
}

func (s site) fingerprinted(t testing.TB, m *tc.Message) {
	t.Helper()
	if m.Has(tc.AttrFingerprint) != s.fingerprint || s.fingerprint && m.CheckFingerprint() != nil {
		t.Errorf("answer %v has FINGERPRINT %v, %v; want it exactly if the request had one, %v",
			m, m.Has(tc.AttrFingerprint), m.CheckFingerprint(), s.fingerprint)
	}
}

// wants checks the code of a signed request made of attributes.
func (s site) wants(t testing.TB, c *tc.Client, code int, method uint16, attrs ...tc.Attr) *tc.Message {
	t.Helper()
	m, got := s.ask(t, c, method, func(b *tc.Builder) { b.Add(attrs...) })
	if got != code {
		t.Errorf("method %03x with %v: code %d, want %d", method, attrs, got, code)
	}
	return m
}

// raw sends a message built by hand and returns the answer.
func raw(t testing.TB, c *tc.Client, b *tc.Builder) *tc.Message {
	t.Helper()
	m, err := c.RoundTrip(within(t), b.Bytes())
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	return m
}

// silent checks that the server answers nothing and serves on.
func silent(t testing.TB, c *tc.Client, what string, message []byte) {
	t.Helper()
	if got, err := c.Before(within(t), message); err != nil || len(got) != 0 {
		t.Errorf("%s: answered with %v, %v; want silence and service", what, got, err)
	}
}

// challenged checks that an error carries what a client needs to try again.
func challenged(t testing.TB, m *tc.Message, code int) {
	t.Helper()
	realm, _ := m.Get(tc.AttrRealm)
	nonce, _ := m.Get(tc.AttrNonce)
	if m.ErrorCode() != code || string(realm) != "example.org" || len(nonce) == 0 {
		t.Errorf("answer %v with REALM %q and a NONCE of %d bytes, want %d with both", m, realm, len(nonce), code)
	}
}

// nextFrom checks the next datagram that reaches a peer. Whatever was sent
// before it and must not arrive would have come first.
func nextFrom(t testing.TB, p *tc.Peer, payload string, from netip.AddrPort) {
	t.Helper()
	d, err := p.Receive(within(t))
	if err != nil || string(d.Payload) != payload || from.IsValid() && d.From != from {
		t.Errorf("peer received %.40q from %v, %v; want %.40q from %v", d.Payload, d.From, err, payload, from)
	}
}

// nextData checks the next datagram that reaches a client.
func nextData(t testing.TB, c *tc.Client, payload string, channel uint16, peer netip.AddrPort) {
	t.Helper()
	d, err := c.Receive(within(t))
	if err != nil || string(d.Payload) != payload || d.Channel != channel || channel == 0 && d.Peer != peer {
		t.Errorf("client received %.40q on channel %x from %v, %v; want %.40q on %x from %v",
			d.Payload, d.Channel, d.Peer, err, payload, channel, peer)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var (
	denied = netip.MustParseAddrPort("10.9.9.9:4000")
	v6Peer = netip.MustParseAddrPort("[2606:4700::1111]:4000")
)

// TestConformance asks what RFC 8489 and RFC 8656 say, over every transport
// and with and without FINGERPRINT.
func TestConformance(t *testing.T) {
	for _, way := range []struct {
		network     string
		fingerprint bool
	}{{"udp", false}, {"udp", true}, {"tcp", false}, {"tcp", true}, {"tls", false}} {
		t.Run(fmt.Sprintf("%s fingerprint=%v", way.network, way.fingerprint), func(t *testing.T) {
			secure := freeForBoth(t) // opened by the test, which has to tell the policy
			listeners := func() []netip.AddrPort { return []netip.AddrPort{secure} }
			s, addr := start(t, func(o *turn.Options) { twoUsers(o); o.Listeners = listeners })
			if way.network == "tls" {
				cert, _ := testCertificate(t)
				addr = serveStreams(t, s, secure, &tls.Config{Certificates: []tls.Certificate{cert}})
			}
			for _, tt := range conformance {
				t.Run(tt.name, func(t *testing.T) { tt.check(t, site{s, way.network, addr, way.fingerprint}) })
			}
		})
	}
}

var conformance = []struct {
	name  string
	check func(*testing.T, site)
}{
	{"Binding tells the reflexive address and nothing about the server", func(t *testing.T, s site) {
		c := s.dial(t)
		b := tc.NewBuilder(tc.MethodBinding, tc.ClassRequest)
		if s.fingerprint {
			b.Fingerprint()
		}
		m := raw(t, c, b)
		if a, _ := m.XORAddress(tc.AttrXORMappedAddress); a != c.LocalAddr() || m.Class() != tc.ClassSuccess {
			t.Errorf("answer %v with address %v, want success with %v", m, a, c.LocalAddr())
		}
		if m.Has(tc.AttrSoftware) {
			t.Error("the answer has SOFTWARE")
		}
		s.fingerprinted(t, m)
	}},
	{"a wrong FINGERPRINT is met with silence", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		wrong := tc.Uint32(tc.AttrFingerprint, 0xdeadbeef)
		for _, method := range []uint16{tc.MethodBinding, tc.MethodAllocate} {
			silent(t, c, "FINGERPRINT", tc.NewBuilder(method, tc.ClassRequest).Add(wrong).Bytes())
		}
		b := tc.NewBuilder(tc.MethodRefresh, tc.ClassRequest).Add(tc.Lifetime(0))
		c.Sign(b)
		silent(t, c, "signed Refresh", b.Add(wrong).Bytes())
		s.wants(t, c, 0, tc.MethodRefresh)
	}},
	{"unknown comprehension-required attributes get 420 and are listed", func(t *testing.T, s site) {
		c := s.dial(t)
		m := raw(t, c, tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Add(tc.Bytes(0x7ff0, nil), tc.Uint32(0x7ff1, 1)))
		if got := m.Unknown(); m.ErrorCode() != 420 || !slices.Contains(got, 0x7ff0) || !slices.Contains(got, 0x7ff1) {
			t.Errorf("Binding: %v lists %x, want 420 with 7ff0 and 7ff1", m, got)
		}
		m = raw(t, c, tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Add(tc.Uint32(tc.AttrChangeRequest, 6)))
		if m.ErrorCode() != 420 || !slices.Contains(m.Unknown(), tc.AttrChangeRequest) {
			t.Errorf("CHANGE-REQUEST: %v lists %x, want 420 with 0003", m, m.Unknown())
		}
		m = s.wants(t, c, 420, tc.MethodAllocate, tc.RequestedTransport(tc.TransportUDP), tc.Bytes(0x7ff0, []byte{1, 2, 3}))
		if got := m.Unknown(); !slices.Equal(got, []uint16{0x7ff0}) {
			t.Errorf("Allocate lists %x, want 7ff0", got)
		}
		c, _ = s.allocated(t)
		for _, method := range []uint16{tc.MethodRefresh, tc.MethodCreatePermission, tc.MethodChannelBind} {
			s.wants(t, c, 420, method, tc.Bytes(0x7ff0, nil))
		}
	}},
	{"unknown comprehension-optional attributes are ignored", func(t *testing.T, s site) {
		c := s.dial(t)
		s.wants(t, c, 0, tc.MethodAllocate, tc.RequestedTransport(tc.TransportUDP), tc.Bytes(0xfff0, []byte{1}),
			tc.String(tc.AttrSoftware, "probe"))
	}},
	{"a request without credentials gets 401 with REALM and NONCE", func(t *testing.T, s site) {
		c := s.dial(t)
		for _, method := range []uint16{tc.MethodAllocate, tc.MethodRefresh, tc.MethodCreatePermission, tc.MethodChannelBind} {
			challenged(t, raw(t, c, tc.NewBuilder(method, tc.ClassRequest)), 401)
		}
	}},
	{"unknown user and wrong password look the same", func(t *testing.T, s site) {
		c := s.dial(t)
		must(t, c.Learn(within(t)))
		var sizes []int
		for _, a := range []tc.Auth{{User: "turn", Password: "wrong"}, {User: "nobo", Password: "turn"}} {
			c.SetAuth(a)
			m, _ := c.Do(within(t), tc.MethodAllocate, func(b *tc.Builder) { b.Add(tc.RequestedTransport(tc.TransportUDP)) })
			challenged(t, m, 401)
			sizes = append(sizes, len(m.Raw))
			if m.Has(tc.AttrMessageIntegrity) {
				t.Errorf("the answer to %v is signed", a)
			}
		}
		if sizes[0] != sizes[1] {
			t.Errorf("answers of %d and %d bytes tell a known user from an unknown one", sizes[0], sizes[1])
		}
	}},
	{"MESSAGE-INTEGRITY without USERNAME, REALM or NONCE gets 400", func(t *testing.T, s site) {
		c := s.dial(t)
		must(t, c.Learn(within(t)))
		realm, nonce := c.Challenge()
		all := []tc.Attr{tc.String(tc.AttrUsername, "turn"), tc.String(tc.AttrRealm, realm), tc.Bytes(tc.AttrNonce, nonce)}
		for i := range all {
			b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
			b.Add(slices.Delete(slices.Clone(all), i, i+1)...).Integrity(c.Key())
			if m := raw(t, c, b); m.ErrorCode() != 400 {
				t.Errorf("without attribute %04x: %v, want 400", all[i].Type, m)
			}
		}
	}},
	{"a forged nonce gets 438 with a good one", func(t *testing.T, s site) {
		c := s.dial(t)
		must(t, c.Learn(within(t)))
		realm, good := c.Challenge()
		for _, nonce := range [][]byte{[]byte("invented"), {}, bytes.Repeat([]byte("n"), 763), append([]byte("A"), good[1:]...), good[:len(good)-1]} {
			if bytes.Equal(nonce, good) {
				continue
			}
			b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
			c.Credential(b, nonce)
			challenged(t, raw(t, c, b.Integrity(c.Key())), 438)
		}
		c.SetChallenge(realm, []byte("invented"))
		if _, err := c.Allocate(within(t)); err != nil {
			t.Errorf("with the nonce of the 438: %v", err)
		}
	}},
	{"a nonce made for another address gets 438", func(t *testing.T, s site) {
		one, two := s.dial(t), s.dial(t)
		must(t, one.Learn(within(t)))
		two.SetChallenge(one.Challenge())
		b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
		two.Sign(b)
		challenged(t, raw(t, two, b), 438)
	}},
	{"another REALM gets 401", func(t *testing.T, s site) {
		c := s.dial(t)
		must(t, c.Learn(within(t)))
		_, nonce := c.Challenge()
		c.SetChallenge("elsewhere", nonce)
		b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
		c.Sign(b)
		challenged(t, raw(t, c, b), 401)
	}},
	{"Allocate tells relayed address, mapped address and lifetime", func(t *testing.T, s site) {
		c := s.dial(t)
		a, err := c.Allocate(within(t))
		must(t, err)
		if a.Mapped != c.LocalAddr() || a.Lifetime != 10*time.Minute || a.Token != nil || len(a.Relayed) != 1 ||
			a.Relayed[0].Addr() != loopback || a.Relayed[0].Port() < 21000 || a.Relayed[0].Port() > 21999 {
			t.Errorf("allocation %+v", a)
		}
	}},
	{"REQUESTED-TRANSPORT other than UDP gets 442, none 400", func(t *testing.T, s site) {
		c := s.dial(t)
		s.wants(t, c, 442, tc.MethodAllocate, tc.RequestedTransport(99))
		s.wants(t, c, 400, tc.MethodAllocate)
		tcp := 442 // RFC 6062 is not offered
		if s.network == "udp" {
			tcp = 400 // RFC 6062 section 5.1
		}
		s.wants(t, c, tcp, tc.MethodAllocate, tc.RequestedTransport(tc.TransportTCP))
		for _, method := range []uint16{tc.MethodConnect, tc.MethodConnectionBind} {
			b := tc.NewBuilder(method, tc.ClassRequest)
			c.Sign(b.Add(tc.XORAddress(tc.AttrXORPeerAddress, denied, b.ID())))
			silent(t, c, "RFC 6062", b.Bytes())
		}
	}},
	{"DONT-FRAGMENT is honoured or refused with 420", func(t *testing.T, s site) {
		c := s.dial(t)
		m, code := s.ask(t, c, tc.MethodAllocate, func(b *tc.Builder) {
			b.Add(tc.RequestedTransport(tc.TransportUDP), tc.DontFragment())
		})
		if code != 0 && (code != 420 || !slices.Contains(m.Unknown(), tc.AttrDontFragment)) {
			t.Errorf("answer %v", m)
		}
	}},
	{"an address family that is not there gets 440", func(t *testing.T, s site) {
		c := s.dial(t)
		udp := tc.RequestedTransport(tc.TransportUDP)
		s.wants(t, c, 440, tc.MethodAllocate, udp, tc.RequestedAddressFamily(tc.FamilyIPv6))
		s.wants(t, c, 440, tc.MethodAllocate, udp, tc.RequestedAddressFamily(3))
		s.wants(t, c, 0, tc.MethodAllocate, udp, tc.RequestedAddressFamily(tc.FamilyIPv4))
		s.wants(t, c, 443, tc.MethodRefresh, tc.RequestedAddressFamily(tc.FamilyIPv6))
		s.wants(t, c, 0, tc.MethodRefresh, tc.RequestedAddressFamily(tc.FamilyIPv4))
	}},
	{"ADDITIONAL-ADDRESS-FAMILY without that family still gives the one there is", func(t *testing.T, s site) {
		_, relayed := s.allocated(t, tc.AdditionalAddressFamily(tc.FamilyIPv6))
		if !relayed.Addr().Is4() {
			t.Errorf("relayed address %v", relayed)
		}
	}},
	{"LIFETIME is brought between ten minutes and an hour", func(t *testing.T, s site) {
		for in, want := range map[uint32]uint32{0: 600, 1: 600, 599: 600, 700: 700, 3600: 3600, 100000: 3600, 0xffffffff: 3600} {
			c := s.dial(t)
			a, err := c.Allocate(within(t), tc.Lifetime(in))
			if err != nil || a.Lifetime != time.Duration(want)*time.Second {
				t.Errorf("Allocate with LIFETIME %d: %v, %v, want %d s", in, a, err, want)
			}
			if in == 0 {
				in = 1 // a Refresh with 0 means it
			}
			if got, err := c.Refresh(within(t), in); err != nil || got != time.Duration(want)*time.Second {
				t.Errorf("Refresh with LIFETIME %d: %v, %v, want %d s", in, got, err, want)
			}
			m := s.wants(t, c, 0, tc.MethodRefresh)
			if got, _ := m.Uint32(tc.AttrLifetime); got != 600 {
				t.Errorf("Refresh without LIFETIME: %d s, want 600", got)
			}
		}
	}},
	{"Refresh with 0 ends the allocation at once", func(t *testing.T, s site) {
		c := s.dial(t)
		a, err := c.Allocate(within(t))
		must(t, err)
		if got, err := c.Refresh(within(t), 0); got != 0 || err != nil {
			t.Errorf("Refresh 0: %v, %v", got, err)
		}
		s.wants(t, c, 437, tc.MethodRefresh)
		if _, err := c.Allocate(within(t)); err != nil {
			t.Errorf("another Allocate for the same five-tuple: %v", err)
		}
		_ = a
	}},
	{"EVEN-PORT gives an even port, and no token without the R bit", func(t *testing.T, s site) {
		c := s.dial(t)
		a, err := c.Allocate(within(t), tc.EvenPort(false))
		must(t, err)
		if a.Relayed[0].Port()%2 != 0 || a.Token != nil {
			t.Errorf("relayed %v with token %x", a.Relayed, a.Token)
		}
	}},
	{"EVEN-PORT with the R bit holds the next port for its token, once", func(t *testing.T, s site) {
		a, err := s.dial(t).Allocate(within(t), tc.EvenPort(true))
		must(t, err)
		if a.Relayed[0].Port()%2 != 0 || len(a.Token) != 8 {
			t.Fatalf("relayed %v with token %x, want an even port and a token of 8 bytes", a.Relayed, a.Token)
		}
		next, err := s.dial(t).Allocate(within(t), tc.ReservationToken(a.Token))
		must(t, err)
		if got, want := next.Relayed[0].Port(), a.Relayed[0].Port()+1; got != want {
			t.Errorf("the token gives port %d, want %d", got, want)
		}
		udp := tc.RequestedTransport(tc.TransportUDP)
		s.wants(t, s.dial(t), 508, tc.MethodAllocate, udp, tc.ReservationToken(a.Token))
		s.wants(t, s.dial(t), 508, tc.MethodAllocate, udp, tc.ReservationToken([]byte("invented")))
		s.wants(t, s.dial(t), 400, tc.MethodAllocate, udp, tc.ReservationToken(a.Token), tc.EvenPort(false))
		s.wants(t, s.dial(t), 400, tc.MethodAllocate, udp, tc.ReservationToken(a.Token), tc.RequestedAddressFamily(tc.FamilyIPv4))
	}},
	{"requests without an allocation get 437", func(t *testing.T, s site) {
		c := s.dial(t)
		must(t, c.Learn(within(t)))
		s.wants(t, c, 437, tc.MethodRefresh)
		s.wants(t, c, 437, tc.MethodRefresh, tc.Lifetime(0))
		if code := tc.Code(c.CreatePermission(within(t), denied)); code != 437 {
			t.Errorf("CreatePermission: %d, want 437", code)
		}
		if code := tc.Code(c.ChannelBind(within(t), 0x4000, denied)); code != 437 {
			t.Errorf("ChannelBind: %d, want 437", code)
		}
	}},
	{"requests by another user of the server get 441 and change nothing", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		peer := tc.NewPeer(t, "127.0.0.1")
		c.SetAuth(tc.Auth{User: "other", Password: "other"})
		s.wants(t, c, 441, tc.MethodRefresh, tc.Lifetime(0))
		if code := tc.Code(c.CreatePermission(within(t), peer.Addr())); code != 441 {
			t.Errorf("CreatePermission: %d, want 441", code)
		}
		if code := tc.Code(c.ChannelBind(within(t), 0x4000, peer.Addr())); code != 441 {
			t.Errorf("ChannelBind: %d, want 441", code)
		}
		must(t, c.Send(within(t), peer.Addr(), []byte("stolen")))
		must(t, c.SendChannel(within(t), 0x4000, []byte("stolen")))
		c.SetAuth(tc.Auth{User: "turn", Password: "turn"})
		must(t, c.CreatePermission(within(t), peer.Addr()))
		must(t, c.Send(within(t), peer.Addr(), []byte("own")))
		nextFrom(t, peer, "own", netip.AddrPort{})
	}},
	{"a second Allocate gets 437, a repeated one the same answer", func(t *testing.T, s site) {
		c := s.dial(t)
		must(t, c.Learn(within(t)))
		b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP))
		c.Sign(b)
		if s.fingerprint {
			b.Fingerprint()
		}
		one, two := raw(t, c, b), raw(t, c, b)
		if one.Class() != tc.ClassSuccess || !bytes.Equal(one.Raw, two.Raw) {
			t.Errorf("answers %v and %v, want the same success twice", one, two)
		}
		s.wants(t, c, 437, tc.MethodAllocate, tc.RequestedTransport(tc.TransportUDP))
		s.wants(t, c, 0, tc.MethodRefresh)
	}},
	{"CreatePermission without a peer gets 400, with a denied one 403", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		s.wants(t, c, 400, tc.MethodCreatePermission)
		_, code := s.ask(t, c, tc.MethodCreatePermission, func(b *tc.Builder) {
			b.Add(tc.XORAddress(tc.AttrXORPeerAddress, denied, b.ID()))
		})
		if code != 403 {
			t.Errorf("denied peer: %d, want 403", code)
		}
	}},
	{"ChannelBind lacking something gets 400, with a denied peer 403", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		s.wants(t, c, 400, tc.MethodChannelBind)
		s.wants(t, c, 400, tc.MethodChannelBind, tc.ChannelNumber(0x4000))
		for _, tt := range []struct {
			code  int
			attrs []tc.Attr
			peer  netip.AddrPort
		}{
			{400, nil, netip.MustParseAddrPort("127.0.0.1:9")},
			{403, []tc.Attr{tc.ChannelNumber(0x4000)}, denied},
		} {
			_, code := s.ask(t, c, tc.MethodChannelBind, func(b *tc.Builder) {
				b.Add(tt.attrs...).Add(tc.XORAddress(tc.AttrXORPeerAddress, tt.peer, b.ID()))
			})
			if code != tt.code {
				t.Errorf("%v with %v: %d, want %d", tt.peer, tt.attrs, code, tt.code)
			}
		}
	}},
	{"an IPv6 peer of an IPv4 allocation gets 443", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		if code := tc.Code(c.CreatePermission(within(t), v6Peer)); code != 443 {
			t.Errorf("CreatePermission: %d, want 443", code)
		}
		if code := tc.Code(c.ChannelBind(within(t), 0x4000, v6Peer)); code != 443 {
			t.Errorf("ChannelBind: %d, want 443", code)
		}
	}},
	{"a channel number outside the range gets 400", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		peer := tc.NewPeer(t, "127.0.0.1").Addr()
		numbers := []uint16{0, 0x1000, 0x3fff, 0x8000, 0xffff}
		if !s.fingerprint { // see lastChannel
			numbers = append(numbers, 0x5000, 0x6000, 0x7fff)
		}
		for _, n := range numbers {
			if code := tc.Code(c.ChannelBind(within(t), n, peer)); code != 400 {
				t.Errorf("channel %04x: %d, want 400", n, code)
			}
		}
		for _, n := range []uint16{0x4000, 0x4fff} {
			if err := c.ChannelBind(within(t), n, tc.NewPeer(t, "127.0.0.1").Addr()); err != nil {
				t.Errorf("channel %04x: %v", n, err)
			}
		}
	}},
	{"a bound channel or peer cannot be bound again otherwise", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		one, two := tc.NewPeer(t, "127.0.0.1").Addr(), tc.NewPeer(t, "127.0.0.1").Addr()
		must(t, c.ChannelBind(within(t), 0x4005, one))
		if code := tc.Code(c.ChannelBind(within(t), 0x4005, two)); code != 400 {
			t.Errorf("the channel for another peer: %d, want 400", code)
		}
		if code := tc.Code(c.ChannelBind(within(t), 0x4006, one)); code != 400 {
			t.Errorf("another channel for the peer: %d, want 400", code)
		}
		if err := c.ChannelBind(within(t), 0x4005, one); err != nil {
			t.Errorf("the same again: %v", err)
		}
	}},
	{"one denied peer refuses the whole CreatePermission", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		good := tc.NewPeer(t, "127.0.0.1")
		for _, peers := range [][]netip.AddrPort{{good.Addr(), denied}, {denied, good.Addr()}} {
			if code := tc.Code(c.CreatePermission(within(t), peers...)); code != 403 {
				t.Errorf("CreatePermission for %v: %d, want 403", peers, code)
			}
		}
		must(t, c.Send(within(t), good.Addr(), []byte("too early")))
		must(t, c.CreatePermission(within(t), good.Addr()))
		must(t, c.Send(within(t), good.Addr(), []byte("now")))
		nextFrom(t, good, "now", netip.AddrPort{})
	}},
	{"one CreatePermission opens several peers", func(t *testing.T, s site) {
		c, relayed := s.allocated(t)
		one, two := tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.1")
		must(t, c.CreatePermission(within(t), one.Addr(), two.Addr()))
		for _, p := range []*tc.Peer{one, two} {
			must(t, c.Send(within(t), p.Addr(), []byte("hello")))
			nextFrom(t, p, "hello", relayed)
		}
	}},
	{"nothing passes without a permission, in either direction", func(t *testing.T, s site) {
		c, relayed := s.allocated(t)
		peer := tc.NewPeer(t, "127.0.0.1")
		must(t, c.Send(within(t), peer.Addr(), []byte("out early")))
		must(t, c.SendChannel(within(t), 0x4000, []byte("out on no channel")))
		must(t, peer.Send(relayed, []byte("in early")))
		// The relay socket is read by another goroutine than the client's:
		// let it come to the datagram before the permission does.
		other, otherRelayed := s.allocated(t)
		must(t, other.CreatePermission(within(t), peer.Addr()))
		for ctx := within(t); s.dropped(relayed) < 3; {
			must(t, ctx.Err())
			must(t, peer.Send(otherRelayed, []byte("turn")))
			nextData(t, other, "turn", 0, peer.Addr())
		}
		must(t, c.CreatePermission(within(t), peer.Addr()))
		must(t, c.Send(within(t), peer.Addr(), []byte("out")))
		nextFrom(t, peer, "out", relayed)
		must(t, peer.Send(relayed, []byte("in")))
		nextData(t, c, "in", 0, peer.Addr())
	}},
	{"a permission is for the address, a stranger's address has none", func(t *testing.T, s site) {
		c, relayed := s.allocated(t)
		one, same := tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.1")
		stranger := tc.NewPeer(t, "127.0.0.9")
		must(t, c.CreatePermission(within(t), one.Addr()))
		must(t, stranger.Send(relayed, []byte("stranger")))
		must(t, same.Send(relayed, []byte("another port")))
		nextData(t, c, "another port", 0, same.Addr())
	}},
	{"payloads of every length pass both ways, by Send and by channel", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		echo := tc.NewEcho(t, "127.0.0.1")
		must(t, c.CreatePermission(within(t), echo.Addr()))
		for _, n := range []int{0, 1, 2, 3, 4, 5, 1199, 1200, 1472, 2000} {
			payload := strings.Repeat("x", n)
			must(t, c.Send(within(t), echo.Addr(), []byte(payload)))
			nextData(t, c, payload, 0, echo.Addr())
		}
		must(t, c.ChannelBind(within(t), 0x4001, echo.Addr()))
		for _, n := range []int{0, 1, 2, 3, 4, 5, 1199, 1200, 1472, 2000} {
			payload := strings.Repeat("y", n)
			must(t, c.SendChannel(within(t), 0x4001, []byte(payload)))
			nextData(t, c, payload, 0x4001, echo.Addr())
		}
		// The first datagram that no Ethernet frame holds may be lost.
		large := strings.Repeat("z", 9000)
		must(t, c.SendChannel(within(t), 0x4001, []byte(large)))
		must(t, c.SendChannel(within(t), 0x4001, []byte(large)))
		nextData(t, c, large, 0x4001, echo.Addr())
	}},
	{"what comes from a bound peer comes on its channel, from another port not", func(t *testing.T, s site) {
		c, relayed := s.allocated(t)
		bound, other := tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.1")
		must(t, c.ChannelBind(within(t), 0x4001, bound.Addr()))
		must(t, bound.Send(relayed, []byte("bound")))
		nextData(t, c, "bound", 0x4001, netip.AddrPort{})
		must(t, other.Send(relayed, []byte("other")))
		nextData(t, c, "other", 0, other.Addr())
	}},
	{"attributes behind MESSAGE-INTEGRITY are not there", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		signed, slipped := tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.1")
		b := tc.NewBuilder(tc.MethodCreatePermission, tc.ClassRequest)
		c.Sign(b.Add(tc.XORAddress(tc.AttrXORPeerAddress, signed.Addr(), b.ID())))
		b.Add(tc.XORAddress(tc.AttrXORPeerAddress, denied, b.ID()))
		if m := raw(t, c, b); m.Class() != tc.ClassSuccess {
			t.Errorf("a denied peer behind the integrity: %v, want success", m)
		}
		b = tc.NewBuilder(tc.MethodChannelBind, tc.ClassRequest)
		c.Sign(b.Add(tc.ChannelNumber(0x4000)))
		if m := raw(t, c, b.Add(tc.XORAddress(tc.AttrXORPeerAddress, slipped.Addr(), b.ID()))); m.ErrorCode() != 400 {
			t.Errorf("the only peer behind the integrity: %v, want 400", m)
		}
		b = tc.NewBuilder(tc.MethodRefresh, tc.ClassRequest)
		c.Sign(b)
		m := raw(t, c, b.Add(tc.Lifetime(0)))
		if got, _ := m.Uint32(tc.AttrLifetime); got != 600 {
			t.Errorf("LIFETIME 0 behind the integrity: %v with %d s, want 600", m, got)
		}
		s.wants(t, c, 0, tc.MethodRefresh)
	}},
	{"of two peers in one Send the first counts", func(t *testing.T, s site) {
		c, relayed := s.allocated(t)
		first, second := tc.NewPeer(t, "127.0.0.1"), tc.NewPeer(t, "127.0.0.1")
		must(t, c.CreatePermission(within(t), first.Addr(), second.Addr()))
		b := tc.NewBuilder(tc.MethodSend, tc.ClassIndication)
		b.Add(tc.XORAddress(tc.AttrXORPeerAddress, first.Addr(), b.ID()), tc.XORAddress(tc.AttrXORPeerAddress, second.Addr(), b.ID()))
		must(t, c.SendRaw(within(t), b.Add(tc.String(tc.AttrData, "one")).Bytes()))
		nextFrom(t, first, "one", relayed)
		must(t, c.Send(within(t), second.Addr(), []byte("two")))
		nextFrom(t, second, "two", relayed)
	}},
	{"an IPv4-mapped peer is the IPv4 peer", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		mapped := netip.AddrPortFrom(netip.AddrFrom16(denied.Addr().As16()), 9)
		if code := tc.Code(c.CreatePermission(within(t), mapped)); code != 403 && code != 443 {
			t.Errorf("CreatePermission for %v: %d, want 403", mapped, code)
		}
		if code := tc.Code(c.ChannelBind(within(t), 0x4000, mapped)); code != 403 && code != 443 {
			t.Errorf("ChannelBind for %v: %d, want 403", mapped, code)
		}
	}},
	{"port 0 reaches nobody", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		zero := netip.MustParseAddrPort("127.0.0.1:0")
		if code := tc.Code(c.ChannelBind(within(t), 0x4000, zero)); code != 403 && code != 400 {
			t.Errorf("ChannelBind: %d, want 400 or 403", code)
		}
		must(t, c.CreatePermission(within(t), zero))
		must(t, c.Send(within(t), zero, []byte("nobody")))
		s.wants(t, c, 0, tc.MethodRefresh)
	}},
	{"the server is no peer of itself", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		if code := tc.Code(c.CreatePermission(within(t), s.addr)); code != 403 {
			t.Errorf("CreatePermission: %d, want 403", code)
		}
		if code := tc.Code(c.ChannelBind(within(t), 0x4000, s.addr)); code != 403 {
			t.Errorf("ChannelBind: %d, want 403", code)
		}
		echo := tc.NewEcho(t, "127.0.0.1")
		must(t, c.CreatePermission(within(t), echo.Addr())) // opens the address
		must(t, c.Send(within(t), s.addr, tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Bytes()))
		must(t, c.Send(within(t), echo.Addr(), []byte("echo")))
		nextData(t, c, "echo", 0, echo.Addr())
	}},
	{"two clients reach each other by their relayed addresses", func(t *testing.T, s site) {
		one, oneRelayed := s.allocated(t)
		two, twoRelayed := s.allocated(t)
		must(t, one.ChannelBind(within(t), 0x4001, twoRelayed))
		must(t, two.CreatePermission(within(t), oneRelayed))
		must(t, one.SendChannel(within(t), 0x4001, []byte("there")))
		nextData(t, two, "there", 0, oneRelayed)
		must(t, two.Send(within(t), oneRelayed, []byte("back")))
		nextData(t, one, "back", 0x4001, netip.AddrPort{})
	}},
	{"unknown methods, indications and responses are met with silence", func(t *testing.T, s site) {
		c, _ := s.allocated(t)
		for method := range uint16(0x1000) {
			if method > 0x20 && method%0x155 != 0 {
				continue
			}
			for class := range uint16(4) {
				if class == tc.ClassRequest && slices.Contains([]uint16{tc.MethodBinding, tc.MethodAllocate,
					tc.MethodRefresh, tc.MethodCreatePermission, tc.MethodChannelBind}, method) {
					continue
				}
				b := tc.NewBuilder(method, class)
				silent(t, c, fmt.Sprintf("method %03x class %d", method, class), b.Bytes())
				c.Sign(b)
				silent(t, c, fmt.Sprintf("method %03x class %d, signed", method, class), b.Bytes())
			}
		}
		s.wants(t, c, 0, tc.MethodRefresh)
	}},
}
