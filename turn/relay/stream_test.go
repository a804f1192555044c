package relay

import (
	"bytes"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// media is one frame of n payload bytes, frame the same on the wire.
func media(n int, fill byte) Frame { return Frame{0x4000, bytes.Repeat([]byte{fill}, n)} }

func frame(n int, fill byte) []byte {
	return append([]byte{0x40, 0x00, byte(n >> 8), byte(n)}, bytes.Repeat([]byte{fill}, n)...)
}

func TestStreamPadsAndKeepsOrder(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	s := NewStream(server, StreamLimits{})
	defer func() { server.Close(); s.Close() }()
	s.Send([]Frame{media(5, 'a'), media(4, 'b')})
	want := append(append(frame(5, 'a'), 0, 0, 0), frame(4, 'b')...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got % x %v, want % x", got, err, want)
	}
}

func TestStreamOfASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		s := NewStream(server, StreamLimits{Age: 300 * time.Millisecond, Bytes: 64 << 10})
		defer func() { client.Close(); s.Close() }()
		for range 1000 {
			s.Send([]Frame{media(1200, 'm')})
		}
		synctest.Wait()
		s.mu.Lock()
		if s.bytes > 64<<10 {
			t.Errorf("queued: got %d bytes, want at most %d", s.bytes, 64<<10)
		}
		s.mu.Unlock()
		time.Sleep(time.Second) // everything in the queue is too old now
		s.Send([]Frame{media(8, 'n')})
		s.Answer([]byte("answer 1"))
		synctest.Wait()

		// The write under way is delivered whole, then the answer, then what
		// is fresh.
		var got []byte
		buf := make([]byte, 64<<10)
		for !bytes.HasSuffix(got, frame(8, 'n')) {
			n, err := client.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
		if len(got) > maxWrite+100 {
			t.Errorf("delivered %d bytes, want no more than one write of old media", len(got))
		}
		if tail := append([]byte("answer 1"), frame(8, 'n')...); !bytes.HasSuffix(got, tail) {
			t.Errorf("the end of what was delivered: got %q, want %q", got[len(got)-len(tail):], tail)
		}
		if s.Drops() < 900 {
			t.Errorf("drops: got %d, want most of 1000", s.Drops())
		}
	})
}

func TestStreamCutsAClientThatTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		s := NewStream(server, StreamLimits{Stall: 15 * time.Second})
		defer s.Close()
		s.Send([]Frame{media(100, 'x')})
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if _, err := server.Write([]byte("x")); err == nil {
			t.Error("the connection is still open after 16 s without a byte taken")
		}
	})
}

func TestStreamBoundsAnswersOfAClientThatOnlyAsks(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	s := NewStream(server, StreamLimits{Bytes: 10 << 10})
	defer s.Close()
	for range 1000 {
		s.Answer(make([]byte, 100))
	}
	if _, err := server.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}
