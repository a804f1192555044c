package wire

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// frames are a Binding, an empty ChannelData, a padded and an unpadded one.
var streamFrames = []string{
	"0001 0000 2112a442 000102030405060708090a0b",
	"4000 0000",
	"4001 0005 0102030405 000000",
	"4002 0004 01020304",
	"0003 0008 2112a442 000102030405060708090a0b 0019 0004 11000000",
}

func stream(t testing.TB) (all []byte, each [][]byte) {
	for _, s := range streamFrames {
		each = append(each, unhex(t, s))
		all = append(all, each[len(each)-1]...)
	}
	return all, each
}

func TestFramerCutsFramesWhereverTheReadsEnd(t *testing.T) {
	all, each := stream(t)
	for name, r := range map[string]io.Reader{
		"all at once":    bytes.NewReader(all),
		"byte at a time": iotest.OneByteReader(bytes.NewReader(all)),
		"in halves":      iotest.HalfReader(bytes.NewReader(all)),
	} {
		t.Run(name, func(t *testing.T) {
			f := NewFramer(r)
			for i, want := range each {
				got, err := f.Next()
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("frame %d: got %x %v, want %x", i, got, err, want)
				}
			}
			if _, err := f.Next(); err != io.EOF {
				t.Errorf("behind the last frame: got %v, want EOF", err)
			}
		})
	}
}

// countingReader returns as much as it is asked for, of one message again and again.
type countingReader struct {
	message []byte
	at      int
	most    int // in one read
	reads   int
}

func (r *countingReader) Read(p []byte) (n int, err error) {
	r.reads++
	for n = 0; n < min(len(p), r.most); n++ {
		p[n] = r.message[r.at]
		r.at = (r.at + 1) % len(r.message)
	}
	return n, nil
}

func TestFramerReadsMoreOfWhoSendsMuch(t *testing.T) {
	message := append(unhex(t, "4001 03e8"), make([]byte, 1000)...)
	r := &countingReader{message: message, most: 1 << 20}
	f := NewFramer(r)
	next := func() {
		t.Helper()
		if got, err := f.Next(); err != nil || !bytes.Equal(got, message) {
			t.Fatalf("got %d bytes and %v, want a frame of %d", len(got), err, len(message))
		}
	}
	for range 1000 {
		next()
	}
	if most := 1000/16 + 10; r.reads > most {
		t.Errorf("1000 frames of a kilobyte: %d reads, want at most %d", r.reads, most)
	}
	if len(f.buf) > maxBuffer {
		t.Errorf("buffer: %d bytes, want at most %d", len(f.buf), maxBuffer)
	}
	for f.Partial() {
		r.most = len(message) - (f.end-f.start)%len(message)
		next()
	}
	r.most = len(message)
	for range 2 * calmReads {
		next()
	}
	if len(f.buf) != minBuffer {
		t.Errorf("buffer when it is calm again: %d bytes, want %d", len(f.buf), minBuffer)
	}
}

func TestBufferedIsTheNextFrameIfItIsThere(t *testing.T) {
	all, each := stream(t)
	f := NewFramer(bytes.NewReader(all))
	if got := f.Buffered(); got != nil {
		t.Errorf("before the first read: got %x, want nothing", got)
	}
	first, err := f.Next()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range each[1:] {
		if got := f.Buffered(); !bytes.Equal(got, want) {
			t.Errorf("frame %d: got %x, want %x", i+1, got, want)
		}
		if got, err := f.Next(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("frame %d: got %x %v, want %x", i+1, got, err, want)
		}
	}
	if got := f.Buffered(); got != nil || !bytes.Equal(first, each[0]) {
		t.Errorf("at the end: got %x, and the first frame became %x", got, first)
	}
	for name, bytes4 := range map[string]string{"half a frame": "4001 0005 01", "no frame": "8000 0000"} {
		f := NewFramer(bytes.NewReader(append(unhex(t, "4000 0000"), unhex(t, bytes4)...)))
		if _, err := f.Next(); err != nil {
			t.Fatal(err)
		}
		if got := f.Buffered(); got != nil {
			t.Errorf("%s: got %x, want nothing", name, got)
		}
	}
}

