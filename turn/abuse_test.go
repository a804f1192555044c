package turn_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	tc "github.com/turngate/turngate/internal/testnet/turnclient"
	"github.com/turngate/turngate/turn"
	"github.com/turngate/turngate/turn/peers"
)

// freeForBoth returns a loopback address whose port is free for UDP and TCP.
func freeForBoth(t testing.TB) netip.AddrPort {
	t.Helper()
	return netip.AddrPortFrom(loopback, testnet.FreePort(t))
}

// serves checks that the server still does its work: a new client over UDP and
// one over TCP get their echo. Whatever spins or hangs for good holds up the
// end of the test as well, because the server waits for all it started.
func serves(t testing.TB, s *turn.Server, addr netip.AddrPort) {
	t.Helper()
	for _, network := range []string{"udp", "tcp"} {
		c, _ := site{server: s, network: network, addr: addr}.allocated(t)
		echo := tc.NewEcho(t, "127.0.0.1")
		must(t, c.CreatePermission(within(t), echo.Addr()))
		must(t, c.Send(within(t), echo.Addr(), []byte("alive")))
		nextData(t, c, "alive", 0, echo.Addr())
	}
}

// connect opens a plain TCP connection to the server.
func connect(t testing.TB, addr netip.AddrPort) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return c
}

// cutOff checks that the server ends the connection without a byte.
func cutOff(t testing.TB, c net.Conn, what string) {
	t.Helper()
	got, err := io.ReadAll(c)
	var timeout net.Error
	if len(got) != 0 || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%s: %d bytes, %v; want the connection closed", what, len(got), err)
	}
}

// hasty makes the server's patience short, where a test is about its end.
func hasty(o *turn.Options) {
	o.Limits.FirstMessage = 200 * time.Millisecond
	o.Limits.Unproven = 400 * time.Millisecond
}

// brisk does so where others must be served meanwhile, on a machine that may
// stop for a moment.
func brisk(o *turn.Options) {
	o.Limits.FirstMessage = 3 * time.Second
	o.Limits.Unproven = 4 * time.Second
}

// TestFramesThatKilledOthers sends over TCP, before and after authentication,
// the lengths whose 16-bit sums wrap: 12 bytes of that kind made pion/turn loop
// for ever.
func TestFramesThatKilledOthers(t *testing.T) {
	s, addr := start(t, nil)
	for _, first := range []uint16{0x4000, 0x4001, 0x4fff, 0x0001, 0x0003, 0x0016, 0x8000, 0xc000, 0xffff} {
		for length := 0xffe8; length <= 0xffff; length++ {
			head := binary.BigEndian.AppendUint16(nil, first)
			head = binary.BigEndian.AppendUint16(head, uint16(length))
			head = append(head, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
			c := connect(t, addr)
			if length%2 == 0 {
				_, err := c.Write(head[:12])
				must(t, err)
			} else {
				for _, b := range head {
					if _, err := c.Write([]byte{b}); err != nil {
						break // cut off already
					}
				}
			}
			c.(*net.TCPConn).CloseWrite()
			cutOff(t, c, fmt.Sprintf("frame %04x length %04x", first, length))
			c.Close()
		}
	}
	for _, frame := range [][]byte{
		{0x40, 0, 0xff, 0xfc, 0, 0, 0, 0, 0, 0, 0, 0},
		{0x40, 0, 0xff, 0xff, 0, 0, 0, 0, 0},
		{0, 3, 0xff, 0xec, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		{0, 3, 0xff, 0xff, 0x21, 0x12, 0xa4, 0x42},
	} {
		c, _ := site{server: s, network: "tcp", addr: addr}.allocated(t)
		must(t, c.SendRaw(within(t), frame))
		must(t, c.Raw().(*net.TCPConn).CloseWrite())
		select {
		case <-c.Done():
		case <-within(t).Done():
			t.Errorf("frame %x after an Allocate, then the end: the connection stays", frame)
		}
	}
	serves(t, s, addr)
}

// TestPayloadIsNeverReadAsAMessage hides a Binding request in a frame of an
// enormous length (compare coturn issue 1837).
func TestPayloadIsNeverReadAsAMessage(t *testing.T) {
	s, addr := start(t, nil)
	hidden := tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Bytes()
	for _, length := range []int{0xfffd, 0xfffc, 0xfff4, 0x8000, 2044} {
		t.Run(fmt.Sprintf("ChannelData of %d bytes", length), func(t *testing.T) {
			c, _ := site{server: s, network: "tcp", addr: addr}.allocated(t)
			payload := bytes.Repeat(hidden, length/len(hidden)+1)[:length]
			silent(t, c, "ChannelData", tc.ChannelData(0x4001, payload, -1, true))
		})
	}
	t.Run("STUN of 65524 bytes", func(t *testing.T) {
		c, _ := site{server: s, network: "tcp", addr: addr}.allocated(t)
		b := tc.NewBuilder(tc.MethodBinding, tc.ClassRequest)
		b.Add(tc.Bytes(tc.AttrSoftware, bytes.Repeat(hidden, 0xfff4/len(hidden)+1)[:0xfff4-4]))
		got, err := c.Before(within(t), b.Bytes())
		if len(got) > 1 || err == nil && len(got) == 1 && got[0].TransactionID != b.ID() {
			t.Errorf("answers %v, %v, want at most one to the whole message", got, err)
		}
	})
	t.Run("before there is an allocation", func(t *testing.T) {
		for _, frame := range [][]byte{{0x40, 1, 0xff, 0xfd}, {0, 1, 0xff, 0xf4, 0x21, 0x12, 0xa4, 0x42}} {
			c := connect(t, addr)
			_, err := c.Write(append(frame, hidden...))
			must(t, err)
			cutOff(t, c, fmt.Sprintf("frame %x", frame))
		}
	})
	serves(t, s, addr)
}

// addressLengths are wrong sizes of an address attribute, and right sizes with
// the family of the other.
var addressValues = func() [][]byte {
	var all [][]byte
	for n := range 40 {
		for _, family := range []byte{0, 1, 2, 3, 0xff} {
			if v := make([]byte, n); n > 1 {
				v[1] = family
				if n != 8 && n != 20 || family != 1 && n == 8 || family != 2 && n == 20 {
					all = append(all, v)
				}
			} else if family == 0 {
				all = append(all, v)
			}
		}
	}
	return all
}()

// TestAddressesOfWrongLength sends what CVE-2026-54909 is about, and all of
// its kind, from a client that has an allocation.
func TestAddressesOfWrongLength(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			s, addr := start(t, nil)
			site := site{server: s, network: network, addr: addr}
			c, _ := site.allocated(t)
			peer := tc.NewPeer(t, "127.0.0.1")
			must(t, c.CreatePermission(within(t), peer.Addr()))
			for _, v := range addressValues {
				address := tc.Bytes(tc.AttrXORPeerAddress, v)
				site.wants(t, c, 400, tc.MethodCreatePermission, address)
				site.wants(t, c, 400, tc.MethodChannelBind, tc.ChannelNumber(0x4001), address)
				for _, attrs := range [][]tc.Attr{
					{tc.String(tc.AttrData, "x"), address}, {address, tc.String(tc.AttrData, "x")}, {address},
				} {
					silent(t, c, fmt.Sprintf("Send with an address of %d bytes", len(v)),
						tc.NewBuilder(tc.MethodSend, tc.ClassIndication).Add(attrs...).Bytes())
				}
			}
			// The datagram that ended others: 32 bytes, and the larger ones.
			for size := range 480 {
				b := tc.NewBuilder(tc.MethodSend, tc.ClassIndication).Add(tc.Bytes(tc.AttrData, make([]byte, size)))
				must(t, c.SendRaw(within(t), b.Add(tc.Bytes(tc.AttrXORPeerAddress, nil)).Bytes()))
			}
			must(t, c.Send(within(t), peer.Addr(), []byte("only this")))
			nextFrom(t, peer, "only this", netip.AddrPort{})
			serves(t, s, addr)
		})
	}
}

