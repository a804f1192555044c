package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"time"
)

// lossFree is the share that may be lost in a search.
const lossFree = 0.0001

// step sends at one rate for one duration and counts what comes out.
//
// It is one loop on one thread: at each tick it sends what is due and takes what
// has arrived. It never waits in a socket, so the server does not pay for waking
// it; the kernel stamps what arrives, so latencies do not depend on when it
// looks. They are counted from when a packet was due, not from when it was sent:
// if the generator is late, that is in them, and told besides.
func (l *load) step(rate float64, d time.Duration) (*result, error) {
	// The loop keeps its place while it sleeps; readers of streams need another.
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	exactTimers()

	l.mu.Lock()
	defer l.mu.Unlock()
	l.drain()
	l.steps++
	l.up.begin(l.steps, len(l.flows))
	l.down.begin(l.steps, len(l.flows))

	r := &result{Rate: rate, PID: l.o.pid}
	meter, err := newMeter(l.o)
	if err != nil {
		return nil, err
	}
	dropped := l.dropped()
	w := l.newWriter(rate, d)
	began := time.Now()
	end := w.run()
	r.Seconds = time.Since(began).Seconds()
	l.settle(w)
	if err := meter.read(r); err != nil {
		return nil, err
	}
	if err := l.streamBroken.Load(); err != nil {
		return nil, *err
	}
	r.Limited = end || r.Seconds > 1.02*d.Seconds()+0.05
	w.collect(r, l.dropped()-dropped)
	return r, nil
}

func (l *load) dropped() (n uint64) {
	for _, s := range append(append([]*socket(nil), l.clients...), l.peers...) {
		n += s.dropped()
	}
	return n
}

// settle waits until all has come, or nothing more has for a while.
func (l *load) settle(w *writer) {
	const patience = 200 * time.Millisecond
	sent := w.sent[0] + w.sent[1] - w.unsent()
	began := time.Now().UnixNano()
	for {
		l.drain()
		up, lastUp := l.up.soFar()
		down, lastDown := l.down.soFar()
		now := time.Now().UnixNano()
		if up+down >= sent || now-max(began, lastUp, lastDown) > int64(patience) || now-began > 5e9 {
			return
		}
		sleepUntil(now + int64(time.Millisecond))
	}
}

// writer is the sending half of a step.
type writer struct {
	l       *load
	plan    *plan
	lanes   []lane
	seqs    []uint64
	clients *sender
	peers   *sender
	dirty   []*stream
	sent    [2]uint64 // up, down
	late    histogram
	give    time.Time // when to give up
}

type lane struct {
	flow int
	down bool
}

func (l *load) newWriter(rate float64, d time.Duration) *writer {
	w := &writer{
		l: l, clients: newSender(4+l.o.size, l.o.gso), peers: newSender(l.o.size, l.o.gso),
		give: time.Now().Add(2*d + time.Second),
	}
	for i := range l.flows {
		if l.o.up {
			w.lanes = append(w.lanes, lane{i, false})
		}
		if l.o.down {
			w.lanes = append(w.lanes, lane{i, true})
		}
	}
	w.seqs = make([]uint64, len(w.lanes))
	for _, f := range l.flows {
		if f.stream != nil {
			_ = f.stream.conn.SetWriteDeadline(w.give)
		}
	}
	w.plan = newPlan(time.Now().Add(5*time.Millisecond).UnixNano(), len(w.lanes), l.o.burst, rate, d, l.o.tick)
	return w
}

// run sends all; it reports whether it had to give up.
func (w *writer) run() (gaveUp bool) {
	for {
		lane, due, ok := w.plan.next()
		if !ok {
			return false
		}
		now := time.Now().UnixNano()
		if due > now {
			w.l.drain()
			sleepUntil(due)
			now = time.Now().UnixNano()
		}
		if now > w.give.UnixNano() {
			return true
		}
		// What is due by now, but no more than one reading can take.
		const most = 1024
		for n := 0; ok && due <= now && n < most; n += w.l.o.burst {
			w.late.add(time.Duration(now - due))
			for range w.l.o.burst {
				w.put(lane, due)
			}
			w.plan.advance()
			lane, due, ok = w.plan.next()
		}
		w.flush()
		w.l.drain()
	}
}

