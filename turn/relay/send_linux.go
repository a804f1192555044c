package relay

import (
	"encoding/binary"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	sendAtOnce = 64  // messages
	sendFrames = 256 // of them, which is 4 runs that the kernel cuts
)

// outbox is one call of sendmmsg. It is used again and again, so that sending
// allocates nothing.
type outbox struct {
	to      [sendAtOnce]address
	headers [sendAtOnce]mmsghdr
	vectors [2 * sendFrames]unix.Iovec
	heads   [sendFrames][headerSize]byte
	control [sendAtOnce][sourceSize + 24]byte
	frames  [sendAtOnce][]Frame // of each message
	size    [sendAtOnce]int     // of its datagrams, if the kernel is to cut it, or 0

	n, next      int // messages, and how many of them are sent
	used, headed int // of vectors and heads
}

var outboxes = sync.Pool{New: func() any { return new(outbox) }}

// patience is how long a send waits for room in the send buffer.
const patience = 100 * time.Millisecond

// send sends frames to one address and returns how many the kernel did not
// take. It waits a while when the send buffer is full. Runs of one size go as
// one large datagram, which the kernel or the interface cuts.
func (s *socket) send(to *address, frames []Frame) (failed int) {
	if !s.enter() {
		return len(frames)
	}
	defer s.exit()
	if len(frames) == 1 && frames[0].Channel == 0 && to.with == 0 && len(frames[0].Payload) > 0 {
		switch s.sendOne(to, frames[0].Payload) {
		case 0:
			return 0
		case unix.EAGAIN: // below
		default:
			return 1
		}
	}
	o := outboxes.Get().(*outbox)
	defer outboxes.Put(o)
	for len(frames) > 0 {
		o.clear()
		frames = frames[o.add(to, frames, int(s.largest.Load())):]
		failed += s.transmit(o)
	}
	return failed
}

// sendOne is for the most frequent case, and costs the kernel less.
func (s *socket) sendOne(to *address, p []byte) unix.Errno {
	for {
		_, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)), unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&to.name)), uintptr(to.length))
		if err != unix.EINTR {
			return err
		}
	}
}

// sendAll sends what waits, to the clients of each socket at once.
func (b *batch) sendAll() {
	o := b.outbox
	for i := range b.waiting {
		if b.waiting[i].to == nil {
			continue
		}
		l, s := b.waiting[i].to.l, b.waiting[i].to.s
		if !s.enter() {
			continue
		}
		o.clear()
		for k := i; k < len(b.waiting); k++ {
			w := &b.waiting[k]
			if w.to == nil || w.to.s != s {
				continue
			}
			for frames := b.frames[w.from:w.end]; len(frames) > 0; {
				n := o.add(&w.to.to, frames, int(s.largest.Load()))
				if frames = frames[n:]; n == 0 {
					l.lost(s.transmit(o))
					o.clear()
				}
			}
			w.to = nil
		}
		l.lost(s.transmit(o))
		s.exit()
	}
}

// transmit sends an outbox and returns how many frames the kernel did not take.
// The caller has entered the socket.
func (s *socket) transmit(o *outbox) (failed int) {
	for waited := false; o.next < o.n; {
		err := o.flush(s.fd)
		if err == unix.EAGAIN && !waited {
			waited = true
			poll := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(poll, int(patience/time.Millisecond))
			continue
		}
		if o.next == o.n {
			break
		}
		m := o.next
		o.next++
		if s.uncut(o.size[m], err) {
			failed += s.send(&o.to[m], o.frames[m])
		} else {
			failed += len(o.frames[m])
		}
	}
	return failed
}

// uncut notes that the kernel does not cut to datagrams of the size, if that
// is what it said. Then the frames can be sent otherwise.
func (s *socket) uncut(size int, err unix.Errno) bool {
	if size == 0 {
		return false
	}
	switch err {
	case unix.EINVAL, unix.EMSGSIZE, unix.EIO, unix.ENOPROTOOPT, unix.EOPNOTSUPP:
	default:
		return false
	}
	largest := int32(size - 1) // more than the path takes whole
	if size <= certain {
		largest = 0
	}
	s.largest.Store(min(largest, s.largest.Load()))
	return true
}

func (o *outbox) clear() { o.n, o.next, o.used, o.headed = 0, 0, 0, 0 }

// add makes messages of as many of the frames as there is room for and returns
// how many those are.
func (o *outbox) add(to *address, frames []Frame, largest int) (added int) {
	for len(frames) > 0 && o.n < sendAtOnce && o.headed < sendFrames {
		run, size, total := 0, frames[0].size(), 0
		first := o.used
		for run < len(frames) && o.headed < sendFrames {
			f := &frames[run]
			n := f.size()
			if run > 0 && (n > size || n == 0 || total+n > maxSegmented || run == maxSegments) {
				break // an empty datagram is one only by itself
			}
			o.used += o.vector(o.used, o.headed, f)
			o.headed++
			run++
			total += n
			if n < size || size > largest || size == 0 {
				break // the last of a run may be shorter
			}
		}
		o.to[o.n] = *to
		h := &o.headers[o.n].Msghdr
		h.Name = (*byte)(unsafe.Pointer(&o.to[o.n].name))
		h.Namelen = to.length
		h.Iov = &o.vectors[first]
		h.SetIovlen(o.used - first)
		used := copy(o.control[o.n][:], to.source[:to.with])
		o.size[o.n] = 0
		if run > 1 {
			used += putSegment(o.control[o.n][used:], size)
			o.size[o.n] = size
		}
		h.Control = nil
		if used > 0 {
			h.Control = &o.control[o.n][0]
		}
		h.SetControllen(used)
		o.frames[o.n] = frames[:run]
		o.n++
		frames = frames[run:]
		added += run
	}
	return added
}

// vector points to a frame and returns how many vectors that took.
func (o *outbox) vector(at, head int, f *Frame) (n int) {
	if f.Channel != 0 {
		h := &o.heads[head]
		binary.BigEndian.PutUint16(h[:], f.Channel)
		binary.BigEndian.PutUint16(h[2:], uint16(len(f.Payload)))
		o.vectors[at].Base = &h[0]
		o.vectors[at].SetLen(headerSize)
		n = 1
	}
	if len(f.Payload) > 0 {
		o.vectors[at+n].Base = &f.Payload[0]
		o.vectors[at+n].SetLen(len(f.Payload))
		n++
	}
	return n
}

// putSegment writes the control message that has a send cut into datagrams of
// the size, and returns its own.
func putSegment(dst []byte, size int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&dst[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(dst[cmsgHeader:], uint16(size))
	return unix.CmsgSpace(2)
}

// flush hands the messages to the kernel. It returns why the next one was not
// taken, if there is one left.
func (o *outbox) flush(fd int) unix.Errno {
	for o.next < o.n {
		n, _, err := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&o.headers[o.next])), uintptr(o.n-o.next), unix.MSG_DONTWAIT, 0, 0)
		switch err {
		case 0:
			o.next += int(n)
		case unix.EINTR:
		default:
			return err
		}
	}
	return 0
}
