package main

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// With a spool and the upstream away, what is kept of a request on whose end two servers might
// not agree is one report, or nothing: what follows it never leaves later.
func TestSmugglingIntoTheSpool(t *testing.T) {
	t.Parallel()
	rec := newRecorder(t)
	g := startGateWith(t, "", "", strings.Replace(rec.config(t, rec.Addr), "[[logger]]\n", "[[logger]]\nspool = \"1MiB\"\n", 1))
	tg := &target{gate: g, recorder: rec, addr: g.https, tls: g.trust(t)}
	away := func(c net.Conn, e *forwarded) bool {
		io.WriteString(c, "HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")
		return true
	}
	tg.answer.Store(&away)

	marker := func(n int) string { return fmt.Sprintf("row%d.", n) }
	rows := framings()
	for _, cut := range []string{"", "h", "hell"} { // and whoever leaves within a report
		rows = append(rows, framing{"the end behind " + cut, "Content-Length: 5\r\n", cut, refuse})
	}
	kept := make([]bool, len(rows))
	queue := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for n := range queue {
				row := rows[n]
				a, err := tg.tryDial()
				if err != nil {
					t.Error(err)
					continue
				}
				a.send(row.bytes("/logger/" + marker(n)))
				if strings.HasPrefix(row.name, "the end") {
					a.NetConn().Close()
					continue
				}
				a.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
				patience := 5 * time.Second // for a refused request, whose connection may stay open
				if row.want != refuse {
					patience = time.Minute
				}
				a.SetReadDeadline(time.Now().Add(patience))
				status, _, body := a.response()
				a.NetConn().Close()
				switch {
				case row.want == refuse:
					if status/100 == 2 || status/100 == 3 {
						t.Errorf("%s: got %d, want a refusal", row.name, status)
					}
				case strings.Contains(row.fields, "chunked"): // of no known length
					if status != 503 {
						t.Errorf("%s: got %d, want the upstream's 503", row.name, status)
					}
				default:
					if kept[n] = status == 200 && body == "ok"; !kept[n] {
						t.Errorf("%s: got %d %q, want 200 ok", row.name, status, body)
					}
				}
			}
		})
	}
	for n := range rows {
		queue <- n
	}
	close(queue)
	wg.Wait()

	tg.answer.Store(nil)
	eventually(t, func() string {
		for n, row := range rows {
			if kept[n] && len(tg.received(marker(n))) == 0 {
				return fmt.Sprintf("%s: what was answered does not arrive", row.name)
			}
		}
		return ""
	})
	for n, row := range rows {
		for _, e := range tg.received(marker(n)) {
			if e.body != row.want && (row.want != refuse || !strings.HasPrefix(e.body, "cut: ")) {
				t.Errorf("%s: upstream received %q %q, want body %q", row.name, e.head, e.body, row.want)
			}
		}
	}
	tg.control(t)
	tg.blameless(t)
}
