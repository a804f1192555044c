//go:build amd64 || arm64

package offload

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// xdp is the engine of Linux 5.10 and later.
type xdp struct {
	o       Options
	objects programObjects
	counts  *ebpf.Memory // of objects.Counters, to read without asking the kernel

	mu       sync.Mutex // guards the fields below
	bindings map[Key]*entry
	owners   map[wireKey]*entry // of what is in objects.Ways
	free     []uint32           // indices of counters; the longest unused first
	ports    map[int]*port      // by index of the interface
	skipped  map[string]string  // interfaces that cannot be used, and why
	unsaid   []string           // of those, what is not in the log yet
	routes   error              // of allowRoutes, the last that was logged
	closed   bool
}

// entry is an installed binding.
type entry struct {
	Binding
	index uint32
	base  Counters // the counters are not set back when an index is used again
	keys  [2]wireKey
}

// wireKey, wireWay and wirePort are struct key, way and port of bpf/turn.c.
type (
	wireKey struct {
		Src, Dst              [16]byte
		Sport, Dport, Channel [2]byte
		Family                uint16
	}
	wireWay struct {
		Until                 uint64
		Src, Dst              [16]byte
		Sport, Dport, Channel [2]byte
		Family                uint16
		Binding               uint32
		Sum                   uint32
	}
	wirePort struct {
		MAC         [6]byte
		Verify, Out uint8
	}
)

// countsSize is sizeof(struct counts), countDown the offset of its down.
const (
	countsSize = 128
	countDown  = 64
)

const defaultBindings = 1 << 15

// Open loads the program and attaches it. The error says what is missing and
// what would allow it. When the process ends, however it does, nothing is
// left attached.
func Open(o Options) (Engine, error) {
	if o.Bindings <= 0 {
		o.Bindings = defaultBindings
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	x := &xdp{
		o:        o,
		bindings: make(map[Key]*entry), owners: make(map[wireKey]*entry),
		ports: make(map[int]*port), skipped: make(map[string]string),
	}
	if err := prerequisites(); err != nil {
		return nil, err
	}
	if err := x.anyWanted(); err != nil {
		return nil, err
	}
	if err := x.load(); err != nil {
		return nil, err
	}
	for i := range o.Bindings {
		x.free = append(x.free, uint32(i))
	}
	if err := x.attach(); err != nil {
		x.Close()
		return nil, err
	}
	return x, nil
}

func (x *xdp) load() error {
	// Kernels before 5.11 count maps as locked memory. Where the limit cannot
	// be raised it may still be enough.
	_ = rlimit.RemoveMemlock()
	spec, err := loadProgram()
	if err != nil {
		return err
	}
	spec.Maps[programMapWays].MaxEntries = uint32(2 * x.o.Bindings)
	spec.Maps[programMapCounters].MaxEntries = uint32(x.o.Bindings)
	if err := spec.LoadAndAssign(&x.objects, nil); err != nil {
		return explainLoad(err)
	}
	if x.counts, err = x.objects.Counters.Memory(); err != nil {
		x.objects.Close()
		return err
	}
	return nil
}

// Add implements Engine.
func (x *xdp) Add(b Binding) error {
	b, err := b.resolved()
	if err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return errOff
	}
	e := x.bindings[b.Key]
	var carried Counters
	if e != nil && (e.Relay != b.Relay || e.Peer != b.Peer) {
		x.remove(e)
		carried = x.read(e.index).Sub(e.base)
		e = nil
	}
	if e == nil {
		if len(x.free) == 0 {
			return ErrFull
		}
		e = &entry{Binding: b, index: x.free[0]}
		x.free = x.free[1:]
		e.base = x.read(e.index).Sub(carried) // may wrap, as the other way round
		e.keys = [2]wireKey{keyOf(b.Client, b.Server, b.Channel), keyOf(b.Peer, b.Relay, 0)}
		x.bindings[b.Key] = e
	}
	e.Up, e.Down = b.Up, b.Down
	ways := [2]wireWay{
		e.way(b.Relay, b.Peer, 0, b.Up),
		e.way(b.Server, b.Client, b.Channel, b.Down),
	}
	for i, k := range e.keys {
		if other := x.owners[k]; other != nil && other != e {
			x.remove(other) // it has ended and we were not told yet
		}
		if err := x.objects.Ways.Put(&k, &ways[i]); err != nil {
			x.remove(e)
			if errors.Is(err, unix.E2BIG) {
				return ErrFull
			}
			return fmt.Errorf("binding in the kernel: %w", err)
		}
		x.owners[k] = e
	}
	return nil
}

