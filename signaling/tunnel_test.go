package signaling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/turngate/turngate/internal/testnet"
	"github.com/turngate/turngate/signaling/entry"
)

func TestTunnelCarriesEarlyBytesBothWays(t *testing.T) {
	hello := serverFrame(0x81, `{"cmd":19}`)
	b, _ := newBackend(t, switching(testKey)+hello)
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	w := h.dial(t)
	early := maskedFrame(0x81, "before the answer")
	w.send(request("/ws", "") + early)
	w.head()
	w.want(hello)
	(<-b.conns).want(early)
}

func TestTunnelCarriesEveryFrameSize(t *testing.T) {
	up := websocket.Upgrader{Subprotocols: []string{"2.0"}, EnableCompression: true}
	b := testnet.PlainUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		c.SetCloseHandler(func(int, string) error { return nil })
		for {
			kind, p, err := c.ReadMessage()
			if err != nil {
				var ce *websocket.CloseError
				if errors.As(err, &ce) {
					_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4013, "bye "+ce.Text), time.Now().Add(time.Second))
				}
				return
			}
			if err := c.WriteMessage(kind, p); err != nil {
				return
			}
		}
	}))
	h := serve(t, Options{Routes: []Route{{Route: entry.Route{Path: "/ws/", Upstreams: []string{"ws://" + b.Addr}}}}})
	for _, compress := range []bool{false, true} {
		d := websocket.Dialer{Subprotocols: []string{"2.0"}, EnableCompression: compress}
		c, resp, err := d.Dial("ws://"+h.addr+"/ws/x?y=z", nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.Subprotocol() != "2.0" || compress != (resp.Header.Get("Sec-WebSocket-Extensions") != "") {
			t.Errorf("negotiated %v", resp.Header)
		}
		for _, size := range []int{0, 1, 125, 126, 1021, 1022, 1023, 1024, 1025, 16383, 16384, 16385, 65535, 65536, 4 << 20} {
			msg := strings.Repeat("abcdefg\n", size/8+1)[:size]
			if err := c.WriteMessage(websocket.TextMessage, []byte(msg)); err != nil {
				t.Fatal(err)
			}
			if _, p, err := c.ReadMessage(); err != nil || string(p) != msg {
				t.Fatalf("size %d: %d bytes back, %v", size, len(p), err)
			}
		}
		pong := make(chan string, 1)
		c.SetPongHandler(func(s string) error { pong <- s; return nil })
		_ = c.WriteControl(websocket.PingMessage, []byte("end to end"), time.Now().Add(time.Second))
		_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(4011, "reason"), time.Now().Add(time.Second))
		_, _, err = c.ReadMessage()
		var ce *websocket.CloseError
		if !errors.As(err, &ce) || ce.Code != 4013 || ce.Text != "bye reason" {
			t.Errorf("close: %v, want 4013 with the reason passed both ways", err)
		}
		if s := <-pong; s != "end to end" {
			t.Errorf("pong %q", s)
		}
		c.Close()
	}
	h.vacant(t)
	logs := h.logs.String()
	if !strings.Contains(logs, "clientClose=4011") || !strings.Contains(logs, "upstreamClose=4013") {
		t.Errorf("the log does not name the close codes:\n%s", logs)
	}
}

func TestTunnelEndsBothSides(t *testing.T) {
	last := serverFrame(0x81, "last words")
	for _, tt := range []struct {
		name   string
		end    func(client, up *wire)
		reason string
	}{
		{"the upstream closes", func(_, up *wire) { up.send(last); up.Close() }, "upstream closed"},
		{"the upstream half-closes", func(_, up *wire) { up.send(last); _ = up.Conn.(*doneConn).CloseWrite() }, "upstream closed"},
		{"the client closes", func(client, up *wire) { client.Close() }, "client closed"},
		{"the client resets", func(client, up *wire) { _ = client.Conn.(*net.TCPConn).SetLinger(0); client.Close() }, "client lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, _ := newBackend(t, switching(testKey))
			h := serve(t, Options{Routes: []Route{b.route("/ws")}})
			client := h.upgrade(t, "/ws")
			up := <-b.conns
			client.send(maskedFrame(0x82, "x"))
			up.want(maskedFrame(0x82, "x"))
			tt.end(client, up)
			if strings.HasPrefix(tt.reason, "upstream") {
				if got := client.wantEnd(); got != last {
					t.Errorf("client read %q before the end, want %q", got, last)
				}
			} else {
				up.wantEnd()
			}
			up.Close()
			h.vacant(t)
			if logs := h.logs.String(); !strings.Contains(logs, `reason="`+tt.reason+`"`) {
				t.Errorf("no reason %q in\n%s", tt.reason, logs)
			}
		})
	}
}

