package turn_test

import (
	"bytes"
	"crypto/tls"
	"testing"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

// RFC 8489 section 9.2: the better algorithm, the hidden name, and nobody in
// between who takes them away.
func TestSHA256(t *testing.T) {
	s, addr := start(t, twoUsers)
	cert, _ := testCertificate(t)
	secure := serveStreams(t, s, freeForBoth(t), &tls.Config{Certificates: []tls.Certificate{cert}})
	insecure := tc.TLS(&tls.Config{InsecureSkipVerify: true})
	for _, tt := range []struct {
		name, network, addr string
		auth                tc.Auth
	}{
		{"over TCP", "tcp", addr.String(), tc.Auth{User: "turn", Password: "turn", SHA256: true}},
		{"over TCP with the name hidden", "tcp", addr.String(), tc.Auth{User: "other", Password: "other", SHA256: true, UserHash: true}},
		{"over TLS with the name hidden", "tls", secure.String(), tc.Auth{User: "turn", Password: "turn", SHA256: true, UserHash: true}},
		{"with the name hidden and MD5", "tcp", addr.String(), tc.Auth{User: "turn", Password: "turn", UserHash: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := tc.Dial(within(t), tt.network, tt.addr, tt.auth, insecure)
			must(t, err)
			defer c.Close()
			a, err := c.Allocate(within(t))
			must(t, err)
			if got := a.Response.Has(tc.AttrMessageIntegritySHA256); got != tt.auth.SHA256 {
				t.Errorf("MESSAGE-INTEGRITY-SHA256 in the answer: got %v, want %v", got, tt.auth.SHA256)
			}
			if got := a.Response.Has(tc.AttrMessageIntegrity); got == tt.auth.SHA256 {
				t.Errorf("MESSAGE-INTEGRITY in the answer: got %v, want %v", got, !tt.auth.SHA256)
			}
			peer := tc.NewEcho(t, "127.0.0.1")
			must(t, c.ChannelBind(within(t), 0x4000, peer.Addr()))
			must(t, errOnly(c.Refresh(within(t), 600)))
		})
	}
	t.Run("a wrong password and an unknown hash are refused alike", func(t *testing.T) {
		for _, auth := range []tc.Auth{
			{User: "turn", Password: "wrong", SHA256: true, UserHash: true},
			{User: "nobody", Password: "turn", SHA256: true, UserHash: true},
		} {
			c, err := tc.Dial(within(t), "tcp", addr.String(), auth)
			must(t, err)
			defer c.Close()
			if _, err := c.Allocate(within(t)); tc.Code(err) != 401 {
				t.Errorf("%s: got %v, want 401", auth.User, err)
			}
		}
	})
	t.Run("over UDP it is offered to a request that pays for the answer", func(t *testing.T) {
		c := site{network: "udp", addr: addr}.dial(t)
		small := raw(t, c, tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(tc.RequestedTransport(tc.TransportUDP)))
		if small.Has(tc.AttrPasswordAlgorithms) {
			t.Error("the smallest Allocate was made an offer")
		}
		large := raw(t, c, tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).
			Add(tc.RequestedTransport(tc.TransportUDP), tc.String(tc.AttrSoftware, "a client with a name and a version")))
		if !large.Has(tc.AttrPasswordAlgorithms) {
			t.Error("a larger Allocate was made no offer")
		}
	})
	t.Run("an offer that somebody changed is refused", func(t *testing.T) {
		c, err := tc.Dial(within(t), "tcp", addr.String(), tc.Auth{User: "turn", Password: "turn", SHA256: true})
		must(t, err)
		defer c.Close()
		must(t, c.Learn(within(t)))
		realm, nonce := c.Challenge()
		algorithm := func(a uint16) tc.Attr { return tc.Bytes(tc.AttrPasswordAlgorithm, []byte{0, byte(a), 0, 0}) }
		offer := tc.Bytes(tc.AttrPasswordAlgorithms, []byte{0, 2, 0, 0, 0, 1, 0, 0})
		md5Only := tc.Bytes(tc.AttrPasswordAlgorithms, []byte{0, 1, 0, 0})
		bare := bytes.TrimPrefix(nonce, []byte("obMatJos2wAAA"))
		for _, tt := range []struct {
			name  string
			nonce []byte
			attrs []tc.Attr
			key   []byte
			want  int
		}{
			{"as offered", nonce, []tc.Attr{offer, algorithm(2)}, tc.KeySHA256("turn", realm, "turn"), 0},
			{"as offered, MD5 chosen", nonce, []tc.Attr{offer, algorithm(1)}, tc.KeyMD5("turn", realm, "turn"), 0},
			{"SHA-256 taken out of the offer", nonce, []tc.Attr{md5Only, algorithm(1)}, tc.KeyMD5("turn", realm, "turn"), 400},
			{"an algorithm without the offer", nonce, []tc.Attr{algorithm(2)}, tc.KeySHA256("turn", realm, "turn"), 400},
			{"the offer without an algorithm", nonce, []tc.Attr{offer}, tc.KeyMD5("turn", realm, "turn"), 400},
			{"an unknown algorithm", nonce, []tc.Attr{offer, algorithm(3)}, tc.KeyMD5("turn", realm, "turn"), 400},
			{"neither: a client of RFC 5389", nonce, nil, tc.KeyMD5("turn", realm, "turn"), 0},
			{"the features taken off the nonce", bare, nil, tc.KeyMD5("turn", realm, "turn"), 438},
		} {
			b := tc.NewBuilder(tc.MethodAllocate, tc.ClassRequest).Add(
				tc.RequestedTransport(tc.TransportUDP), tc.String(tc.AttrUsername, "turn"),
				tc.String(tc.AttrRealm, realm), tc.Bytes(tc.AttrNonce, tt.nonce)).Add(tt.attrs...)
			m := raw(t, c, b.IntegritySHA256(tt.key, 32))
			if got := m.ErrorCode(); got != tt.want {
				t.Errorf("%s: got %v, want %d", tt.name, m, tt.want)
			}
			if m.Class() == tc.ClassSuccess {
				end := tc.NewBuilder(tc.MethodRefresh, tc.ClassRequest).Add(tc.Lifetime(0), tc.String(tc.AttrUsername, "turn"),
					tc.String(tc.AttrRealm, realm), tc.Bytes(tc.AttrNonce, nonce)).Add(tt.attrs...)
				if m := raw(t, c, end.IntegritySHA256(tt.key, 32)); m.ErrorCode() != 0 {
					t.Fatalf("%s: release: %v", tt.name, m)
				}
			}
		}
	})
	t.Run("a cut MESSAGE-INTEGRITY-SHA256 is good from 16 bytes on", func(t *testing.T) {
		c, err := tc.Dial(within(t), "tcp", addr.String(), tc.Auth{User: "turn", Password: "turn"})
		must(t, err)
		defer c.Close()
		must(t, c.Learn(within(t)))
		for size := 4; size <= 32; size += 4 {
			b := tc.NewBuilder(tc.MethodRefresh, tc.ClassRequest)
			c.Credential(b, second(c.Challenge()))
			want := 437 // authenticated, and there is no allocation
			if size < 16 {
				want = 401
			}
			if got := raw(t, c, b.IntegritySHA256(c.Key(), size)).ErrorCode(); got != want {
				t.Errorf("%d bytes: got %d, want %d", size, got, want)
			}
		}
	})
}
