package wire

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 5769 section 2.4: request with long-term authentication.
const rfc5769LongTerm = `
	00010060 2112a442 78ad3433 c6ad72c0 29da412e
	00060012 e3839ee3 8388e383 aae38383 e382af e382b9 0000
	0015001c 662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341
	0014000b 6578616d 706c652e 6f726700
	00080014 f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666`

// RFC 5769 section 2.1: request with short-term authentication, and 2.2 and
// 2.3: its IPv4 and IPv6 responses.
const (
	rfc5769Request = `
	00010058 2112a442 b7e7a701 bc34d686 fa87dfae
	80220010 5354554e 20746573 7420636c 69656e74
	00240004 6e0001ff
	80290008 932ff9b1 51263b36
	00060009 6576746a 3a683676 59202020
	00080014 9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2
	80280004 e57a3bcf`
	rfc5769IPv4 = `
	0101003c 2112a442 b7e7a701 bc34d686 fa87dfae
	8022000b 74657374 20766563 746f7220
	00200008 0001a147 e112a643
	00080014 2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7
	80280004 c07d4c96`
	rfc5769IPv6 = `
	01010048 2112a442 b7e7a701 bc34d686 fa87dfae
	8022000b 74657374 20766563 746f7220
	00200014 0002a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9
	00080014 a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41
	80280004 c8fb0b4c`
)

func TestRFC5769Vectors(t *testing.T) {
	shortTerm := Key("VOkJxbRl1RmTxUk/WvJxBt")
	for _, tt := range []struct {
		name, message string
		key           Key
		mapped        string
	}{
		{"2.1 request", rfc5769Request, shortTerm, ""},
		{"2.2 IPv4 response", rfc5769IPv4, shortTerm, "192.0.2.1:32853"},
		{"2.3 IPv6 response", rfc5769IPv6, shortTerm, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"},
		{"2.4 long-term request", rfc5769LongTerm, LongTermKey("マトリックス", "example.org", "TheMatrIX"), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m Message
			if err := m.Parse(unhex(t, tt.message)); err != nil {
				t.Fatal(err)
			}
			if !m.IntegrityOK(tt.key) {
				t.Error("IntegrityOK: got false, want true")
			}
			if m.IntegrityOK(append(Key{1}, tt.key...)) {
				t.Error("IntegrityOK with another key: got true, want false")
			}
			if !m.FingerprintOK() {
				t.Error("FingerprintOK: got false, want true")
			}
			if tt.mapped != "" {
				value, _ := m.Get(XORMappedAddress)
				if got, ok := m.Address(value); !ok || got.String() != tt.mapped {
					t.Errorf("XOR-MAPPED-ADDRESS: got %v %v, want %v", got, ok, tt.mapped)
				}
			}
		})
	}
}

// header is a STUN header with the length of the attributes that follow it.
func message(attrs string) string {
	n := len(strings.Join(strings.Fields(attrs), "")) / 2
	return "0003" + hex.EncodeToString([]byte{byte(n >> 8), byte(n)}) + "2112a442 000000000000000000000000" + attrs
}