func TestTunnelDeliversBeforeTheEnd(t *testing.T) {
	// 8 MiB and a FIN at once: nothing may be lost while the client reads slowly.
	blob := serverFrame(0x82, strings.Repeat("0123456789abcdef", 512<<10))
	b, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	client := h.upgrade(t, "/ws")
	up := <-b.conns
	go func() {
		_, _ = io.WriteString(up, blob)
		_ = up.Conn.(*doneConn).CloseWrite()
	}()
	if got := client.wantEnd(); len(got) != len(blob) {
		t.Errorf("client read %d bytes, want %d", len(got), len(blob))
	}
	up.Close()
}

func TestTunnelHoldsTheClientToRFC6455(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	rt := b.route("/ws")
	rt.MaxMessage = 1 << 20
	h := serve(t, Options{Routes: []Route{rt}})
	neighbour := h.upgrade(t, "/ws")
	neighbourUp := <-b.conns
	huge := string(frameHeader(0x82, true, 64<<20))
	for _, tt := range []struct {
		name   string
		frames string
		code   uint16
	}{
		{"an unmasked frame", serverFrame(0x81, "x"), 1002},
		{"a length of 2^63", "\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", 1002},
		{"a long control frame", maskedFrame(0x89, strings.Repeat("p", 200)), 1002},
		{"a fragmented control frame", maskedFrame(0x09, "p"), 1002},
		{"a reserved opcode", maskedFrame(0x8b, "x"), 1002},
		{"RSV bits without an extension", maskedFrame(0xc1, "x"), 1002},
		{"a continuation of nothing", maskedFrame(0x80, "x"), 1002},
		{"a message inside a message", maskedFrame(0x01, "x") + maskedFrame(0x81, "y"), 1002},
		{"a huge message announced", huge + strings.Repeat("x", 4<<20), 1009},
		{"a huge message in fragments", maskedFrame(0x02, strings.Repeat("x", 1<<19)) + maskedFrame(0x00, strings.Repeat("x", 1<<19)) + maskedFrame(0x00, "x"), 1009},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := h.upgrade(t, "/ws")
			up := <-b.conns
			go func() { _, _ = io.Copy(io.Discard, up.r); up.Close() }()
			go func() { _, _ = io.WriteString(w, tt.frames) }()
			got := w.wantEnd()
			if want := string(serverClose(tt.code)); got != want {
				t.Errorf("client read %q, want the Close frame %q", got, want)
			}
		})
	}
	neighbour.send(maskedFrame(0x81, "still here"))
	neighbourUp.want(maskedFrame(0x81, "still here"))
}

func serverClose(code uint16) []byte {
	var b [64]byte
	return closeFrame(&b, code, closeText(code))
}

func TestTunnelLenient(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	rt := b.route("/ws")
	rt.Lenient = true
	h := serve(t, Options{Routes: []Route{rt}})
	w := h.upgrade(t, "/ws")
	w.send("these are no frames")
	(<-b.conns).want("these are no frames")
}

