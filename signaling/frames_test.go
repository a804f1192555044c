package signaling

import (
	"encoding/binary"
	"testing"
)

// slowFrames finds the frame ends of a whole stream the plain way.
func slowFrames(p []byte) (ends []int, lost bool) {
	for at := 0; ; {
		if len(p)-at < 2 {
			return ends, false
		}
		n, head := uint64(p[at+1]&0x7f), 2
		if p[at+1]&0x80 != 0 {
			head += 4
		}
		switch n {
		case 126:
			if len(p)-at < 4 {
				return ends, false
			}
			n, head = uint64(binary.BigEndian.Uint16(p[at+2:])), head+2
		case 127:
			if len(p)-at < 10 {
				return ends, false
			}
			n, head = binary.BigEndian.Uint64(p[at+2:]), head+8
			if n>>63 != 0 {
				return ends, true
			}
		}
		if uint64(len(p)-at) < uint64(head)+n {
			return ends, false
		}
		at += head + int(n)
		ends = append(ends, at)
	}
}

// FuzzFrames compares the tracker's frame ends with the reference for any cut of the stream.
func FuzzFrames(f *testing.F) {
	f.Add([]byte(serverFrame(0x81, "hello")+serverFrame(0x88, closePayload(1012, ""))), 3)
	f.Add([]byte(maskedFrame(0x02, "hello")+maskedFrame(0x80, "")), 1)
	f.Add([]byte("\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff"), 2)
	f.Add([]byte("\x82\x7e\x00\x05hello\x82"), 7)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		if cut < 1 {
			cut = 1
		}
		want, lost := slowFrames(p)
		var fr frames
		var got []int
		at := 0
		for at < len(p) {
			end := min(at+cut, len(p))
			n, violation := fr.scan(p[at:end], true)
			if violation != 0 || n <= 0 || n > end-at {
				t.Fatalf("scan of %d bytes: %d, violation %d", end-at, n, violation)
			}
			at += n
			if fr.boundary() {
				got = append(got, at)
			} else if at != end {
				t.Fatalf("stopped at %d, no boundary", at)
			}
		}
		if len(got) != len(want) || fr.lost && !lost {
			t.Fatalf("frame ends %v (lost %v), want %v (lost %v)", got, fr.lost, want, lost)
		}
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("frame ends %v, want %v", got, want)
			}
		}
		// The strict tracker finds the same violation at the same place for every cut.
		whole := frames{strict: true, maxMessage: 1000}
		wantN, wantCode := whole.scan(p, false)
		pieces := frames{strict: true, maxMessage: 1000}
		total := 0
		for at := 0; at < len(p); at += cut {
			n, code := pieces.scan(p[at:min(at+cut, len(p))], false)
			total += n
			if code != 0 {
				if code != wantCode || total < wantN || total-wantN > len(pieces.header) {
					t.Fatalf("cut %d: violation %d after %d bytes, want %d after %d", cut, code, total, wantCode, wantN)
				}
				return
			}
		}
		if wantCode != 0 {
			t.Fatalf("cut %d: no violation, want %d", cut, wantCode)
		}
		if pieces.code != whole.code {
			t.Fatalf("cut %d: close code %d, want %d", cut, pieces.code, whole.code)
		}
	})
}

func TestReservedBits(t *testing.T) {
	const rsv1, rsv2, rsv3 = 0x40, 0x20, 0x10
	none, deflate, other := frames{}, frames{extensions: true, deflate: true}, frames{extensions: true}
	begun := maskedFrame(0x01, "a")
	for _, tt := range []struct {
		name    string
		follows frames
		bytes   string
		want    uint16
	}{
		{"none without an extension", none, maskedFrame(0x81, "a"), 0},
		{"RSV1 without an extension", none, maskedFrame(0x81|rsv1, "a"), 1002},
		{"none with deflate", deflate, maskedFrame(0x81, "a"), 0},
		{"RSV1 of a text", deflate, maskedFrame(0x81|rsv1, "a"), 0},
		{"RSV1 of a binary message in fragments", deflate, maskedFrame(0x02|rsv1, "a") + maskedFrame(0x89, "p") + maskedFrame(0x80, "a"), 0},
		{"RSV1 of a later fragment", deflate, begun + maskedFrame(0x80|rsv1, "a"), 1002},
		{"RSV1 of a ping", deflate, maskedFrame(0x89|rsv1, "a"), 1002},
		{"RSV1 of a Close", deflate, maskedFrame(0x88|rsv1, ""), 1002},
		{"RSV2 with deflate", deflate, maskedFrame(0x81|rsv2, "a"), 1002},
		{"RSV1 and RSV3 with deflate", deflate, maskedFrame(0x81|rsv1|rsv3, "a"), 1002},
		{"RSV3 with an extension of any meaning", other, maskedFrame(0x81|rsv3, "a"), 0},
	} {
		f := tt.follows
		f.strict, f.maxMessage = true, -1
		if _, got := f.scan([]byte(tt.bytes), false); got != tt.want {
			t.Errorf("%s: close code %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestFramesReadCloseCodes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		stream string
		want   uint16
	}{
		{"a server's", serverFrame(0x88, closePayload(4013, "bye")), 4013},
		{"a client's, masked", maskedFrame(0x81, "x") + maskedFrame(0x88, closePayload(4011, "bye")), 4011},
		{"without a code", serverFrame(0x88, ""), 1005},
		{"with half a code so far", serverFrame(0x88, closePayload(4013, ""))[:3], 0},
		{"none", serverFrame(0x81, "x"), 0},
	} {
		var fr frames
		for i := range len(tt.stream) {
			fr.scan([]byte(tt.stream[i:i+1]), false)
		}
		if fr.code != tt.want {
			t.Errorf("%s: code %d, want %d", tt.name, fr.code, tt.want)
		}
	}
}