// TestAttributesOfWrongLength sends every typed attribute at every shorter
// length and some longer ones in every method, signed. Where the method reads
// the attribute, 400 is the only answer.
func TestAttributesOfWrongLength(t *testing.T) {
	s, addr := start(t, nil)
	udp := tc.RequestedTransport(tc.TransportUDP)
	typed := []struct {
		attr    uint16
		size    int
		readers []uint16 // methods that must refuse another length
	}{
		{tc.AttrRequestedTransport, 4, []uint16{tc.MethodAllocate}},
		{tc.AttrLifetime, 4, []uint16{tc.MethodAllocate, tc.MethodRefresh}},
		{tc.AttrRequestedAddressFamily, 4, []uint16{tc.MethodAllocate, tc.MethodRefresh}},
		{tc.AttrEvenPort, 1, []uint16{tc.MethodAllocate}},
		{tc.AttrReservationToken, 8, []uint16{tc.MethodAllocate}},
		{tc.AttrChannelNumber, 4, []uint16{tc.MethodChannelBind}},
		{tc.AttrXORPeerAddress, 20, nil}, // see TestAddressesOfWrongLength
		{tc.AttrDontFragment, 0, nil},
		{tc.AttrAdditionalAddressFamily, 4, nil},
		{tc.AttrErrorCode, 8, nil},
		{tc.AttrUnknownAttributes, 4, nil},
		{tc.AttrXORMappedAddress, 20, nil},
		{tc.AttrXORRelayedAddress, 20, nil},
		{tc.AttrMappedAddress, 20, nil},
		{tc.AttrPriority, 4, nil},
		{tc.AttrUseCandidate, 0, nil},
		{tc.AttrConnectionID, 4, nil},
		{tc.AttrMobilityTicket, 8, nil},
		{tc.AttrAlternateServer, 20, nil},
		{tc.AttrICMP, 8, nil},
	}
	site := site{server: s, network: "udp", addr: addr}
	c, _ := site.allocated(t)
	fresh := site.dial(t)
	peer := netip.MustParseAddrPort("127.0.0.1:9")
	for _, tt := range typed {
		for n := range tt.size + 5 {
			for _, method := range []uint16{tc.MethodAllocate, tc.MethodRefresh, tc.MethodCreatePermission, tc.MethodChannelBind} {
				client := c
				if method == tc.MethodAllocate {
					client = fresh
				}
				value := bytes.Repeat([]byte{1}, n)
				_, code := site.ask(t, client, method, func(b *tc.Builder) {
					b.Add(tc.Bytes(tt.attr, value))
					switch method {
					case tc.MethodAllocate:
						b.Add(udp)
					case tc.MethodCreatePermission:
						b.Add(tc.XORAddress(tc.AttrXORPeerAddress, peer, b.ID()))
					case tc.MethodChannelBind:
						b.Add(tc.ChannelNumber(0x4001), tc.XORAddress(tc.AttrXORPeerAddress, peer, b.ID()))
					}
				})
				if n != tt.size && slices.Contains(tt.readers, method) && code != 400 {
					t.Errorf("attribute %04x of %d bytes in method %03x: %d, want 400", tt.attr, n, method, code)
				}
				if method == tc.MethodAllocate && code == 0 {
					if _, err := fresh.Refresh(within(t), 0); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	// The attributes that authenticate, each at every shorter length.
	must(t, fresh.Learn(within(t)))
	realm, nonce := fresh.Challenge()
	for _, a := range []tc.Attr{
		tc.String(tc.AttrUsername, "turn"), tc.String(tc.AttrRealm, realm), tc.Bytes(tc.AttrNonce, nonce),
	} {
		for n := range len(a.Value) + 3 {
			b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(udp)
			for _, part := range []tc.Attr{tc.String(tc.AttrUsername, "turn"), tc.String(tc.AttrRealm, realm), tc.Bytes(tc.AttrNonce, nonce)} {
				if part.Type == a.Type {
					part.Value = append(slices.Clone(part.Value), 0, 0, 0)[:n]
				}
				b.Add(part)
			}
			m := raw(t, fresh, b.Integrity(fresh.Key()))
			if code := m.ErrorCode(); n != len(a.Value) && code != 400 && code != 401 && code != 438 {
				t.Errorf("attribute %04x of %d bytes: %v, want 400, 401 or 438", a.Type, n, m)
			}
			if m.Class() == tc.ClassSuccess {
				must(t, errOnly(fresh.Refresh(within(t), 0)))
			}
		}
	}
	// Those that choose how to authenticate: refused before the key is known.
	for _, attr := range []uint16{tc.AttrPasswordAlgorithm, tc.AttrPasswordAlgorithms, tc.AttrUserhash} {
		for n := range 40 {
			b := tc.NewBuilder(tc.MethodRefresh, tc.ClassRequest).Add(tc.Bytes(attr, make([]byte, n)))
			c.Credential(b, second(c.Challenge()))
			m := raw(t, c, b.Integrity(c.Key()))
			// An offer that is not asked for is comprehension-optional.
			if code := m.ErrorCode(); code != 400 && !(code == 0 && attr == tc.AttrPasswordAlgorithms) {
				t.Errorf("attribute %04x of %d bytes: %v, want 400", attr, n, m)
			}
		}
	}
	for n := range 40 {
		b := tc.NewBuilder(tc.MethodRefresh, tc.ClassRequest)
		c.Credential(b, second(c.Challenge()))
		m := raw(t, c, b.Add(tc.Bytes(tc.AttrMessageIntegrity, make([]byte, n))))
		if code := m.ErrorCode(); code != 401 && code != 400 {
			t.Errorf("MESSAGE-INTEGRITY of %d zeroes: %v, want 401 or 400", n, m)
		}
	}
	serves(t, s, addr)
}

func errOnly[T any](_ T, err error) error { return err }
func second[A, B any](_ A, b B) B         { return b }

// TestLengthsThatLie sends datagrams whose lengths do not add up. None of them
// is answered.
func TestLengthsThatLie(t *testing.T) {
	s, addr := start(t, nil)
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(t)
	binding := func() *tc.Builder { return tc.NewBuilder(tc.MethodBinding, tc.ClassRequest) }
	whole := binding().Add(tc.String(tc.AttrSoftware, "abcd")).Bytes()
	for n := range len(whole) {
		silent(t, c, fmt.Sprintf("the first %d bytes", n), whole[:n])
	}
	for _, n := range []int{1, 3, 4, 5, 400, 0x7fff, 0xfffc, 0xffff} {
		silent(t, c, fmt.Sprintf("length %d without a body", n), binding().SetLength(n).Bytes())
	}
	for name, b := range map[string]*tc.Builder{
		"an attribute of 60000 bytes that are not there": binding().Add(tc.Attr{Type: tc.AttrSoftware, Length: 60000}),
		"an attribute one byte too long":                 binding().Add(tc.Attr{Type: tc.AttrSoftware, Value: []byte("abcd"), Length: 5}),
		"an attribute header cut in half":                binding().AddBytes(0x80, 0x22),
		"a length short of the body":                     binding().Add(tc.String(tc.AttrSoftware, "abcd")).SetLength(4),
		"a length that is no multiple of four":           binding().AddBytes(0x80, 0x22, 0).SetLength(3),
		"bytes behind the message":                       binding().AddBytes(1, 2, 3, 4).SetLength(0),
		"another cookie":                                 binding().SetCookie(0x2112a443),
		"the two first bits set":                         binding().SetType(0xc001),
	} {
		silent(t, c, name, b.Bytes())
	}
	serves(t, s, addr)
}

// TestDataThatWasNotSentIsNotRelayed claims more payload than there is.
func TestDataThatWasNotSentIsNotRelayed(t *testing.T) {
	s, addr := start(t, nil)
	c, relayed := site{server: s, network: "udp", addr: addr}.allocated(t)
	peer := tc.NewPeer(t, "127.0.0.1")
	must(t, c.ChannelBind(within(t), 0x4001, peer.Addr()))
	for _, claim := range []int{17, 20, 1200, 1400, 0xfffc, 0xffff} {
		must(t, c.SendRaw(within(t), tc.ChannelData(0x4001, make([]byte, 16), claim, false)))
		b := tc.NewBuilder(tc.MethodSend, tc.ClassIndication)
		b.Add(tc.XORAddress(tc.AttrXORPeerAddress, peer.Addr(), b.ID()), tc.Attr{Type: tc.AttrData, Value: make([]byte, 16), Length: claim})
		must(t, c.SendRaw(within(t), b.Bytes()))
	}
	for _, short := range [][]byte{{}, {0x40}, {0x40, 1}, {0x40, 1, 0}} {
		must(t, c.SendRaw(within(t), short))
	}
	must(t, c.SendRaw(within(t), tc.ChannelData(0x4001, []byte("padded"), -1, true)))
	nextFrom(t, peer, "padded", relayed)
	serves(t, s, addr)
}

// TestFramesCutAtEveryByte sends one conversation over TCP in two pieces, cut at
// every place, then byte by byte, and each time gets the same answers.
func TestFramesCutAtEveryByte(t *testing.T) {
	s, addr := start(t, nil)
	site := site{server: s, network: "tcp", addr: addr}
	c, _ := site.allocated(t)
	echo := tc.NewEcho(t, "127.0.0.1")
	must(t, c.ChannelBind(within(t), 0x4001, echo.Addr()))

	var talk []byte
	var ids []tc.TransactionID
	conversation := func() {
		talk, ids = nil, nil
		add := func(b *tc.Builder) {
			talk = append(talk, b.Bytes()...)
			ids = append(ids, b.ID())
		}
		add(tc.NewBuilder(tc.MethodBinding, tc.ClassRequest))
		talk = append(talk, tc.ChannelData(0x4001, []byte("12345"), -1, true)...)
		b := tc.NewBuilder(tc.MethodCreatePermission, tc.ClassRequest)
		c.Sign(b.Add(tc.XORAddress(tc.AttrXORPeerAddress, echo.Addr(), b.ID())))
		add(b.Fingerprint())
		talk = append(talk, tc.ChannelData(0x4001, nil, -1, true)...)
		b = tc.NewBuilder(tc.MethodSend, tc.ClassIndication)
		talk = append(talk, b.Add(tc.XORAddress(tc.AttrXORPeerAddress, echo.Addr(), b.ID()), tc.String(tc.AttrData, "abc")).Bytes()...)
		add(tc.NewBuilder(tc.MethodBinding, tc.ClassRequest))
	}
	check := func(what string) {
		t.Helper()
		for i, id := range ids {
			m, err := c.Stray(within(t))
			if err != nil || m.TransactionID != id || m.Class() != tc.ClassSuccess {
				t.Fatalf("%s: answer %d is %v, %v", what, i, m, err)
			}
		}
		for _, want := range []string{"12345", "", "abc"} {
			nextData(t, c, want, 0x4001, netip.AddrPort{})
		}
	}
	conversation()
	for cut := range len(talk) {
		conversation()
		must(t, c.SendRaw(within(t), talk[:cut]))
		must(t, c.SendRaw(within(t), talk[cut:]))
		check(fmt.Sprintf("cut at byte %d", cut))
	}
	conversation()
	for i := range talk {
		must(t, c.SendRaw(within(t), talk[i:i+1]))
	}
	check("byte by byte")

	// And connections that end at every byte.
	conversation()
	for cut := range len(talk) {
		c := connect(t, addr)
		_, err := c.Write(talk[:cut])
		must(t, err)
		c.Close()
	}
	serves(t, s, addr)
}

// TestStallsBeforeProof holds connections in every phase before an allocation.
// They are cut, and others are served meanwhile.
func TestStallsBeforeProof(t *testing.T) {
	s, addr := start(t, brisk)
	cert, _ := testCertificate(t)
	secure := serveStreams(t, s, netip.AddrPortFrom(loopback, 0), &tls.Config{Certificates: []tls.Certificate{cert}})
	bare := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Bytes()
	for _, tt := range []struct {
		name string
		addr netip.AddrPort
		sent []byte
	}{
		{"nothing at all", addr, nil},
		{"half a STUN header", addr, bare[:6]},
		{"a header whose body never comes", addr, tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).SetLength(400).Bytes()},
		{"half a ChannelData header", addr, []byte{0x40, 0}},
		{"no TLS at all", secure, nil},
		{"half a ClientHello", secure, []byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var all []net.Conn
			for range 20 {
				c := connect(t, tt.addr)
				_, err := c.Write(tt.sent)
				must(t, err)
				all = append(all, c)
			}
			serves(t, s, addr)
			for _, c := range all {
				cutOff(t, c, tt.name)
			}
		})
	}
}

// TestTalkWithoutProofIsCut keeps a connection busy without ever getting an
// allocation.
func TestTalkWithoutProofIsCut(t *testing.T) {
	_, addr := start(t, hasty)
	for name, message := range map[string]func() *tc.Builder{
		"Bindings":       func() *tc.Builder { return tc.NewBuilder(tc.MethodBinding, tc.ClassRequest) },
		"bare Allocates": func() *tc.Builder { return tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest) },
	} {
		c, err := tc.Dial(within(t), "tcp", addr.String(), tc.Auth{})
		must(t, err)
		ctx := within(t)
		for err == nil {
			_, err = c.RoundTrip(ctx, message().Bytes())
		}
		if ctx.Err() != nil {
			t.Errorf("%s: the connection is still there", name)
		}
		c.Close()
	}
}

// TestAnAllocationCanFollowAnother ends an allocation that has outlived the
// time for an unproven connection, and asks for the next one.
func TestAnAllocationCanFollowAnother(t *testing.T) {
	_, addr := start(t, brisk)
	c, err := tc.Dial(within(t), "tcp", addr.String(), tc.Auth{User: "turn", Password: "turn"})
	must(t, err)
	defer c.Close()
	must(t, errOnly(c.Allocate(within(t))))
	old, err := tc.Dial(within(t), "tcp", addr.String(), tc.Auth{})
	must(t, err)
	defer old.Close()
	must(t, errOnly(old.Binding(within(t))))
	<-old.Done() // a connection of the same age, without an allocation, has been cut
	must(t, errOnly(c.Refresh(within(t), 0)))
	if _, err := c.Allocate(within(t)); err != nil {
		t.Errorf("Allocate after Refresh 0 on the same connection: %v", err)
	}
}

// TestWhatIsNoTURN sends other protocols to the TCP port.
func TestWhatIsNoTURN(t *testing.T) {
	s, addr := start(t, nil)
	for name, message := range map[string]string{
		"HTTP": "GET / HTTP/1.1\r\nHost: turn\r\n\r\n",
		"TLS":  "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"SSH":  "SSH-2.0-OpenSSH_9.2\r\n",
		"0xff": strings.Repeat("\xff", 64),
		"RTP":  "\x80\x60\x00\x01" + strings.Repeat("\x00", 60),
	} {
		c := connect(t, addr)
		_, err := io.WriteString(c, message)
		must(t, err)
		c.(*net.TCPConn).CloseWrite()
		cutOff(t, c, name)
	}
	serves(t, s, addr)
}

// TestDrippedFrame feeds a frame of 60 KB in tiny pieces.
func TestDrippedFrame(t *testing.T) {
	s, addr := start(t, nil)
	c := connect(t, addr)
	_, err := c.Write(tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).SetLength(60000).Bytes())
	for i := 0; err == nil && i < 12000; i++ {
		_, err = c.Write([]byte{1, 2, 3})
	}
	c.(*net.TCPConn).CloseWrite()
	cutOff(t, c, "60 KB before any proof")
	serves(t, s, addr)
}