func (w *writer) put(lane int, due int64) {
	ln := w.lanes[lane]
	f := w.l.flows[ln.flow]
	s := stamp{step: w.l.steps, flow: uint32(ln.flow), seq: w.seqs[lane], due: due}
	w.seqs[lane]++
	if ln.down {
		w.sent[1]++
		s.put(w.peers.next(f.toRelay))
		return
	}
	w.sent[0]++
	size := w.l.o.size
	if f.stream == nil {
		b := w.clients.next(f.toTURN)
		binary.BigEndian.PutUint16(b, f.channel)
		binary.BigEndian.PutUint16(b[2:], uint16(size))
		s.put(b[4:])
		return
	}
	if len(f.stream.out) == 0 {
		w.dirty = append(w.dirty, f.stream)
	}
	at := len(f.stream.out)
	f.stream.out = append(f.stream.out, make([]byte, 4+(size+3)&^3)...)
	b := f.stream.out[at:]
	binary.BigEndian.PutUint16(b, f.channel)
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	s.put(b[4:])
}

func (w *writer) flush() {
	w.clients.flush()
	w.peers.flush()
	for _, s := range w.dirty {
		_, _ = s.conn.Write(s.out) // the reader learns what broke it, the tally what is missing
		s.out = s.out[:0]
	}
	w.dirty = w.dirty[:0]
}

func (w *writer) unsent() uint64 { return w.clients.unsent + w.peers.unsent }

// collect writes the tallies into the result. The loop has ended.
func (w *writer) collect(r *result, dropped uint64) {
	all := histogram{}
	for i, t := range []*tally{&w.l.up, &w.l.down} {
		t.mu.Lock()
		r.Sent += w.sent[i]
		r.Delivered += t.delivered
		r.Duplicated += t.duplicated
		r.Reordered += t.reordered
		r.Misdirected += t.misdirected
		all.merge(&t.latency)
		t.mu.Unlock()
	}
	r.Unsent = w.unsent()
	r.DroppedHere = dropped
	r.Sent -= r.Unsent
	if r.Sent > r.Delivered {
		r.Lost = r.Sent - r.Delivered
	}
	if r.Sent > 0 {
		r.LossShare = float64(r.Lost) / float64(r.Sent)
	}
	r.Limited = r.Limited || r.Unsent+r.DroppedHere > r.Sent/10000
	r.Latency, r.Late = percentilesOf(&all), percentilesOf(&w.late)
	r.perPacket()
}

// meter takes CPU times before and after a step.
type meter struct {
	pid, self int
	threads   []int
	before    [4]int64 // server, threads, ourselves, machine
	began     time.Time
}

func newMeter(o options) (*meter, error) {
	m := &meter{pid: o.pid, self: os.Getpid(), threads: pidsOf(o.cpuOf, names)}
	if o.cpuOf != "" && len(m.threads) == 0 {
		return nil, fmt.Errorf("-cpu-of %q: no such thread", o.cpuOf)
	}
	var err error
	m.before, err = m.now()
	m.began = time.Now()
	return m, err
}

func (m *meter) now() (c [4]int64, err error) {
	if m.pid > 0 {
		if c[0], err = cpuClock(m.pid); err != nil {
			return c, fmt.Errorf("CPU of process %d: %w", m.pid, err)
		}
	}
	for _, pid := range m.threads {
		n, err := cpuClock(pid)
		if err != nil {
			return c, fmt.Errorf("CPU of process %d: %w", pid, err)
		}
		c[1] += n
	}
	if c[2], err = cpuClock(m.self); err != nil {
		return c, err
	}
	c[3] = machineClock()
	return c, nil
}

func (m *meter) read(r *result) error {
	after, err := m.now()
	if err != nil {
		return err
	}
	wall := time.Since(m.began)
	for i := range after {
		after[i] -= m.before[i]
	}
	r.CPU.ServerSeconds, r.CPU.ThreadSeconds, r.CPU.GeneratorSeconds = float64(after[0])/1e9, float64(after[1])/1e9, float64(after[2])/1e9
	r.CPU.OtherCores = max(0, float64(after[3]-after[0]-after[1]-after[2])/float64(wall))
	if m.pid > 0 {
		r.Resident, err = memory(m.pid)
	}
	return err
}
