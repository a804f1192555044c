package turnprobe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet/turnclient"

	"github.com/turngate/turngate/internal/testnet"
)

// What is built is what an independent client reads, and the other way round.
func TestMessagesAreThoseOfTheRFC(t *testing.T) {
	peer := netip.MustParseAddrPort("192.0.2.7:4711")
	peer6 := netip.MustParseAddrPort("[2001:db8::7]:4711")
	m := newMessage(methodCreatePermission, classRequest)
	m.add(attr{attrXORPeerAddress, m.xorAddress(peer)}, attr{attrXORPeerAddress, m.xorAddress(peer6)})
	key := longTermKey("user", "realm", "password")
	m.sign(key)
	read, err := turnclient.Parse(m.bytes())
	if err != nil {
		t.Fatal(err)
	}
	if read.Method() != turnclient.MethodCreatePermission || read.Class() != turnclient.ClassRequest {
		t.Errorf("got %v", read)
	}
	if got := read.XORAddresses(turnclient.AttrXORPeerAddress); len(got) != 2 || got[0] != peer || got[1] != peer6 {
		t.Errorf("addresses: %v", got)
	}
	if err := read.CheckIntegrity(turnclient.KeyMD5("user", "realm", "password")); err != nil {
		t.Error(err)
	}
	back, err := parse(m.bytes())
	if err != nil || !back.signedWith(key) || back.signedWith(longTermKey("user", "realm", "wrong")) {
		t.Errorf("own message: %v, signed %v", err, back.signedWith(key))
	}
	if a, ok := back.address(attrXORPeerAddress); !ok || a != peer {
		t.Errorf("address: %v %v", a, ok)
	}
}

func TestWhatAnswersWrongly(t *testing.T) {
	closed := fmt.Sprintf("127.0.0.1:%d", testnet.FreePort(t))
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	go func() {
		for {
			c, err := web.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "\xffHTTP/1.1 400 Bad Request\r\n\r\n")
			c.Close()
		}
	}()
	for _, tt := range []struct {
		name, network, addr string
		is                  func(error) bool
	}{
		{"a closed UDP port", "udp", closed, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{"a UDP port that drops", "udp", silent.LocalAddr().String(), func(err error) bool { return errors.Is(err, ErrSilence) }},
		{"a server of another protocol", "tcp", web.Addr().String(), func(err error) bool { return err != nil && !errors.Is(err, ErrSilence) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			c, err := Dial(ctx, tt.network, tt.addr, nil)
			if err == nil {
				defer c.Close()
				c.Login("user", "password")
				_, err = c.Allocate(ctx)
			}
			if !tt.is(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	m := newMessage(methodAllocate, classError)
	m.add(attr{attrErrorCode, []byte{0, 0, 4, 1, 'n', 'o'}}, attr{attrXORMappedAddress, m.xorAddress(netip.MustParseAddrPort("192.0.2.1:1"))})
	m.sign([]byte("key"))
	f.Add(m.bytes())
	f.Add(channelData(0x4000, []byte("abc"), true))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, payload, ok := parseChannelData(b); ok && len(payload) > len(b)-4 {
			t.Errorf("%d bytes out of %d", len(payload), len(b))
		}
		m, err := parse(b)
		if err != nil {
			return
		}
		m.signedWith([]byte("key"))
		_ = m.refusal()
		m.address(attrXORMappedAddress)
	})
}