// validMessages are what the mutations start from.
func validMessages(c *tc.Client, peer netip.AddrPort) [][]byte {
	signed := func(method uint16, build func(*tc.Builder)) []byte {
		b := tc.NewBuilder(method, tc.ClassRequest)
		if build != nil {
			build(b)
		}
		c.Sign(b)
		return b.Fingerprint().Bytes()
	}
	address := func(b *tc.Builder) { b.Add(tc.XORAddress(tc.AttrXORPeerAddress, peer, b.ID())) }
	send := tc.NewBuilder(tc.MethodSend, tc.ClassIndication)
	address(send)
	return [][]byte{
		tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Bytes(),
		signed(tc.MethodAllocate, func(b *tc.Builder) { b.Add(tc.RequestedTransport(tc.TransportUDP), tc.EvenPort(true)) }),
		signed(tc.MethodAllocate, func(b *tc.Builder) {
			b.Add(tc.RequestedTransport(tc.TransportUDP), tc.Bytes(tc.AttrMobilityTicket, nil))
		}),
		signed(tc.MethodRefresh, func(b *tc.Builder) { b.Add(tc.Lifetime(600)) }),
		signed(tc.MethodRefresh, func(b *tc.Builder) { b.Add(tc.Bytes(tc.AttrMobilityTicket, make([]byte, 32))) }),
		signed(tc.MethodCreatePermission, address),
		signed(tc.MethodChannelBind, func(b *tc.Builder) { b.Add(tc.ChannelNumber(0x4001)); address(b) }),
		send.Add(tc.String(tc.AttrData, "payload")).Bytes(),
		tc.ChannelData(0x4001, []byte("payload"), -1, true),
	}
}