func TestParseRefusesWhatIsNotWhole(t *testing.T) {
	whole := message("0006 0004 74757270")
	for _, tt := range []struct {
		name, message string
		want          error
	}{
		{"whole", whole, nil},
		{"nothing", "", ErrNotSTUN},
		{"a header cut short", "000300002112a442", ErrNotSTUN},
		{"wrong cookie", strings.Replace(whole, "2112a442", "2112a443", 1), ErrNotSTUN},
		{"first bits are not zero", "4" + whole[1:], ErrNotSTUN},
		{"a byte behind the message", whole + "00", ErrLength},
		{"length beyond the datagram", strings.Replace(whole, "00030008", "0003000c", 1), ErrLength},
		{"length not a multiple of four", "00030003 2112a442 000000000000000000000000 000000", ErrLength},
		{"attribute beyond the message", message("0006 0005 74757270"), ErrAttribute},
		{"attribute of 60000 bytes", message("0006 ea60 74757270"), ErrAttribute},
		{"half an attribute header", message("0006 0004 74757270 0006"), ErrLength},
		{"FINGERPRINT before another attribute", message("8028 0004 00000000 0006 0004 74757270"), ErrAttribute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m Message
			if got := m.Parse(unhex(t, tt.message)); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestAttributesBehindIntegrityAreIgnored(t *testing.T) {
	key := Key("k")
	b := NewBuilder(Refresh, Request, TransactionID{1})
	b.Add(Username, []byte("turn"))
	b.Integrity(key)
	b.Add(Lifetime, []byte{0, 0, 0, 0})
	var m Message
	if err := m.Parse(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	if m.Has(Lifetime) {
		t.Error("LIFETIME behind MESSAGE-INTEGRITY: got it, want it ignored")
	}
	if !m.IntegrityOK(key) {
		t.Error("IntegrityOK: got false, want true")
	}
}

func TestOfTwoAttributesTheFirstCounts(t *testing.T) {
	b := NewBuilder(Send, Indication, TransactionID{})
	first, second := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:2")
	b.AddAddress(XORPeerAddress, first)
	b.AddAddress(XORPeerAddress, second)
	var m Message
	if err := m.Parse(b.Bytes()); err != nil {
		t.Fatal(err)
	}
	value, _ := m.Get(XORPeerAddress)
	if got, ok := m.Address(value); !ok || got != first {
		t.Errorf("got %v %v, want %v", got, ok, first)
	}
	var all []netip.AddrPort
	for value := range m.All(XORPeerAddress) {
		a, _ := m.Address(value)
		all = append(all, a)
	}
	if len(all) != 2 || all[1] != second {
		t.Errorf("All: got %v, want both", all)
	}
}

func TestAddressRefusesEveryOtherLength(t *testing.T) {
	var m Message
	if err := m.Parse(unhex(t, message(""))); err != nil {
		t.Fatal(err)
	}
	for n := range 64 {
		for family := range byte(4) {
			value := make([]byte, n)
			if n > 1 {
				value[1] = family
			}
			want := n == 8 && family == 1 || n == 20 && family == 2
			if _, ok := m.Address(value); ok != want {
				t.Errorf("%d bytes of family %d: got %v, want %v", n, family, ok, want)
			}
		}
	}
}

func TestDataIndicationReadsBack(t *testing.T) {
	for _, peer := range []string{"192.0.2.7:4711", "[2001:db8::7]:4711"} {
		for _, payload := range []string{"", "a", "abcd", "abcde"} {
			id := NewTransactionID()
			p := AppendDataIndication(nil, id, netip.MustParseAddrPort(peer), []byte(payload))
			var m Message
			if err := m.Parse(p); err != nil {
				t.Fatalf("%s %q: %v", peer, payload, err)
			}
			data, _ := m.Get(DataAttr)
			value, _ := m.Get(XORPeerAddress)
			from, _ := m.Address(value)
			if m.Method != Data || m.Class != Indication || m.ID != id || string(data) != payload || from.String() != peer {
				t.Errorf("got %v %v from %v with %q, want a Data indication from %v with %q", m.Method, m.Class, from, data, peer, payload)
			}
		}
	}
}

func TestDataIndicationIsNoLongerThanItsLengthCanSay(t *testing.T) {
	for peer, most := range map[string]int{"192.0.2.7:4711": 65516, "[2001:db8::7]:4711": 65504} {
		from, before := netip.MustParseAddrPort(peer), []byte("before")
		p := AppendDataIndication(before, TransactionID{}, from, make([]byte, most))
		var m Message
		if err := m.Parse(p[len(before):]); err != nil {
			t.Errorf("%d bytes from %s: %v, want a message", most, peer, err)
		}
		if p := AppendDataIndication(before, TransactionID{}, from, make([]byte, most+1)); string(p) != "before" {
			t.Errorf("%d bytes from %s: %d were appended, want none", most+1, peer, len(p)-len(before))
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	p := unhex(t, rfc5769LongTerm)
	var m Message
	_ = m.Parse(p)
	if n := testing.AllocsPerRun(1000, func() { _ = m.Parse(p) }); n != 0 {
		t.Errorf("Parse: %v allocations per message, want 0", n)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{rfc5769LongTerm, rfc5769Request, rfc5769IPv4, rfc5769IPv6,
		// A zero-length XOR-PEER-ADDRESS behind DATA ends a process with pion's decoder.
		"0016 000c 2112a442 000000000000000000000000 0013 0004 41414141 0012 0000"} {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		before := bytes.Clone(p)
		var m Message
		if m.Parse(p) != nil {
			return
		}
		for _, a := range m.attrs {
			value, _ := m.Get(a.typ)
			m.Address(value)
		}
		m.FingerprintOK()
		m.IntegrityOK(Key("key"))
		m.Unknown(func(Attr) bool { return false })
		if !bytes.Equal(before, p) {
			t.Error("Parse changed its input")
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p := unhex(b, rfc5769LongTerm)
	var m Message
	for b.Loop() {
		_ = m.Parse(p)
	}
}
