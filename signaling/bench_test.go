//go:build unix

package signaling

import (
	"crypto/tls"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The figures of docs/measurements.md, as far as one process can show them: client, upstream
// and server are one here, so what is reported is that of all three. .ci/compare has the
// comparison with others.

// cpu is what the process has used so far.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perOp reports the CPU time since a call of cpu, for each of n.
func perOp(b *testing.B, since time.Duration, n int, what string) {
	b.Helper()
	b.ReportMetric(float64((cpu()-since).Nanoseconds())/float64(n), "cpu-ns/"+what)
}

// BenchmarkMessage is CPU for each message, from client to upstream.
func BenchmarkMessage(b *testing.B) {
	for _, size := range []int{200, 2000, 16 << 10} {
		b.Run(fmt.Sprintf("tls=both/size=%d", size), func(b *testing.B) {
			h := newSecure(b)
			client, up := h.open(b)
			there := []byte(maskedFrame(0x82, strings.Repeat("x", size)))
			got := make([]byte, len(there))
			b.SetBytes(int64(size))
			b.ReportAllocs()
			before, n := cpu(), 0
			for b.Loop() {
				_, _ = client.Write(there)
				_, _ = io.ReadFull(up, got)
				n++
			}
			perOp(b, before, n, "message")
		})
	}
}

// BenchmarkLargeMessage carries messages of the largest size, which nobody may hold whole.
func BenchmarkLargeMessage(b *testing.B) {
	const size = 16 << 20
	h := newSecure(b)
	client, up := h.open(b)
	there := []byte(maskedFrame(0x82, strings.Repeat("x", size)))
	b.SetBytes(size)
	b.ReportAllocs()
	before, n := cpu(), 0
	for b.Loop() {
		go func() { _, _ = client.Write(there) }()
		if _, err := io.CopyN(io.Discard, up, int64(len(there))); err != nil {
			b.Fatal(err)
		}
		n++
	}
	perOp(b, before, n, "message")
}

// BenchmarkAddedLatency reports what a round trip through turngate takes beyond one to the same
// echo without it.
func BenchmarkAddedLatency(b *testing.B) {
	h := newSecure(b)
	client, up := h.open(b)
	echo := func(c io.ReadWriter, size int) {
		buf := make([]byte, size)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	}
	message := []byte(maskedFrame(0x82, strings.Repeat("x", 300)))
	direct, err := tls.Dial("tcp", h.upstream, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		b.Fatal(err)
	}
	defer direct.Close()
	_, _ = io.WriteString(direct, request("/", ""))
	_, _ = io.ReadFull(direct, make([]byte, len(switching(testKey))))
	go echo(up, len(message))
	go echo(<-h.calls, len(message))
	got := make([]byte, len(message))
	roundTrip := func(c io.ReadWriter) time.Duration {
		at := time.Now()
		_, _ = c.Write(message)
		_, _ = io.ReadFull(c, got)
		return time.Since(at)
	}
	var through, without []time.Duration
	for b.Loop() {
		through = append(through, roundTrip(client))
		without = append(without, roundTrip(direct))
	}
	for name, share := range map[string]int{"p50": 50, "p99": 99} {
		at := func(list []time.Duration) time.Duration {
			slices.Sort(list)
			return list[len(list)*share/100]
		}
		b.ReportMetric(float64((at(through) - at(without)).Nanoseconds()), "added-"+name+"-ns")
	}
}

// BenchmarkNewConnection is a client's TLS, its handshake, the upstream's TLS and handshake, and the
// end of both.
func BenchmarkNewConnection(b *testing.B) {
	h := newSecure(b)
	b.ReportAllocs()
	before, n := cpu(), 0
	for b.Loop() {
		client, up := h.open(b)
		close(up.done)
		client.NetConn().Close()
		n++
	}
	perOp(b, before, n, "connection")
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// BenchmarkIdleConnection reports the memory that one more session holds which has carried a
// message, with both TLS ends of the test.
func BenchmarkIdleConnection(b *testing.B) {
	h := newSecure(b)
	message := []byte(maskedFrame(0x82, strings.Repeat("x", 2<<10)))
	before, n := inUse(), 0
	for b.Loop() {
		client, up := h.open(b)
		_, _ = client.Write(message)
		_, _ = io.ReadFull(up, make([]byte, len(message)))
		n++
	}
	b.ReportMetric(float64(inUse()-before)/float64(n), "B/connection")
}

// BenchmarkReload swaps the routes below open sessions, and none of them ends.
func BenchmarkReload(b *testing.B) {
	for _, open := range []int{0, 500} {
		b.Run(fmt.Sprintf("open=%d", open), func(b *testing.B) {
			h := newSecure(b)
			type pair struct {
				client *tls.Conn
				up     *secureCall
			}
			var all []pair
			for range open {
				client, up := h.open(b)
				all = append(all, pair{client, up})
			}
			b.ReportAllocs()
			b.ResetTimer()
			before, n := cpu(), 0
			for b.Loop() {
				if err := h.Reconfigure(h.options); err != nil {
					b.Fatal(err)
				}
				n++
			}
			perOp(b, before, n, "reload")
			b.StopTimer()
			lost := 0
			message := []byte(maskedFrame(0x82, "still there"))
			got := make([]byte, len(message))
			for _, p := range all {
				_, _ = p.client.Write(message)
				if _, err := io.ReadFull(p.up, got); err != nil {
					lost++
				}
			}
			b.ReportMetric(float64(lost), "lost")
		})
	}
}

// BenchmarkBlockedReader is a message of a session beside one whose client does not read while its
// upstream sends without end; held is what turngate and the kernel's buffers took for that one.
func BenchmarkBlockedReader(b *testing.B) {
	h := newSecure(b)
	_, flood := h.open(b)
	client, up := h.open(b)
	before := inUse()
	chunk := []byte(serverFrame(0x82, strings.Repeat("x", 64<<10)))
	_ = flood.SetWriteDeadline(time.Now().Add(2 * time.Second))
	for {
		if _, err := flood.Write(chunk); err != nil {
			break // everything on the way is full
		}
	}
	held := float64(inUse()) - float64(before)
	message := []byte(maskedFrame(0x82, strings.Repeat("x", 200)))
	got := make([]byte, len(message))
	b.ResetTimer()
	used, n := cpu(), 0
	for b.Loop() {
		_, _ = client.Write(message)
		_, _ = io.ReadFull(up, got)
		n++
	}
	perOp(b, used, n, "message")
	b.ReportMetric(max(0, held), "held-B")
}