// mutate changes a message in a few places.
func mutate(r *rand.Rand, message []byte) []byte {
	m := slices.Clone(message)
	for range 1 + r.IntN(4) {
		if len(m) == 0 {
			return m
		}
		i := r.IntN(len(m))
		switch r.IntN(6) {
		case 0:
			m[i] = byte(r.Uint32())
		case 1:
			m[i] ^= 1 << r.IntN(8)
		case 2:
			m = m[:i]
		case 3:
			m = slices.Insert(m, i, byte(r.Uint32()))
		case 4:
			m = slices.Insert(m, i, m[:r.IntN(len(m))]...)
		case 5:
			if i+2 <= len(m) {
				binary.BigEndian.PutUint16(m[i:], []uint16{0, 1, 3, 0x7fff, 0xfffc, 0xffff}[r.IntN(6)])
			}
		}
	}
	return m
}

// TestMutatedMessages sends thousands of broken messages, the same in every
// run, from a client with an allocation and from one without.
func TestMutatedMessages(t *testing.T) {
	s, addr := start(t, withMobility)
	r := rand.New(rand.NewPCG(3478, 5349))
	peer := tc.NewPeer(t, "127.0.0.1")
	with, _ := site{server: s, network: "udp", addr: addr}.allocated(t)
	without := site{server: s, network: "udp", addr: addr}.dial(t)
	must(t, without.Learn(within(t)))
	for _, c := range []*tc.Client{with, without} {
		valid := validMessages(c, peer.Addr())
		for i := range 3000 {
			must(t, c.SendRaw(within(t), mutate(r, valid[i%len(valid)])))
			if i%50 == 0 { // do not outrun the socket
				must(t, errOnly(c.Binding(within(t))))
			}
		}
	}
	for range 300 {
		c := connect(t, addr)
		var stream []byte
		for _, m := range validMessages(with, peer.Addr()) {
			stream = append(stream, m...)
		}
		c.Write(mutate(r, stream)) // it may be cut off meanwhile
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
		c.Close()
	}
	serves(t, s, addr)
}