func TestDrainClosesAtFrameBoundaries(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	type pair struct{ client, up *wire }
	var pairs []pair
	for range 4 {
		c := h.upgrade(t, "/ws")
		pairs = append(pairs, pair{c, <-b.conns})
	}
	// The first upstream is in the middle of a frame, in its header; the second in its payload.
	frame := serverFrame(0x82, strings.Repeat("y", 300))
	pairs[0].up.send(frame[:1])
	pairs[0].client.want(frame[:1])
	pairs[1].up.send(frame[:100])
	pairs[1].client.want(frame[:100])
	drained := make(chan error, 1)
	go func() { drained <- h.Drain(t.Context(), 20*time.Millisecond) }()
	closing := string(serverClose(1012))
	for i, p := range pairs[2:] {
		p.client.want(closing)
		reply := maskedFrame(0x88, closePayload(1012, ""))
		p.client.send(reply)
		p.up.want(reply)
		if rest := p.client.wantEnd(); rest != "" {
			t.Errorf("client %d got %q behind the Close frame", i, rest)
		}
		p.client.Close()
		p.up.Close()
	}
	for i, sent := range []int{1, 100} {
		p := pairs[i]
		p.up.send(frame[sent:] + frame)
		p.client.want(frame[sent:] + closing)
		if rest := p.client.wantEnd(); rest != "" {
			t.Errorf("client %d got %q behind the Close frame", i, rest)
		}
		p.client.Close()
		p.up.Close()
	}
	if err := <-drained; err != nil {
		t.Errorf("Drain: %v", err)
	}
	w := h.dial(t)
	w.send(request("/ws", ""))
	if head := w.head(); !strings.HasPrefix(head, "HTTP/1.1 503 ") || !strings.Contains(head, "Retry-After: ") {
		t.Errorf("a new client while draining got %q, want 503 with Retry-After", head)
	}
}

func TestDrainCutsAtItsLimit(t *testing.T) {
	b, _ := newBackend(t, switching(testKey)+"\x82")
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	w := h.upgrade(t, "/ws")
	(<-b.conns).Close()
	_ = w
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = h.Drain(ctx, time.Hour)
	h.vacant(t)
}

func TestSessionsAndKick(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	w := h.upgrade(t, "/ws?sdkAppId=1400000001&userSig=secret")
	up := <-b.conns
	w.send(maskedFrame(0x81, "12345"))
	up.want(maskedFrame(0x81, "12345"))
	list := h.Sessions()
	if len(list) != 1 || list[0].Route != "/ws" || list[0].Upstream != b.Addr || list[0].SDKAppID != 1400000001 || list[0].Client.String() != "127.0.0.1" {
		t.Fatalf("sessions %+v", list)
	}
	if h.Kick(list[0].ID + 1) {
		t.Error("kicked a session that is not there")
	}
	if !h.Kick(list[0].ID) {
		t.Error("Kick does not find the session")
	}
	if got, want := w.wantEnd(), string(serverClose(1008)); got != want {
		t.Errorf("client read %q, want %q", got, want)
	}
	up.Close()
	h.vacant(t)
}

func TestReconfigureKeepsSessions(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	w := h.upgrade(t, "/ws")
	up := <-b.conns
	if err := h.Reconfigure(Options{Routes: []Route{{Route: entry.Route{Path: "/other", Upstreams: []string{"nonsense"}}}}}); err == nil {
		t.Error("a bad configuration is accepted")
	}
	h.upgrade(t, "/ws") // nothing has changed
	(<-b.conns).Close()
	if err := h.Reconfigure(Options{Routes: []Route{b.route("/other")}}); err != nil {
		t.Fatal(err)
	}
	if resp := h.get(t, "GET", "/ws", "", nil); resp.StatusCode != 404 {
		t.Errorf("a removed route answers %d, want 404", resp.StatusCode)
	}
	w.send(maskedFrame(0x81, "x"))
	up.want(maskedFrame(0x81, "x"))
}

func TestIdleAndStuckSessionsEnd(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	idle, stuck := b.route("/idle"), b.route("/stuck")
	idle.IdleTimeout = time.Second
	stuck.WriteTimeout = time.Second
	h := serve(t, Options{Routes: []Route{idle, stuck}})
	w := h.upgrade(t, "/idle")
	idleUp := <-b.conns
	if got, want := w.wantEnd(), string(serverClose(1000)); got != want {
		t.Errorf("idle client read %q, want %q", got, want)
	}
	idleUp.Close()
	h.upgrade(t, "/stuck") // never reads
	up := <-b.conns
	chunk := serverFrame(0x82, strings.Repeat("x", 64<<10))
	for {
		if _, err := io.WriteString(up, chunk); err != nil {
			break
		}
	}
	up.Close()
	h.vacant(t)
	if logs := h.logs.String(); !strings.Contains(logs, "reason=stuck") {
		t.Errorf("no session ended as stuck:\n%s", logs)
	}
}

