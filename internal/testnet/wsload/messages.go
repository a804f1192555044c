package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// A party is the open connections to one proxy, or to the upstream itself.
type party struct {
	proxy *proxy // nil: the upstream
	name  string
	conns []*client
	heard chan time.Duration // the way there and back of each message
}

func (b *bench) newParty(name, addr string, p *proxy) (*party, error) {
	conns, err := b.connectAll(addr, b.conns, nil)
	if err != nil {
		return nil, err
	}
	y := &party{p, name, conns, make(chan time.Duration, 1<<16)}
	for _, c := range conns {
		go y.listen(c, b.size) // ends with the connection
	}
	return y, nil
}

// began is the zero of the times in messages.
var began = time.Now()

func (y *party) listen(c *client, size int) {
	buf := make([]byte, size)
	for {
		n, err := c.receive(buf)
		if err != nil || n < 8 {
			return
		}
		y.heard <- time.Since(began) - time.Duration(binary.BigEndian.Uint64(buf))
	}
}

// messagesCase sends messages at random times, at a steady rate over all connections, and
// takes the time until their echo is back.
func (b *bench) messagesCase() error {
	all, err := b.proxies()
	if err != nil {
		return err
	}
	direct, err := b.newParty("direct", b.up.addr(), nil)
	if err != nil {
		return err
	}
	parties := []*party{direct}
	defer func() {
		for _, y := range parties {
			closeAll(y.conns)
		}
	}()
	for _, p := range all {
		y, err := b.newParty(p.name, p.addr, p)
		if err != nil {
			return err
		}
		parties = append(parties, y)
	}
	base := math.Inf(1) // best median without a proxy
	p99 := make(map[string][]float64)
	for range b.rounds {
		for _, y := range parties {
			f, err := b.talk(y)
			if err != nil {
				return fmt.Errorf("%s: %w", y.name, err)
			}
			if y == direct {
				base = min(base, f.p50)
				b.add("way there and back, median, µs", "%.0f", nil, y.name, f.p50)
				b.add("way there and back, p99, µs", "%.0f", nil, y.name, f.p99)
				continue
			}
			b.add("CPU of a message and direction, µs", "%.1f", &target{than: "nginx", bound: 1}, y.name, f.cpu)
			b.add("way there and back, median, µs", "%.0f", nil, y.name, f.p50)
			b.add("way there and back, p99, µs", "%.0f", nil, y.name, f.p99)
			p99[y.name] = append(p99[y.name], f.p99)
		}
	}
	for name, all := range p99 {
		for _, v := range all {
			b.add("p99 over the direct median, µs", "%.0f", &target{than: "nginx", bound: 0.7}, name, v-base)
			b.add("the same, best round, µs", "%.0f", &target{than: "nginx", bound: 0.7, best: true}, name, v-base)
		}
	}
	return nil
}

type figures struct{ p50, p99, cpu float64 } // microseconds; cpu of a message and direction

// talk sends for one round. What is late because we were late is measured from the real
// sending: the generator's own delays are not the proxy's.
func (b *bench) talk(y *party) (figures, error) {
	var f figures
	payload := make([]byte, b.size)
	gap := float64(time.Second) / float64(b.rate)
	var before time.Duration
	if y.proxy != nil {
		var err error
		if before, err = y.proxy.cpu(); err != nil {
			return f, err
		}
	}
	clock, err := newAlarm()
	if err != nil {
		return f, err
	}
	defer clock.file.Close()
	start := time.Now()
	next := time.Duration(0)
	sent := 0
	for next < b.round {
		if err := clock.sleep(next - time.Since(start)); err != nil {
			return f, err
		}
		binary.BigEndian.PutUint64(payload, uint64(time.Since(began)))
		if err := y.conns[rand.IntN(len(y.conns))].send(payload); err != nil {
			return f, err
		}
		sent++
		next += time.Duration(rand.ExpFloat64() * gap)
	}
	times := make([]float64, 0, sent)
	late := time.After(patience)
	for range sent {
		select {
		case d := <-y.heard:
			times = append(times, float64(d)/float64(time.Microsecond))
		case <-late:
			return f, fmt.Errorf("%d of %d messages did not come back", sent-len(times), sent)
		}
	}
	if y.proxy != nil {
		after, err := y.proxy.cpu()
		if err != nil {
			return f, err
		}
		f.cpu = float64((after - before).Nanoseconds()) / 1000 / float64(2*sent)
	}
	slices.Sort(times)
	f.p50, f.p99 = times[len(times)/2], times[len(times)*99/100]
	return f, nil
}