// TestUnauthenticatedRequestsLeaveNothing sends Allocates from many ports.
func TestUnauthenticatedRequestsLeaveNothing(t *testing.T) {
	s, addr := start(t, nil)
	serves(t, s, addr)
	before := runtime.NumGoroutine()
	free := s.FreePorts()
	live := s.Allocations()
	bare := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Bytes()
	answer := make([]byte, 1500)
	for range 500 {
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(time.Minute)))
		must(t, errOnly(c.Write(bare)))
		must(t, errOnly(c.Read(answer)))
		c.Close()
	}
	if got := s.Allocations(); got != live {
		t.Errorf("%d allocations, want %d as before", got, live)
	}
	if got := s.FreePorts(); got != free {
		t.Errorf("%d ports free, want %d as before", got, free)
	}
	if got := runtime.NumGoroutine(); got > before+5 {
		t.Errorf("%d goroutines, %d before", got, before)
	}
}

// TestAnswersToStrangersAreSmall bounds what a spoofed request brings upon its
// victim.
func TestAnswersToStrangersAreSmall(t *testing.T) {
	_, addr := start(t, nil)
	c := site{network: "udp", addr: addr}.dial(t)
	transport := tc.RequestedTransport(tc.TransportUDP)
	for _, tt := range []struct {
		name    string
		request *tc.Builder
		most    float64
	}{
		{"Binding", tc.NewBuilder(tc.MethodBinding, tc.ClassRequest), 2},
		{"bare Allocate", tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest), 3},
		{"Allocate", tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(transport), 2.3},
		{"CreatePermission", tc.NewBuilder(tc.MethodCreatePermission, tc.ClassRequest), 3},
		{"unknown attribute", tc.NewBuilder(tc.MethodBinding, tc.ClassRequest).Add(tc.Bytes(0x7ff0, nil)), 2},
		{"sixty unknown attributes", func() *tc.Builder {
			b := tc.NewBuilder(tc.MethodBinding, tc.ClassRequest)
			for i := range uint16(60) {
				b.Add(tc.Bytes(0x7f00+i, nil))
			}
			return b
		}(), 2},
	} {
		m := raw(t, c, tt.request)
		if got := float64(len(m.Raw)) / float64(len(tt.request.Bytes())); got > tt.most {
			t.Errorf("%s: answer %.2f times the request, want at most %.1f", tt.name, got, tt.most)
		}
	}
}

// TestARangeOfAHundredPortsServesAHundred and comes back whole.
func TestARangeOfAHundredPortsServesAHundred(t *testing.T) {
	// A range below the ephemeral ports, and where loopback has more than one
	// address, an address that no other process relays at.
	s, addr := start(t, func(o *turn.Options) {
		o.MinPort, o.MaxPort = 20100, 20199
		if runtime.GOOS == "linux" {
			own := netip.AddrFrom4([4]byte{127, 77, byte(os.Getpid() >> 8), byte(os.Getpid())})
			o.Addresses = []turn.Address{{External: own, Local: own}}
		}
	})
	for _, network := range []string{"udp", "tcp"} {
		for round := range 2 {
			var clients []*tc.Client
			ports := map[uint16]bool{}
			for i := range 100 {
				c := site{server: s, network: network, addr: addr}.dial(t)
				a, err := c.Allocate(within(t))
				if err != nil {
					t.Fatalf("%s, round %d, allocation %d: %v", network, round, i, err)
				}
				ports[a.Relayed[0].Port()] = true
				clients = append(clients, c)
			}
			if len(ports) != 100 || s.FreePorts() != 0 {
				t.Errorf("%d different ports and %d free, want 100 and 0", len(ports), s.FreePorts())
			}
			if _, err := (site{server: s, network: network, addr: addr}).dial(t).Allocate(within(t)); tc.Code(err) != 508 {
				t.Errorf("%s, allocation 101: %v, want 508", network, err)
			}
			for _, c := range clients {
				if network == "udp" || round == 0 {
					must(t, errOnly(c.Refresh(within(t), 0)))
				}
				c.Close()
			}
			waitFor(t, s, 0)
			if got := s.FreePorts(); got != 100 {
				t.Errorf("%s, round %d: %d ports came back, want 100", network, round, got)
			}
		}
	}
	// EVEN-PORT without the R bit, half again as often as the range is long
	// (compare GHSA-847g-qmc6-6m4r).
	c := site{server: s, network: "udp", addr: addr}.dial(t)
	for i := range 150 {
		if _, err := c.Allocate(within(t), tc.EvenPort(false)); err != nil {
			t.Fatalf("EVEN-PORT cycle %d: %v", i, err)
		}
		must(t, errOnly(c.Refresh(within(t), 0)))
	}
	waitFor(t, s, 0)
	if got := s.FreePorts(); got != 100 {
		t.Errorf("after EVEN-PORT cycles %d ports are free, want 100", got)
	}
}

