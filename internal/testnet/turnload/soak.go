package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	tc "github.com/turngate/turngate/internal/testnet/turnclient"
)

type crowd struct {
	server, tls    string // host:port
	auth           tc.Auth
	allocations    int
	life           time.Duration // mean of an allocation
	vanish         float64       // share of UDP clients that say nothing at their end
	echo           netip.AddrPort
	made, failed   atomic.Int64
	sent, received atomic.Int64
	lastError      atomic.Pointer[string]
}

// soak keeps many allocations at a running turngate for a while, ends and
// replaces them all the time, and then looks whether the server is back where
// it began: memory, goroutines, descriptors, ports.
func soak(args []string) error {
	flags := flag.NewFlagSet("turnload", flag.ContinueOnError)
	l := &crowd{}
	var socket string
	var pid int
	var duration, settle time.Duration
	flags.StringVar(&l.server, "server", "127.0.0.1:3478", "TURN over UDP and TCP")
	flags.StringVar(&l.tls, "tls", "127.0.0.1:443", "TURN over TLS")
	flags.StringVar(&l.auth.User, "user", "turn", "user")
	flags.StringVar(&l.auth.Password, "password", "", "password")
	flags.StringVar(&socket, "socket", "", "admin socket of the server")
	flags.IntVar(&pid, "pid", 0, "process of the server")
	flags.IntVar(&l.allocations, "allocations", 2000, "allocations at once")
	flags.DurationVar(&duration, "duration", time.Hour, "how long")
	flags.DurationVar(&settle, "settle", 12*time.Minute, "how long the server may take to be back at its start; what vanished takes its lifetime of 10 min")
	flags.DurationVar(&l.life, "life", 30*time.Second, "mean life of an allocation")
	flags.Float64Var(&l.vanish, "vanish", 0.01, "share of UDP clients that vanish")
	if err := flags.Parse(args); err != nil {
		return err
	}

	echo, err := newEcho()
	if err != nil {
		return err
	}
	defer echo.Close()
	l.echo = echo.LocalAddr().(*net.UDPAddr).AddrPort()

	s := &server{socket: socket, pid: pid}
	start, err := s.look()
	if err != nil {
		return err
	}
	fmt.Printf("%-10s %s\n", "start", start)
	high := l.churn(duration, s)
	end, back := s.settled(start, settle)
	fmt.Printf("\n%-10s %s\n%-10s %s\n%-10s %s\n", "start", start, "highest", high, "end", end)
	sent, received := l.sent.Load(), l.received.Load()
	fmt.Printf("%d allocations made, %d attempts failed; %d datagrams sent through the relays, %d came back (%.4f %% lost)\n",
		l.made.Load(), l.failed.Load(), sent, received, 100*float64(sent-received)/float64(max(1, sent)))
	if e := l.lastError.Load(); e != nil {
		fmt.Println("last failure:", *e)
	}
	if back != nil {
		return back
	}
	if l.failed.Load() > l.made.Load()/1000 {
		return errors.New("more than one attempt in a thousand failed")
	}
	fmt.Println("the server is back where it began")
	return nil
}

// churn runs the clients and returns the highest figures that were seen.
func (l *crowd) churn(duration time.Duration, s *server) (high figures) {
	ctx, cancel := context.WithTimeout(context.Background(), duration)
	defer cancel()
	const ramp = 60 * time.Second
	var wg sync.WaitGroup
	for i := range l.allocations {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			if !pause(ctx, time.Duration(r.Int64N(int64(min(ramp, duration/4))))) {
				return
			}
			for ctx.Err() == nil {
				if err := l.client(ctx, i, r); err != nil && ctx.Err() == nil {
					l.failed.Add(1)
					text := err.Error()
					l.lastError.Store(&text)
					pause(ctx, time.Second)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	began := time.Now()
	ticker := time.NewTicker(30 * time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-done:
			return high
		}
		now, err := s.look()
		if err != nil {
			fmt.Println("look:", err)
			continue
		}
		high = high.highest(now)
		fmt.Printf("%-10s %s; made %d, failed %d\n", time.Since(began).Round(time.Second), now, l.made.Load(), l.failed.Load())
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// client is the life of one allocation. Clients come from many addresses, as
// those of a site do.
func (l *crowd) client(ctx context.Context, i int, r *rand.Rand) error {
	network, addr := "udp", l.server
	switch r.IntN(5) {
	case 0:
		network = "tcp"
	case 1:
		network, addr = "tls", l.tls
	}
	from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}), 0)
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	c, err := tc.Dial(ask, network, addr, l.auth, tc.Local(from), tc.Queue(16), tc.TLS(&tls.Config{InsecureSkipVerify: true}))
	if err != nil {
		return fmt.Errorf("%s: %w", network, err)
	}
	defer c.Close()
	if _, err := c.Allocate(ask); err != nil {
		return fmt.Errorf("%s allocate: %w", network, err)
	}
	l.made.Add(1)
	channel := r.IntN(4) > 0
	if channel {
		err = c.ChannelBind(ask, 0x4000, l.echo)
	} else {
		err = c.CreatePermission(ask, l.echo)
	}
	if err != nil {
		return fmt.Errorf("%s bind: %w", network, err)
	}
	until := time.Now().Add(time.Duration(r.ExpFloat64() * float64(l.life)))
	payload := make([]byte, 160)
	for time.Now().Before(until) && pause(ctx, time.Second) {
		if err := l.echoed(ctx, c, channel, payload); err != nil {
			return fmt.Errorf("%s relay: %w", network, err)
		}
	}
	return l.leave(ctx, c, network, r)
}

func (l *crowd) echoed(ctx context.Context, c *tc.Client, channel bool, payload []byte) (err error) {
	if channel {
		err = c.SendChannel(ctx, 0x4000, payload)
	} else {
		err = c.Send(ctx, l.echo, payload)
	}
	if err != nil {
		return err
	}
	l.sent.Add(1)
	wait, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if _, err := c.Receive(wait); err == nil {
		l.received.Add(1)
	}
	return nil
}

// leave ends an allocation in one of the ways that clients have: most say so,
// some connections are just closed, a few UDP clients vanish.
func (l *crowd) leave(ctx context.Context, c *tc.Client, network string, r *rand.Rand) error {
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	switch {
	case network == "udp" && r.Float64() < l.vanish:
		return nil
	case network != "udp" && r.IntN(2) == 0:
		return nil // closed by the caller
	}
	if r.IntN(2) == 0 {
		if _, err := c.Refresh(ask, 600); err != nil {
			return fmt.Errorf("%s refresh: %w", network, err)
		}
	}
	if _, err := c.Refresh(ask, 0); err != nil {
		return fmt.Errorf("%s release: %w", network, err)
	}
	return nil
}

// newEcho is a peer that sends everything back.
func newEcho() (*net.UDPConn, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	_ = conn.SetReadBuffer(4 << 20)
	go func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	return conn, nil
}