// Remove implements Engine.
func (x *xdp) Remove(k Key) Counters {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.bindings[k]
	if e == nil {
		return Counters{}
	}
	x.remove(e)
	return x.read(e.index).Sub(e.base)
}

// remove takes an entry out of everything. x.mu is held.
func (x *xdp) remove(e *entry) {
	for _, k := range e.keys {
		if x.owners[k] == e {
			_ = x.objects.Ways.Delete(&k) // not there is as good
			delete(x.owners, k)
		}
	}
	delete(x.bindings, e.Key)
	x.free = append(x.free, e.index)
}

// Stats implements Engine.
func (x *xdp) Stats(k Key) Counters {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.bindings[k]
	if e == nil {
		return Counters{}
	}
	return x.read(e.index).Sub(e.base)
}

// read reads the counters at an index. x.mu is held.
func (x *xdp) read(index uint32) (c Counters) {
	var raw [countsSize]byte
	if _, err := x.counts.ReadAt(raw[:], int64(index)*countsSize); err != nil {
		return c
	}
	word := func(at int) uint64 { return binary.NativeEndian.Uint64(raw[at:]) }
	return Counters{word(0), word(8), word(countDown), word(countDown + 8)}
}

// Status implements Engine.
func (x *xdp) Status() Status {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := Status{Mode: x.o.Mode, Bindings: len(x.bindings), Passed: make(map[string]uint64)}
	if x.closed {
		s.Mode, s.Why = Off, "closed"
		return s
	}
	s.Interfaces = x.attached()
	for i, name := range reasons {
		var each []uint64 // of a processor
		_ = x.objects.Passed.Lookup(uint32(i), &each)
		for _, n := range each {
			s.Passed[name] += n
		}
	}
	return s
}

// Close implements Engine.
func (x *xdp) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	for _, p := range x.ports {
		p.close()
	}
	x.ports = nil
	// The counters stay in memory until the last reader is gone.
	return errors.Join(x.objects.Turn.Close(), x.objects.Ways.Close(), x.objects.Ports.Close(), x.objects.Passed.Close())
}

// keyOf is the key of datagrams that come from an address to one of ours.
func keyOf(from, to netip.AddrPort, channel uint16) (k wireKey) {
	k.Src, k.Family = wireAddr(from.Addr())
	k.Dst, _ = wireAddr(to.Addr())
	binary.BigEndian.PutUint16(k.Sport[:], from.Port())
	binary.BigEndian.PutUint16(k.Dport[:], to.Port())
	binary.BigEndian.PutUint16(k.Channel[:], channel)
	return k
}

// way leads from an address of ours to another one.
func (e *entry) way(from, to netip.AddrPort, channel uint16, until time.Time) (w wireWay) {
	k := keyOf(from, to, channel)
	w = wireWay{Until: bootTime(until), Binding: e.index,
		Src: k.Src, Dst: k.Dst, Sport: k.Sport, Dport: k.Dport, Channel: k.Channel, Family: k.Family}
	for _, part := range [][]byte{k.Src[:], k.Dst[:], k.Sport[:], k.Dport[:], k.Channel[:]} {
		for ; len(part) > 0; part = part[2:] {
			w.Sum += uint32(binary.NativeEndian.Uint16(part))
		}
	}
	return w
}

func wireAddr(a netip.Addr) (b [16]byte, family uint16) {
	if a.Is4() {
		four := a.As4()
		copy(b[:], four[:])
		return b, 4
	}
	return a.As16(), 6
}

// bootTime is a time on the clock of the program, which also runs while the
// machine sleeps.
func bootTime(t time.Time) uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	left := time.Until(t)
	if left <= 0 {
		return 0
	}
	return uint64(now.Nano()) + uint64(left)
}