// waitFor returns when the server has n allocations.
func waitFor(t testing.TB, s *turn.Server, n int) {
	t.Helper()
	ctx := within(t)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.Allocations() != n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%d allocations, want %d", s.Allocations(), n)
		}
	}
}

func TestQuotas(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits turn.Limits
		auth   []string // users of the allocations; the last is one too many
		code   int
	}{
		{"of a user", turn.Limits{AllocationsPerUser: 3}, []string{"turn", "turn", "turn", "turn"}, 486},
		{"of a user do not touch another", turn.Limits{AllocationsPerUser: 1}, []string{"turn", "other"}, 0},
		{"of an address", turn.Limits{AllocationsPerAddress: 2}, []string{"turn", "other", "turn"}, 486},
		{"of the server", turn.Limits{Allocations: 2}, []string{"turn", "other", "turn"}, 508},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, addr := start(t, func(o *turn.Options) { twoUsers(o); o.Limits = tt.limits })
			for round := range 2 {
				var held []*tc.Client
				for i, user := range tt.auth {
					c, err := tc.Dial(within(t), "udp", addr.String(), tc.Auth{User: user, Password: user})
					must(t, err)
					t.Cleanup(func() { c.Close() })
					_, err = c.Allocate(within(t))
					want := 0
					if i == len(tt.auth)-1 {
						want = tt.code
					}
					if got := tc.Code(err); got != want {
						t.Fatalf("round %d, allocation %d: %d, want %d", round, i+1, got, want)
					}
					if err == nil {
						held = append(held, c)
					}
				}
				for _, c := range held {
					must(t, errOnly(c.Refresh(within(t), 0)))
				}
				waitFor(t, s, 0)
			}
		})
	}
}

// TestWhatIsGivenUpIsFreeWhenItsClientHearsOfIt, so that somebody else may have it
// at once.
func TestWhatIsGivenUpIsFreeWhenItsClientHearsOfIt(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) { o.Limits.AllocationsPerUser = 1 })
	for _, network := range []string{"udp", "tcp"} {
		one := site{server: s, network: network, addr: addr}
		c, next := one.dial(t), one.dial(t)
		must(t, next.Learn(within(t)))
		for range 50 {
			if _, err := c.Allocate(within(t)); err != nil {
				t.Fatalf("%s: %v", network, err)
			}
			must(t, errOnly(c.Refresh(within(t), 0)))
			if got := s.Allocations(); got != 0 {
				t.Fatalf("%s: %d allocations after the answer to a Refresh with LIFETIME 0, want none", network, got)
			}
			c, next = next, c
		}
	}
}

// TestReservationsCountAsAllocations: a client that makes pairs and ends them again
// holds a port with each until its reservation is over.
func TestReservationsCountAsAllocations(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits turn.Limits
		code   int
	}{
		{"of a user", turn.Limits{AllocationsPerUser: 3}, 486},
		{"of an address", turn.Limits{AllocationsPerAddress: 3}, 486},
		{"of the server", turn.Limits{Allocations: 3}, 508},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, addr := start(t, func(o *turn.Options) { o.Limits = tt.limits })
			c := site{server: s, network: "udp", addr: addr}.dial(t)
			pair := func() (*tc.Allocation, int) {
				a, err := c.Allocate(within(t), tc.EvenPort(true))
				if err == nil {
					must(t, errOnly(c.Refresh(within(t), 0)))
				}
				return a, tc.Code(err)
			}
			var last *tc.Allocation
			for i := range 3 {
				a, code := pair()
				if code != 0 {
					t.Fatalf("pair %d: %d, want 0", i+1, code)
				}
				last = a
			}
			if _, code := pair(); code != tt.code {
				t.Errorf("pair 4: %d, want %d", code, tt.code)
			}
			if _, err := c.Allocate(within(t)); tc.Code(err) != tt.code {
				t.Errorf("allocation beside three reservations: %v, want %d", err, tt.code)
			}
			a, err := c.Allocate(within(t), tc.ReservationToken(last.Token))
			must(t, err)
			if got, want := a.Relayed[0].Port(), last.Relayed[0].Port()+1; got != want {
				t.Errorf("the token brought port %d, want %d", got, want)
			}
			must(t, errOnly(c.Refresh(within(t), 0)))
			if _, code := pair(); code != 0 {
				t.Errorf("a pair after a reservation was used: %d, want 0", code)
			}
		})
	}
}

func TestPermissionsAndChannelsAreBounded(t *testing.T) {
	s, addr := start(t, func(o *turn.Options) {
		o.Limits = turn.Limits{Permissions: 4, Channels: 3}
		o.Allow = []peers.Rule{{Prefix: netip.MustParsePrefix("127.0.0.0/8")}}
	})
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(t)
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i)}), 9)
	}
	for i := range 3 {
		must(t, c.ChannelBind(within(t), 0x4000+uint16(i), at(i)))
	}
	for i := range 3 { // renewal costs nothing
		must(t, c.ChannelBind(within(t), 0x4000+uint16(i), at(i)))
	}
	if code := tc.Code(c.ChannelBind(within(t), 0x4003, at(3))); code != 508 {
		t.Errorf("channel 4: %d, want 508", code)
	}
	must(t, c.CreatePermission(within(t), at(3)))
	if code := tc.Code(c.CreatePermission(within(t), at(4))); code != 508 {
		t.Errorf("permission 5: %d, want 508", code)
	}
	must(t, c.CreatePermission(within(t), at(0), at(1), at(2), at(3)))
}

