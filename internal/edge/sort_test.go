package edge

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		in   string
		want protocol
	}{
		{"", undecided},
		{"\x16", speaksTLS},
		{"\x00\x01\x00\x00\x21\x12\xA4\x42", speaksSTUN},
		{"\x00\x01\x00\x00\x21\x12\xA4", undecided},
		{"\x3F\xFF\xFF\xFC\x21\x12\xA4\x42", speaksSTUN},
		{"\x00\x01\x00\x00\x22", unknown}, // no cookie: decided at its first wrong byte
		{"\x40\x00\x00\x04", unknown},     // ChannelData
		{"\x80\x00", unknown},
		{"GET", undecided},
		{"GET ", speaksHTTP},
		{"GET\t", unknown},
		{"OPTIONS * HTTP/1.1", speaksHTTP},
		{"G\x00", unknown},
		{"P", undecided},
		{"PR", undecided},
		{"PRO", undecided},
		{"PUT ", speaksHTTP},
		{"PRI ", speaksHTTP},
		{"PROPFIND", speaksHTTP},
		{"PROX", undecided},
		{"PROXY", undecided},
		{"PROXY ", speaksPROXY},
		{"PROXX ", unknown},
		{"\r\n\r\n\x00\r\nQ", speaksPROXY},
		{"\r\n\r\n\x00\r\n", undecided},
		{"\r\nGET", unknown},
		{"get / ", unknown},
	} {
		if got := classify([]byte(c.in)); got != c.want {
			t.Errorf("classify(%q) = %d, want %d", c.in, got, c.want)
		}
	}
	for _, c := range []struct {
		in   string
		want protocol
	}{
		{"", undecided},
		{"\x00\x01\x00\x00\x21\x12\xA4\x42", speaksSTUN},
		{"\x00\x01\x00\x00\x21\x12", undecided},
		{"\x16\x03\x01\x00\x05", unknown},
		{"G", speaksHTTP},
		{"\xff", speaksHTTP},
		{"\r\n\r\nG", unknown},
	} {
		if got := classifyInsideTLS([]byte(c.in)); got != c.want {
			t.Errorf("classifyInsideTLS(%q) = %d, want %d", c.in, got, c.want)
		}
	}
}

// However the bytes arrive, the decision is the same, comes within lookSize
// bytes, and loses none of them.
func FuzzLook(f *testing.F) {
	for _, s := range []string{
		"", "\x16\x03\x01", "GET / HTTP/1.1\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
		"\r\n\r\n\x00\r\nQUIT\n", string(binding), "\x40\x00\xff\xfc", "PRI * HTTP/2.0",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for name, decide := range map[string]func([]byte) protocol{
			"outside": classify, "inside": classifyInsideTLS,
		} {
			if len(in) >= lookSize && decide(in[:lookSize]) == undecided {
				t.Fatalf("%s: %q is undecided after %d bytes", name, in[:lookSize], lookSize)
			}
			slow := iotest.OneByteReader(bytes.NewReader(in))
			drip, head, dripErr := look(slow, nil, decide)
			rest, _ := io.ReadAll(slow)
			if !bytes.Equal(append(head, rest...), in) {
				t.Fatalf("%s: %q came back as %q and %q", name, in, head, rest)
			}
			whole, _, wholeErr := look(bytes.NewReader(in), nil, decide)
			if drip != whole || !errors.Is(dripErr, wholeErr) {
				t.Errorf("%s: %q byte by byte is %d (%v), at once %d (%v)", name, in, drip, dripErr, whole, wholeErr)
			}
			if dripErr == nil && drip == undecided {
				t.Errorf("%s: %q: neither decision nor error", name, in)
			}
		}
	})
}
