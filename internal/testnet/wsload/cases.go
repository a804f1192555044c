package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"
)

const (
	settle  = 4 * time.Second // before memory is looked at
	message = 2 << 10         // bytes that each idle connection has carried
)

// hold opens n connections that carried a message and returns the memory of the
// proxy before and after, the latter once they have been idle for a moment.
func (b *bench) hold(p *proxy, n int) (before, after usage, err error) {
	if before, err = p.memory(); err != nil {
		return
	}
	payload := make([]byte, message)
	rand.Read(payload)
	all, err := b.connectAll(p.addr, n, func(c *client) error { return c.exchange(payload) })
	if err != nil {
		return
	}
	defer closeAll(all)
	time.Sleep(settle)
	if after, err = p.memory(); err != nil {
		return
	}
	return before, after, b.stillOpen(all)
}

// stillOpen sends something through each connection.
func (b *bench) stillOpen(all []*client) error {
	lost := 0
	for _, c := range all {
		if c.exchange([]byte("still there")) != nil {
			lost++
		}
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d connections are gone", lost, len(all))
	}
	return nil
}

func (b *bench) idleCase() error {
	return b.alone(func(p *proxy) error {
		before, after, err := b.hold(p, b.idle)
		if err != nil {
			return err
		}
		b.add("memory of an idle wss connection, KiB", "%.1f", &target{bound: 32}, p.name, float64(after.pss-before.pss)/float64(b.idle)/1024)
		b.add("resident at start, MiB", "%.1f", nil, p.name, float64(before.rss)/(1<<20))
		return nil
	})
}

func (b *bench) manyCase() error {
	defer runtime.GC() // the clients' memory
	return b.turngateAlone(func(p *proxy) error {
		before, after, err := b.hold(p, b.many)
		if err != nil {
			return err
		}
		b.add(fmt.Sprintf("%d connections held, MiB", b.many), "%.0f", &target{bound: 400}, p.name, float64(after.pss)/(1<<20))
		b.add(fmt.Sprintf("memory of each of %d, KiB", b.many), "%.1f", &target{bound: 32}, p.name, float64(after.pss-before.pss)/float64(b.many)/1024)
		return nil
	})
}

// connectsCase opens connections, as a client of today does and as one that knows no ML-KEM,
// which OpenSSL has from version 3.5 on: with an older one only the latter makes all proxies
// do the same work.
func (b *bench) connectsCase() error {
	all, err := b.proxies()
	if err != nil {
		return err
	}
	for range b.rounds {
		for _, c := range []struct {
			what   string
			curves []tls.CurveID // of the client
		}{
			{"CPU of a new wss connection, µs", nil},
			{"the same without ML-KEM, µs", []tls.CurveID{tls.X25519, tls.CurveP256}},
		} {
			b.clientTLS.CurvePreferences = c.curves
			for _, p := range all {
				cpu, err := b.open(p)
				if err != nil {
					return err
				}
				b.add(c.what, "%.0f", &target{than: "nginx", bound: 1}, p.name, cpu)
			}
		}
		b.clientTLS.CurvePreferences = nil
	}
	return nil
}

// open returns the CPU of a new connection to a proxy, in microseconds.
func (b *bench) open(p *proxy) (float64, error) {
	before, err := p.cpu()
	if err != nil {
		return 0, err
	}
	cs, err := b.connectAll(p.addr, b.handshake, nil)
	if err != nil {
		return 0, err
	}
	after, err := p.cpu()
	closeAll(cs)
	time.Sleep(200 * time.Millisecond) // the closing is not counted to the next one
	return float64((after - before).Nanoseconds()) / 1000 / float64(b.handshake), err
}

// reloadsCase reloads turngate under open connections.
func (b *bench) reloadsCase() error {
	const conns = 1000
	return b.turngateAlone(func(p *proxy) error {
		payload := make([]byte, message)
		all, err := b.connectAll(p.addr, conns, func(c *client) error { return c.exchange(payload) })
		if err != nil {
			return err
		}
		defer closeAll(all)
		reload := func() error {
			out, err := exec.Command(b.turngate, "reload", "--socket", p.control).CombinedOutput()
			if err != nil {
				return fmt.Errorf("reload: %w: %s", err, out)
			}
			return nil
		}
		for range 5 { // the first ones fill what is filled once
			if err := reload(); err != nil {
				return err
			}
		}
		time.Sleep(3 * settle)
		before, err := p.memory()
		if err != nil {
			return err
		}
		for range b.reloads {
			if err := reload(); err != nil {
				return err
			}
		}
		time.Sleep(3 * settle) // garbage of reloads is given back, what they leave is not
		after, err := p.memory()
		if err != nil {
			return err
		}
		lost := 0
		if b.stillOpen(all) != nil {
			lost = 1
		}
		b.add(fmt.Sprintf("closed by %d reloads, of %d connections", b.reloads, conns), "%.0f", &target{bound: 0}, p.name, float64(lost))
		b.add(fmt.Sprintf("resident after %d reloads, times before", b.reloads), "%.2f", &target{bound: 1.1}, p.name, float64(after.rss)/float64(before.rss))
		return nil
	})
}