// TestCredentialThatExpires in a call: the call goes on, unless the operator
// wants it otherwise; no other begins.
func TestCredentialThatExpires(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			t.Parallel()
			lo := uint16(22200)
			if strict {
				lo = 22300
			}
			_, addr := start(t, func(o *turn.Options) {
				o.StrictExpiry = strict
				o.MinPort, o.MaxPort = lo, lo+99
			})
			expires := time.Now().Add(5 * time.Second).Truncate(time.Second)
			user, password := turn.Credential("north", "alice", expires)
			c, err := tc.Dial(within(t), "udp", addr.String(), tc.Auth{User: user, Password: password})
			must(t, err)
			defer c.Close()
			must(t, errOnly(c.Allocate(within(t))))
			<-time.After(time.Until(expires)) // wall time is what is tested
			want := 0
			if strict {
				want = 401
			}
			_, err = c.Refresh(within(t), 600)
			if got := tc.Code(err); got != want {
				t.Errorf("Refresh: %d, want %d", got, want)
			}
			if got := tc.Code(c.CreatePermission(within(t), netip.MustParseAddrPort("127.0.0.1:9"))); got != want {
				t.Errorf("CreatePermission: %d, want %d", got, want)
			}
			again, err := tc.Dial(within(t), "udp", addr.String(), tc.Auth{User: user, Password: password})
			must(t, err)
			defer again.Close()
			if _, err := again.Allocate(within(t)); tc.Code(err) != 401 {
				t.Errorf("another Allocate: %v, want 401", err)
			}
		})
	}
}

// TestTimeLimitedCredentials in forms that are wrong.
func TestTimeLimitedCredentials(t *testing.T) {
	_, addr := start(t, func(o *turn.Options) { o.Secrets = []string{"north", "south"} })
	later := time.Now().Add(time.Hour)
	make := func(secret, id string, at time.Time) tc.Auth {
		u, p := turn.Credential(secret, id, at)
		return tc.Auth{User: u, Password: p}
	}
	stolen := make("north", "alice", later)
	stolen.User = strconv.FormatInt(later.Add(time.Hour).Unix(), 10) + ":alice"
	for _, tt := range []struct {
		name string
		auth tc.Auth
		code int
	}{
		{"the first secret", make("north", "alice", later), 0},
		{"the second secret", make("south", "bob", later), 0},
		{"without an id", make("north", "", later), 0},
		{"beside a fixed user", tc.Auth{User: "turn", Password: "turn"}, 0},
		{"another secret", make("west", "alice", later), 401},
		{"expired", make("north", "alice", time.Now().Add(-time.Second)), 401},
		{"another time than was signed", stolen, 401},
		{"no time", tc.Auth{User: "alice", Password: stolen.Password}, 401},
		{"a negative time", tc.Auth{User: "-1:alice", Password: stolen.Password}, 401},
		{"a time beyond all bounds", tc.Auth{User: "99999999999999999999:a", Password: stolen.Password}, 401},
	} {
		c, err := tc.Dial(within(t), "udp", addr.String(), tt.auth)
		must(t, err)
		if _, err := c.Allocate(within(t)); tc.Code(err) != tt.code {
			t.Errorf("%s: %v, want code %d", tt.name, err, tt.code)
		}
		c.Close()
	}
}