func TestFramerCutAtEveryByteEndsWithoutAFrame(t *testing.T) {
	for _, s := range streamFrames {
		whole := unhex(t, s)
		for n := range len(whole) {
			f := NewFramer(bytes.NewReader(whole[:n]))
			frame, err := f.Next()
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if err != want {
				t.Errorf("%x cut to %d bytes: got %x %v, want %v", whole, n, frame, err, want)
			}
		}
	}
}

// The lengths around the end of 16 bits made another framer compute a frame
// of 0 to 3 bytes and loop for ever.
func TestFramerTakesLengthsNearTheEndOf16Bits(t *testing.T) {
	for n := 0xFFF0; n <= 0xFFFF; n++ {
		for _, head := range [][]byte{{0x40, 0x00}, {0x00, 0x03}} {
			p := append(append(head[:2:2], byte(n>>8), byte(n)), make([]byte, 8)...)
			f := NewFramer(bytes.NewReader(p))
			_, err := f.Next()
			want := io.ErrUnexpectedEOF
			switch {
			case head[0] == 0 && n%4 != 0:
				want = ErrFrame
			case head[0] == 0x40 && n > maxFrame-ChannelHeader:
				want = ErrTooLarge
			}
			if !errors.Is(err, want) {
				t.Errorf("% x: got %v, want %v", p[:4], err, want)
			}
		}
	}
}

func TestFramerLimitsFrames(t *testing.T) {
	f := NewFramer(bytes.NewReader(unhex(t, "4000 0801")))
	f.Limit = 2048
	if _, err := f.Next(); err != ErrTooLarge {
		t.Errorf("got %v, want %v", err, ErrTooLarge)
	}
}

func TestFramerRefusesOtherProtocols(t *testing.T) {
	for _, s := range []string{"\x16\x03\x01\x02\x00\x01\x00", "\x80\x00\x00\x00", "\xff\xff\xff\xff", "SSH-2.0-", "GET / HTTP/1.1\r\n"} {
		f := NewFramer(bytes.NewReader([]byte(s)))
		f.Limit = 2048
		if _, err := f.Next(); err != ErrFrame && err != ErrTooLarge {
			t.Errorf("%q: got %v, want it refused at once", s, err)
		}
	}
}

func FuzzFramer(f *testing.F) {
	all, _ := stream(f)
	f.Add(all, 3)
	f.Add([]byte("\x40\x00\xff\xfc12345678"), 1)
	f.Fuzz(func(t *testing.T, p []byte, chunk int) {
		framer := NewFramer(&chunks{p: p, n: 1 + chunk&0xFFF})
		var got []byte
		for {
			frame, err := framer.Next()
			if err != nil {
				break
			}
			size, ok := FrameSize(frame)
			if !ok || size != len(frame) {
				t.Fatalf("frame % x of %d bytes, its header says %d %v", frame[:4], len(frame), size, ok)
			}
			got = append(got, frame...)
		}
		if !bytes.HasPrefix(p, got) {
			t.Error("the frames are not the bytes of the stream")
		}
	})
}

// chunks reads p in pieces of n bytes.
type chunks struct {
	p []byte
	n int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.p) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.n)], c.p)
	c.p = c.p[n:]
	return n, nil
}

func FuzzChannelData(f *testing.F) {
	f.Add([]byte{0x40, 0, 0, 4, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, p []byte) {
		channel, payload, ok := ChannelData(p)
		if !ok {
			return
		}
		head := []byte{byte(channel >> 8), byte(channel), byte(len(payload) >> 8), byte(len(payload))}
		if !bytes.HasPrefix(p, append(head, payload...)) {
			t.Errorf("% x: channel %x with % x", p, channel, payload)
		}
	})
}
