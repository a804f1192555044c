package turnclient

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/turngate/turngate/internal/testnet"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func deadline(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// TestRFC5769Vectors holds the codec against the sample messages of RFC 5769
// sections 2.1, 2.2 and 2.4.
func TestRFC5769Vectors(t *testing.T) {
	unhex := func(s string) []byte {
		b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	short := []byte("VOkJxbRl1RmTxUk/WvJxBt")
	request, err := Parse(unhex("00010058 2112a442 b7e7a701bc34d686fa87dfae" +
		"80220010 5354554e207465737420636c69656e74 00240004 6e0001ff 80290008 932ff9b151263b36" +
		"00060009 6576746a3a68367659202020 00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2 80280004 e57a3bcf"))
	if err != nil {
		t.Fatal(err)
	}
	if err := request.CheckIntegrity(short); err != nil {
		t.Error(err)
	}
	if err := request.CheckFingerprint(); err != nil {
		t.Error(err)
	}
	if request.Method() != MethodBinding || request.Class() != ClassRequest {
		t.Errorf("request is %v", request)
	}
	response, err := Parse(unhex("0101003c 2112a442 b7e7a701bc34d686fa87dfae" +
		"8022000b 7465737420766563746f7220 00200008 0001a147e112a643" +
		"00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96"))
	if err != nil {
		t.Fatal(err)
	}
	if err := response.CheckIntegrity(short); err != nil {
		t.Error(err)
	}
	if got, _ := response.XORAddress(AttrXORMappedAddress); got.String() != "192.0.2.1:32853" {
		t.Errorf("mapped address %v", got)
	}
	if response.Class() != ClassSuccess {
		t.Errorf("response is %v", response)
	}

	long, err := Parse(unhex("00010060 2112a442 78ad3433c6ad72c029da412e" +
		"00060012 e3839ee38388e383aae38383e382af e382b9 0000" +
		"0015001c 662f2f3439396b39353464364f4c33346f4c394653547679 3634734100" +
		"14000b 6578616d706c652e6f726700 00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666"))
	if err != nil {
		t.Fatalf("long-term request: %v", err)
	}
	// The password of the sample, "TheMatrIX", is what SASLprep leaves of it.
	if err := long.CheckIntegrity(KeyMD5("マトリックス", "example.org", "TheMatrIX")); err != nil {
		t.Error(err)
	}
}

func TestBuilderSaysWhatItIsTold(t *testing.T) {
	key := []byte("key")
	peers := []string{"192.0.2.7:8000", "[2001:db8::7]:8000", "[::ffff:10.9.9.9]:1"}
	b := NewBuilder(MethodCreatePermission, ClassRequest)
	for _, p := range peers {
		b.Add(XORAddress(AttrXORPeerAddress, netip.MustParseAddrPort(p), b.ID()))
	}
	b.Integrity(key).Fingerprint()
	m, err := Parse(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if m.CheckIntegrity(key) != nil || m.CheckFingerprint() != nil || m.CheckIntegrity([]byte("kex")) == nil {
		t.Errorf("integrity %v, fingerprint %v, with another key %v", m.CheckIntegrity(key), m.CheckFingerprint(), m.CheckIntegrity([]byte("kex")))
	}
	if got := fmt.Sprint(m.XORAddresses(AttrXORPeerAddress)); got != fmt.Sprint(peers) {
		t.Errorf("peers %v, want %v", got, peers)
	}
	for _, method := range []uint16{MethodBinding, MethodAllocate, MethodData, MethodChannelBind, 0xabc, 0xfff} {
		for class := range uint16(4) {
			m, err := Parse(NewBuilder(method, class).Bytes())
			if err != nil || m.Method() != method || m.Class() != class {
				t.Errorf("method %03x class %d becomes %v, %v", method, class, m, err)
			}
		}
	}
	lying := NewBuilder(MethodSend, ClassIndication).Add(Attr{AttrXORPeerAddress, nil, 60000}).SetLength(0xffec).Bytes()
	if want := []byte{0, 0x16, 0xff, 0xec}; !bytes.Equal(lying[:4], want) || !bytes.Equal(lying[20:], []byte{0, 0x12, 0xea, 0x60}) {
		t.Errorf("lying message is %x", lying)
	}
	if _, err := Parse(lying); err == nil {
		t.Error("Parse believes a length that lies")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(NewBuilder(MethodAllocate, ClassRequest).Add(RequestedTransport(17)).Integrity(nil).Fingerprint().Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		_ = m.String()
		m.XORAddresses(AttrXORPeerAddress)
		m.CheckIntegrity([]byte("k"))
		m.CheckFingerprint()
		m.Unknown()
		again := NewBuilder(m.Method(), m.Class()).SetID(m.TransactionID).Add(m.Attrs...).Bytes()
		if n, err := Parse(again); err != nil || len(n.Attrs) != len(m.Attrs) {
			t.Fatalf("built again: %v", err)
		}
	})
}

// TestOverAPipe plays the server by hand: challenge, stale nonce, padding.
func TestOverAPipe(t *testing.T) {
	near, far := net.Pipe()
	c := New(near, true, Auth{User: "u", Password: "p"})
	defer c.Close()
	server := &Client{conn: far, stream: true} // for its readFrame
	key := KeyMD5("u", "r", "p")
	served := make(chan error, 1)
	go func() {
		served <- func() error {
			for i, want := range []string{"", "one", "two"} {
				frame, err := server.readFrame()
				if err != nil {
					return err
				}
				m, err := Parse(frame)
				if err != nil {
					return err
				}
				if nonce, _ := m.Get(AttrNonce); string(nonce) != want {
					return fmt.Errorf("request %d has nonce %q, want %q", i, nonce, want)
				}
				code, nonce := byte(1), "one"
				if i == 1 {
					code, nonce = 38, "two"
				}
				b := NewBuilder(m.Method(), ClassError).SetID(m.TransactionID)
				b.Add(Bytes(AttrErrorCode, []byte{0, 0, 4, code}), String(AttrRealm, "r"), String(AttrNonce, nonce))
				if i == 2 {
					if err := m.CheckIntegrity(key); err != nil {
						return err
					}
					b = NewBuilder(m.Method(), ClassSuccess).SetID(m.TransactionID).Add(Lifetime(600)).Integrity(key)
				}
				if _, err := far.Write(b.Bytes()); err != nil {
					return err
				}
			}
			// Padded ChannelData, then an indication.
			if _, err := far.Write(ChannelData(0x4001, []byte("hello"), -1, true)); err != nil {
				return err
			}
			b := NewBuilder(MethodData, ClassIndication)
			peer := netip.MustParseAddrPort("[2001:db8::1]:9")
			_, err := far.Write(b.Add(XORAddress(AttrXORPeerAddress, peer, b.ID()), String(AttrData, "there")).Bytes())
			return err
		}()
	}()
	ctx := deadline(t)
	if got, err := c.Refresh(ctx, 600); got != 600*time.Second || err != nil {
		t.Errorf("Refresh: %v, %v", got, err)
	}
	for _, want := range []string{"4001 invalid AddrPort hello", "0 [2001:db8::1]:9 there"} {
		d, err := c.Receive(ctx)
		if got := fmt.Sprintf("%x %v %s", d.Channel, d.Peer, d.Payload); got != want || err != nil {
			t.Errorf("Receive: %s, %v, want %s", got, err, want)
		}
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	far.Close()
	<-c.Done()
	if _, err := c.Receive(ctx); err == nil {
		t.Error("Receive after the end: no error")
	}
}

// TestAgainstCoturn shows that an independent server understands the client.
func TestAgainstCoturn(t *testing.T) {
	testnet.Need(t, "coturn")
	addr := coturn(t, testnet.Program("turnserver"))
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			ctx := deadline(t)
			c, err := Dial(ctx, network, addr, Auth{User: "u", Password: "p"}, Fingerprint())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got, err := c.Binding(ctx); got != c.LocalAddr() || err != nil {
				t.Errorf("Binding: %v, %v, want %v", got, err, c.LocalAddr())
			}
			a, err := c.Allocate(ctx, Lifetime(700))
			if err != nil {
				t.Fatal(err)
			}
			if a.Mapped != c.LocalAddr() || a.Lifetime != 700*time.Second {
				t.Errorf("allocation %+v", a)
			}
			echo, silent := NewEcho(t, "127.0.0.1"), NewPeer(t, "127.0.0.1")
			if err := c.CreatePermission(ctx, echo.Addr()); err != nil {
				t.Fatal(err)
			}
			if err := c.Send(ctx, echo.Addr(), []byte("abc")); err != nil {
				t.Fatal(err)
			}
			if d, err := c.Receive(ctx); string(d.Payload) != "abc" || d.Peer != echo.Addr() || err != nil {
				t.Errorf("echo of the Send indication: %+v, %v", d, err)
			}
			if err := c.ChannelBind(ctx, 0x4001, silent.Addr()); err != nil {
				t.Fatal(err)
			}
			if err := c.SendChannel(ctx, 0x4001, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			d, err := silent.Receive(ctx)
			if string(d.Payload) != "hello" || d.From != a.Relayed[0] || err != nil {
				t.Errorf("peer received %q from %v, %v, want it from %v", d.Payload, d.From, err, a.Relayed[0])
			}
			if err := silent.Send(a.Relayed[0], []byte("back")); err != nil {
				t.Fatal(err)
			}
			if d, err := c.Receive(ctx); string(d.Payload) != "back" || d.Channel != 0x4001 || err != nil {
				t.Errorf("ChannelData: %+v, %v", d, err)
			}
			if err := c.ChannelBind(ctx, 0x4001, echo.Addr()); Code(err) != 400 {
				t.Errorf("binding the channel to another peer: %v, want 400", err)
			}
			broken := NewBuilder(MethodBinding, ClassRequest).Add(Uint32(AttrFingerprint, 0xdeadbeef)).Bytes()
			if got, err := c.Before(ctx, broken); len(got) != 0 || err != nil {
				t.Errorf("wrong FINGERPRINT: %v, %v, want silence", got, err)
			}
			if got, err := c.Refresh(ctx, 0); got != 0 || err != nil {
				t.Errorf("Refresh 0: %v, %v", got, err)
			}
		})
	}
}

// coturn starts a server on loopback and returns its address.
func coturn(t *testing.T, program string) string {
	t.Helper()
	port := fmt.Sprint(testnet.FreePort(t))
	dir := t.TempDir()
	cmd := exec.Command(program, "-n", "-a", "-u", "u:p", "-r", "r", "--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1",
		"-p", port, "--no-tls", "--no-dtls", "--no-cli", "--cli-password=x", "--allow-loopback-peers", "-f",
		"--log-file="+dir+"/log", "--simple-log", "-b", dir+"/db", "--pidfile="+dir+"/pid")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	addr := net.JoinHostPort("127.0.0.1", port)
	ctx := deadline(t)
	c, err := Dial(ctx, "udp", addr, Auth{}, Retransmit(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Binding(ctx); err != nil {
		t.Fatalf("coturn does not answer: %v", err)
	}
	return addr
}