// TestSecretsStayOutOfTheLog runs good and bad logins and reads the whole log.
func TestSecretsStayOutOfTheLog(t *testing.T) {
	var log lockedBuffer
	s, addr := start(t, func(o *turn.Options) {
		o.Users = []turn.User{{Name: "turn", Passwords: []string{"p4ssw0rd"}}}
		o.Secrets = []string{"n0rthst4r"}
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	user, password := turn.Credential("n0rthst4r", "alice", time.Now().Add(time.Hour))
	secrets := []string{"p4ssw0rd", "n0rthst4r", "wr0ng", password}
	for _, a := range []tc.Auth{{User: "turn", Password: "p4ssw0rd"}, {User: user, Password: password}, {User: "turn", Password: "wr0ng"}} {
		c, err := tc.Dial(within(t), "udp", addr.String(), a)
		must(t, err)
		if _, err := c.Allocate(within(t)); err == nil {
			c.CreatePermission(within(t), denied)
			must(t, errOnly(c.Refresh(within(t), 0)))
		}
		realm, nonce := c.Challenge()
		for _, key := range [][]byte{tc.KeyMD5(a.User, realm, a.Password), nonce} {
			secrets = append(secrets, string(key), hex.EncodeToString(key))
		}
		c.Close()
	}
	waitFor(t, s, 0)
	text := log.String()
	if !strings.Contains(text, "allocation open") || !strings.Contains(text, "allocation closed") || !strings.Contains(text, "peer refused") {
		t.Errorf("the log lacks what it should tell:\n%s", text)
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("the log has the secret %q:\n%s", secret, text)
		}
	}
	if !strings.Contains(text, "10.0.0.0/8") || !strings.Contains(text, "turn.peers.allow") {
		t.Errorf("the refusal names neither rule nor remedy:\n%s", text)
	}
}

// TestStrangersDoNotFillTheLog counts lines.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	var log lockedBuffer
	s, addr := start(t, func(o *turn.Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(t)
	lines := strings.Count(log.String(), "\n")
	for range 200 {
		must(t, c.SendRaw(within(t), []byte("nonsense")))
		must(t, c.SendRaw(within(t), tc.NewBuilder(tc.MethodSend, tc.ClassIndication).Bytes()))
		must(t, c.Send(within(t), denied, []byte("x")))
		raw(t, c, tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest))
		c.CreatePermission(within(t), denied)
	}
	if got := strings.Count(log.String(), "\n") - lines; got > 5 {
		t.Errorf("%d lines for what a stranger sent, want a handful", got)
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct{ testnet.LogBuffer }

// TestPeersThatAreRefused asks for the special addresses on an IPv4 and on an
// IPv6 allocation, in every way of writing them.
func TestPeersThatAreRefused(t *testing.T) {
	six := netip.IPv6Loopback()
	testnet.Need(t, "ipv6")
	s, addr := start(t, func(o *turn.Options) {
		o.Addresses = append(o.Addresses, turn.Address{External: six, Local: six})
		o.Allow = append(o.Allow, peers.Rule{Prefix: netip.MustParsePrefix("::1/128")})
	})
	site := site{server: s, network: "udp", addr: addr}
	four, _ := site.allocated(t)
	sixth, relayed := site.allocated(t, tc.RequestedAddressFamily(tc.FamilyIPv6))
	if !relayed.Addr().Is6() {
		t.Fatalf("relayed address %v, want IPv6", relayed)
	}
	for _, a := range []string{
		"127.255.255.254", "0.1.2.3", "0.0.0.0", "10.9.9.9", "100.64.0.1", "100.100.100.200", "172.16.9.9", "192.168.9.9",
		"169.254.169.254", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
		"224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
		"::", "::127.0.0.1", "::10.9.9.9", "::ffff:0:127.0.0.1", "2002:7f00:1::1", "2002:a09:909::1",
		"64:ff9b::7f00:1", "64:ff9b::a09:909", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a09:909", "2001:0:a09:909::1",
		"fe80::1", "fd00::9", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "100::1", "5f00::1", "200::1",
		"::ffff:0.0.0.0", "::ffff:10.9.9.9", "::ffff:127.0.0.2", "::ffff:169.254.169.254",
	} {
		peer := netip.AddrPortFrom(netip.MustParseAddr(a), 4000)
		c, want := four, 403
		if peer.Addr().Is6() {
			c = sixth
		}
		if got := tc.Code(c.CreatePermission(within(t), peer)); got != want {
			t.Errorf("CreatePermission for %v: %d, want %d", peer, got, want)
		}
		if got := tc.Code(c.ChannelBind(within(t), 0x4001, peer)); got != want {
			t.Errorf("ChannelBind for %v: %d, want %d", peer, got, want)
		}
		if peer.Addr().Is4In6() {
			if got := tc.Code(four.CreatePermission(within(t), peer)); got != 403 {
				t.Errorf("CreatePermission for %v on an IPv4 allocation: %d, want 403", peer, got)
			}
		}
	}
	if got := tc.Code(sixth.CreatePermission(within(t), netip.MustParseAddrPort("127.0.0.1:9"))); got != 443 {
		t.Errorf("an IPv4 peer of an IPv6 allocation: %d, want 443", got)
	}
	echo := tc.NewEcho(t, "::1")
	must(t, sixth.CreatePermission(within(t), echo.Addr()))
	must(t, sixth.Send(within(t), echo.Addr(), []byte("six")))
	nextData(t, sixth, "six", 0, echo.Addr())
	must(t, sixth.ChannelBind(within(t), 0x4001, echo.Addr()))
	must(t, sixth.SendChannel(within(t), 0x4001, []byte("six again")))
	nextData(t, sixth, "six again", 0x4001, netip.AddrPort{})
}

// TestKick ends allocations from outside.
func TestKick(t *testing.T) {
	s, addr := start(t, nil)
	for _, network := range []string{"udp", "tcp"} {
		c, relayed := site{server: s, network: network, addr: addr}.allocated(t)
		free := s.FreePorts()
		if n := s.Kick(func(ses turn.Session) bool { return ses.Relays[0] == relayed }); n != 1 {
			t.Fatalf("kicked %d allocations, want 1", n)
		}
		if got := s.FreePorts(); got != free+1 {
			t.Errorf("%d ports free, want %d", got, free+1)
		}
		if network == "udp" {
			if _, err := c.Refresh(within(t), 600); tc.Code(err) != 437 {
				t.Errorf("Refresh after the kick: %v, want 437", err)
			}
		}
	}
	serves(t, s, addr)
}

// TestDrainServesWhatIsThere and nothing new.
func TestDrainServesWhatIsThere(t *testing.T) {
	s, addr := start(t, nil)
	site := site{server: s, network: "udp", addr: addr}
	c, _ := site.allocated(t)
	left := make(chan int, 1)
	go func() { left <- s.Drain(context.WithoutCancel(t.Context())) }()
	ctx := within(t)
	for { // until the drain has begun
		probe := site.dial(t)
		_, err := probe.Allocate(ctx)
		if tc.Code(err) == 508 {
			break
		}
		must(t, err)
		must(t, errOnly(probe.Refresh(ctx, 0)))
	}
	echo := tc.NewEcho(t, "127.0.0.1")
	must(t, c.CreatePermission(ctx, echo.Addr()))
	must(t, c.Send(ctx, echo.Addr(), []byte("still")))
	nextData(t, c, "still", 0, echo.Addr())
	must(t, errOnly(c.Refresh(ctx, 600)))
	must(t, errOnly(c.Refresh(ctx, 0)))
	if got := <-left; got != 0 {
		t.Errorf("drain left %d allocations", got)
	}
}

// FuzzDatagram puts arbitrary bodies into signed and unsigned messages and
// sends arbitrary bytes, from a client with an allocation.
func FuzzDatagram(f *testing.F) {
	s, addr := start(f, withMobility)
	peer := netip.MustParseAddrPort("127.0.0.1:9")
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(f)
	for _, m := range validMessages(c, peer) {
		f.Add(uint16(0), uint8(0), m)
		if len(m) >= 20 {
			f.Add(binary.BigEndian.Uint16(m), uint8(1), m[20:])
			f.Add(binary.BigEndian.Uint16(m), uint8(3), m[20:])
		}
	}
	f.Add(uint16(0x0016), uint8(1), []byte{0, 0x12, 0, 0, 0, 0x13, 0, 0})
	f.Fuzz(func(t *testing.T, kind uint16, how uint8, body []byte) {
		if len(body) > 60000 {
			return
		}
		message := body
		if how&1 != 0 {
			b := tc.NewBuilder(0, 0).SetType(kind).AddBytes(body...)
			if how&2 != 0 {
				c.Sign(b)
			}
			if how&4 != 0 {
				b.Fingerprint()
			}
			message = b.Bytes()
		}
		must(t, c.SendRaw(within(t), message))
		if _, err := c.Binding(within(t)); err != nil {
			t.Fatalf("the server does not answer after %x: %v", message, err)
		}
	})
}

// FuzzStream sends arbitrary bytes over TCP, in two pieces.
func FuzzStream(f *testing.F) {
	s, addr := start(f, withMobility)
	c, _ := site{server: s, network: "udp", addr: addr}.allocated(f)
	peer := netip.MustParseAddrPort("127.0.0.1:9")
	var all []byte
	for i, m := range validMessages(c, peer) {
		f.Add(m, uint16(i))
		all = append(all, m...)
	}
	f.Add(all, uint16(33))
	f.Add([]byte{0x40, 0, 0xff, 0xfc, 0, 0, 0, 0, 0, 0, 0, 0}, uint16(5))
	f.Fuzz(func(t *testing.T, stream []byte, cut uint16) {
		conn, err := net.Dial("tcp", addr.String())
		if err != nil {
			if flag.Lookup("test.fuzz").Value.String() == "" {
				t.Fatal(err)
			}
			testnet.Lacks(t, "ports", "the fuzzer has used them up: "+err.Error())
		}
		defer conn.Close()
		must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		n := min(int(cut), len(stream))
		conn.Write(stream[:n]) // it may be cut off meanwhile
		conn.Write(stream[n:])
		conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Fatalf("the server keeps a connection that has ended: %x", stream)
		}
	})
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}