func TestPanicEndsOneSession(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	victim := h.upgrade(t, "/ws")
	first := <-b.conns
	victim.send(maskedFrame(0x81, "carried"))
	first.want(maskedFrame(0x81, "carried"))
	neighbour := h.upgrade(t, "/ws")
	second := <-b.conns
	broken, _ := h.Get(h.Sessions()[0].ID)
	onItsGoroutine(broken, func() { broken.down.dst = nil })
	first.send(serverFrame(0x81, "x"))
	first.wantEnd()
	first.Close()
	second.send(serverFrame(0x81, "y"))
	neighbour.want(serverFrame(0x81, "y"))
	if !strings.Contains(h.logs.String(), "session panic") {
		t.Error("the panic is not logged")
	}
}

// onItsGoroutine calls change where nothing else touches the session.
func onItsGoroutine(ses *session, change handlerFunc) {
	if ses.loop == nil {
		change()
		return
	}
	done := make(chan struct{})
	ses.loop.Wake(handlerFunc(func() { change(); close(done) }))
	<-done
}

type handlerFunc func()

func (f handlerFunc) Ready([]byte) bool { f(); return false }

func TestCollectors(t *testing.T) {
	b, _ := newBackend(t, switching(testKey))
	h := serve(t, Options{Routes: []Route{b.route("/ws")}})
	reg := prometheus.NewPedanticRegistry()
	for _, c := range h.Collectors() {
		reg.MustRegister(c)
	}
	w := h.upgrade(t, "/ws")
	up := <-b.conns
	w.send(maskedFrame(0x81, "12345"))
	up.want(maskedFrame(0x81, "12345"))
	read := func(name string) float64 {
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for _, f := range all {
			if f.GetName() == name {
				for _, m := range f.Metric {
					sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
		return sum
	}
	if got := read("turngate_signaling_sessions"); got != 1 {
		t.Errorf("sessions %v, want 1", got)
	}
	up.Close()
	w.Close()
	h.vacant(t)
	if got := read("turngate_signaling_sessions"); got != 0 {
		t.Errorf("sessions %v after the end, want 0", got)
	}
	if got := read("turngate_signaling_bytes_total"); got != float64(len(maskedFrame(0x81, "12345"))) {
		t.Errorf("bytes %v", got)
	}
	if got := read("turngate_signaling_closes_total"); got != 1 {
		t.Errorf("closes %v, want 1", got)
	}
}

// memoryConn reads what a test feeds it and swallows writes, without allocating.
type memoryConn struct {
	net.Conn
	in  chan []byte
	out chan int
}

func (c *memoryConn) Read(p []byte) (int, error) {
	b, ok := <-c.in
	if !ok {
		return 0, io.EOF
	}
	return copy(p, b), nil
}
func (c *memoryConn) Write(p []byte) (int, error)     { c.out <- len(p); return len(p), nil }
func (c *memoryConn) Close() error                    { return nil }
func (c *memoryConn) SetReadDeadline(time.Time) error { return nil }

// forwarding builds a session over memory and returns the ends of its up pump.
func forwarding(t testing.TB) (in chan []byte, out chan int) {
	s, err := New(Options{Log: (&logBuffer{}).logger()})
	if err != nil {
		t.Fatal(err)
	}
	client := &memoryConn{in: make(chan []byte), out: make(chan int)}
	up := &memoryConn{in: make(chan []byte), out: make(chan int)}
	ses := &session{route: "/ws", done: func() {}, limits: limits{write: time.Minute}}
	ses.up.frames = frames{strict: true, maxMessage: 1 << 20}
	s.start(ses, client, up, nil, nil, func() error { return nil })
	t.Cleanup(func() { close(client.in); close(up.in); s.Close() })
	return client.in, up.out
}

func TestForwardingDoesNotAllocate(t *testing.T) {
	for _, size := range []int{1, 300, 1000} {
		in, out := forwarding(t)
		frame := []byte(maskedFrame(0x81, strings.Repeat("x", size)))
		n := testing.AllocsPerRun(1000, func() {
			in <- frame
			<-out
		})
		if n != 0 {
			t.Errorf("%v allocations per message of %d bytes, want 0", n, size)
		}
	}
}

func BenchmarkForwarding(b *testing.B) {
	for _, size := range []int{300, 1000} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			in, out := forwarding(b)
			frame := []byte(maskedFrame(0x81, strings.Repeat("x", size)))
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			for b.Loop() {
				in <- frame
				<-out
			}
		})
	}
}
