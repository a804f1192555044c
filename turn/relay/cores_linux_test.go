package relay

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// BenchmarkCores is a listener with its load, clients and peers, in one process: with -cpu 1,2
// all of it has one core or two. Each flow sends a burst of ChannelData and waits until its
// peer has it all. One operation is one datagram there; cpu-ns/op is the time of all threads.
func BenchmarkCores(b *testing.B) {
	const size, burst = 1000, 32
	for _, sockets := range []int{1, 2} {
		b.Run(fmt.Sprintf("sockets=%d", sockets), func(b *testing.B) {
			table, loops := NewTable(), NewLoops(sockets)
			l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), table, loops, sockets)
			if err != nil {
				b.Fatal(err)
			}
			served := make(chan error, 1)
			go func() { served <- l.Serve(func(*Listener, Path, []byte) {}) }()
			b.Cleanup(func() { l.Close(); <-served; loops.Close() })
			const flows = 64
			var clients, peers [flows]*ipv4.PacketConn
			for i := range flows {
				r, _ := newRelay(b, discard{}, nil)
				client, from := udp(b)
				peer, to := udp(b)
				_ = peer.SetReadBuffer(1 << 20)
				_ = peer.SetReadDeadline(time.Now().Add(time.Minute))
				until := time.Now().Add(time.Hour)
				if err := r.Bind(0x4000, to, until, until); err != nil {
					b.Fatal(err)
				}
				table.Set(Path{from, l.Addr()}, r)
				clients[i], peers[i] = ipv4.NewPacketConn(client), ipv4.NewPacketConn(peer)
			}
			server := net.UDPAddrFromAddrPort(l.Addr())
			var next atomic.Int32
			b.SetParallelism(8)
			before := cpuTime(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				i := next.Add(1) % flows
				out, in := make([]ipv4.Message, burst), make([]ipv4.Message, burst)
				for j := range burst {
					out[j].Buffers, out[j].Addr = [][]byte{frame(size, 'x')}, server
					in[j].Buffers = [][]byte{make([]byte, 1500)}
				}
				for {
					n := 0
					for n < burst && pb.Next() {
						n++
					}
					if n == 0 {
						return
					}
					for sent := 0; sent < n; {
						k, err := clients[i].WriteBatch(out[sent:n], 0)
						if err != nil {
							b.Error(err)
							return
						}
						sent += k
					}
					for got := 0; got < n; {
						k, err := peers[i].ReadBatch(in[:n-got], 0)
						if err != nil {
							b.Errorf("%d of %d datagrams came: %v", got, n, err)
							return
						}
						got += k
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return time.Duration(ts.Nano())
}
