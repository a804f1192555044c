//go:build amd64 || arm64

package offload

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// agrees runs a frame through the program and the reference: both relay it,
// into the same frame, or it goes up as it came.
func (s *site) agrees(t *testing.T, frame []byte) (relayed bool) {
	t.Helper()
	want, index, ok := s.relay(frame)
	action, got := s.run(t, frame)
	wantAction := uint32(xdpPass)
	if ok {
		wantAction = action4(index, s.in)
	} else {
		want = frame
	}
	if action != wantAction || !bytes.Equal(got, want) {
		t.Fatalf("frame %x\naction %d, want %d\n got %x\nwant %x", frame, action, wantAction, got, want)
	}
	return ok
}

// seed makes a frame that a binding relays, or that comes close to one.
func (s *site) seed(b Binding, up, noSum bool, payload []byte) []byte {
	var d datagram
	if up {
		d = s.up(b, channelData(b.Channel, payload, (4-len(payload)%4)%4))
	} else {
		d = s.down(b, payload)
	}
	d.noSum = noSum && d.from.Addr().Is4()
	return s.frame(d)
}

func TestProgramAgreesWithTheReferenceOnDamagedFrames(t *testing.T) {
	s := newSite(t)
	for _, b := range four() {
		s.bind(t, b)
	}
	const frames = 4000
	relayed := 0
	for i := range frames {
		frame := s.seed(four()[i%4], i/4%2 == 0, rand.IntN(4) == 0, random(rand.IntN(64)))
		for range rand.IntN(3) {
			switch rand.IntN(4) {
			case 0:
				frame[rand.IntN(len(frame))] = byte(rand.Uint32())
			case 1:
				frame[14+rand.IntN(min(50, len(frame)-14))] ^= 1 << rand.IntN(8)
			case 2:
				frame = frame[:14+rand.IntN(len(frame)-13)]
			case 3:
				frame = append(frame, random(rand.IntN(8))...)
			}
			if len(frame) == 14 {
				break
			}
		}
		if s.agrees(t, frame) {
			relayed++
		}
	}
	if relayed < frames/10 || relayed > frames*9/10 {
		t.Errorf("%d of %d frames were relayed: one side is hardly tried", relayed, frames)
	}
}

// FuzzProgram makes headway with -fuzzminimizetime=0x only: which lines run
// depends on the threads that frames are handed between, and minimizing such
// a find never ends.
func FuzzProgram(f *testing.F) {
	s := newSite(f)
	for _, b := range four() {
		s.bind(f, b)
	}
	for i, b := range four() {
		f.Add(s.seed(b, true, false, []byte("payload")), uint8(i))
		f.Add(s.seed(b, false, true, []byte("payload")), uint8(i|8))
		f.Add([]byte("payload only"), uint8(i|0x80))
		f.Add([]byte("payload only"), uint8(i|0x80|8))
	}
	f.Fuzz(func(t *testing.T, data []byte, how uint8) {
		if len(data) > 3000 {
			return
		}
		// The highest bit takes the data as a payload, else it is a frame.
		b, up := four()[how&3], how&8 == 0
		if how&0x80 == 0 {
			s.up(b, nil)
			if !up {
				s.down(b, nil)
			}
			if len(data) < 14 {
				return
			}
			frame := bytes.Clone(data)
			copy(frame, s.mac[:])
			s.agrees(t, frame)
			return
		}
		d := s.up(b, data)
		if !up {
			d = s.down(b, data)
		}
		d.noSum = how&16 != 0 && d.from.Addr().Is4()
		d.ttl, d.tos = how, how
		if how&32 != 0 && len(data) >= 2 { // the channel is right
			d.payload = bytes.Clone(data)
			d.payload[0], d.payload[1] = byte(b.Channel>>8), byte(b.Channel)
		}
		s.agrees(t, s.frame(d))
	})
}