// bigCase sends a message of 16 MiB through each proxy and back, and then stops reading in
// front of turngate.
func (b *bench) bigCase() error {
	const big = 15<<20 + 1000 // turngate's limit for a message is 16 MiB by default
	all, err := b.proxies()
	if err != nil {
		return err
	}
	payload := make([]byte, big)
	rand.Read(payload)
	for _, p := range all {
		c, err := b.connect(p.addr)
		if err != nil {
			return err
		}
		before, err := p.cpu()
		if err != nil {
			return err
		}
		if err := c.exchange(payload); err != nil {
			return fmt.Errorf("%s: message of %d bytes: %w", p.name, big, err)
		}
		after, err := p.cpu()
		if err != nil {
			return err
		}
		closeAll([]*client{c})
		b.add("CPU of a MiB there and back, ms", "%.2f", nil, p.name, (after-before).Seconds()*1000/(big>>20))
	}
	return b.alone(func(p *proxy) error { return b.stoppedReaders(p, payload[:1<<20]) })
}

// stoppedReaders makes clients send without reading what comes back until nothing goes any
// further, and looks at the proxy's memory.
func (b *bench) stoppedReaders(p *proxy, payload []byte) error {
	const conns = 50
	all, err := b.connectAll(p.addr, conns, nil)
	if err != nil {
		return err
	}
	defer closeAll(all)
	before, err := p.memory()
	if err != nil {
		return err
	}
	for _, c := range all {
		raw := c.conn.(*tls.Conn).NetConn().(*net.TCPConn)
		_ = raw.SetReadBuffer(16 << 10)
		for {
			_ = c.conn.SetWriteDeadline(time.Now().Add(150 * time.Millisecond))
			if err := c.send(payload); err != nil {
				if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
					break
				}
				return err
			}
		}
	}
	time.Sleep(2 * settle)
	after, err := p.memory()
	if err != nil {
		return err
	}
	b.add("memory of a reader that stopped, KiB", "%.1f", &target{bound: 96}, p.name, float64(after.pss-before.pss)/conns/1024)
	return nil
}

var report = bytes.Repeat([]byte(`{"cmd":"report"}`), 128) // 2 KiB

func (b *bench) reportsCase() error {
	all, err := b.proxies()
	if err != nil {
		return err
	}
	const conns = 16
	head := fmt.Sprintf("POST /logger//v5/AVQualityReportSvc/C2S?random=1&sdkappid=1400000001&cmdtype=1 HTTP/1.1\r\nHost: localhost\r\n"+
		"Origin: https://localhost\r\nContent-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n\r\n", len(report))
	request := append([]byte(head), report...)
	for range b.rounds {
		for _, p := range all {
			rate, cpu, err := b.post(p, conns, request)
			if err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			b.add("reports a second", "%.0f", &target{than: "nginx", bound: 6, least: true}, p.name, rate)
			b.add("CPU of a report, µs", "%.0f", nil, p.name, cpu)
		}
	}
	return nil
}

// post sends reports one after the other over conns kept connections for a round.
func (b *bench) post(p *proxy, conns int, request []byte) (perSecond, cpuMicros float64, err error) {
	cs := make([]*client, conns)
	defer func() { closeAll(cs) }()
	during := func(end time.Time) (int, error) {
		counts, errs := make([]int, conns), make([]error, conns)
		var wg sync.WaitGroup
		for i := range cs {
			wg.Go(func() {
				for first := true; errs[i] == nil && (first || time.Now().Before(end)); first = false {
					if errs[i] = b.postOn(&cs[i], p.addr, request); errs[i] == nil {
						counts[i]++
					}
				}
			})
		}
		wg.Wait()
		sum := 0
		for _, n := range counts {
			sum += n
		}
		return sum, errors.Join(errs...)
	}
	if _, err := during(time.Time{}); err != nil { // opens what is kept
		return 0, 0, err
	}
	before, err := p.cpu()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	sum, err := during(began.Add(b.round))
	if err != nil {
		return 0, 0, err
	}
	took := time.Since(began)
	after, err := p.cpu()
	return float64(sum) / took.Seconds(), float64((after - before).Microseconds()) / float64(sum), err
}

// postOn sends one report on a connection, which it opens when there is none, and drops when the
// proxy wants no more on it.
func (b *bench) postOn(c **client, addr string, request []byte) error {
	if *c == nil {
		var err error
		if *c, err = b.dialTLS(addr); err != nil {
			return err
		}
	}
	more, err := (*c).post(request)
	if err == nil && !more {
		(*c).conn.Close()
		*c = nil
	}
	return err
}

// post sends one request, reads its answer, and reports whether the connection is kept.
func (c *client) post(request []byte) (more bool, err error) {
	if _, err := c.conn.Write(request); err != nil {
		return false, err
	}
	head, err := readHead(c.r)
	if err != nil {
		return false, err
	}
	if head["status"] != "HTTP/1.1 200 OK" {
		return false, fmt.Errorf("answered %q", head["status"])
	}
	n, err := strconv.Atoi(head["content-length"])
	if err != nil {
		return false, err
	}
	_, err = c.r.Discard(n)
	return head["connection"] != "close", err
}
