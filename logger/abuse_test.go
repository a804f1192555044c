package logger

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// While the upstream is away, a report that is refused, comes in part or is taken back leaves
// nothing on the disk, and the reports around it are kept whole and alone.
func TestAbuseLeavesNothingInTheSpool(t *testing.T) {
	c := newCollector(t)
	c.stop()
	route := spoolRoute(c)
	route.MaxBody, route.ReadTimeout = 1000, 200*time.Millisecond
	route.Origins, route.SDKAppIDs = []string{page}, []uint64{1400000001}
	h := startSpooling(t, t.TempDir(), route)
	big := strings.Repeat("x", 1001)
	const leaves = 0
	for _, tc := range []struct {
		name, line, fields, body string
		want                     int
	}{
		{"no body at all", "POST", "Content-Length: 100\r\n", "", http.StatusRequestTimeout},
		{"half a body and silence", "POST", "Content-Length: 100\r\n", "half", http.StatusRequestTimeout},
		{"half a body, not asked for", "POST", "Content-Length: 100\r\nExpect: 100-continue\r\n", "half", http.StatusContinue},
		{"half a chunk and silence", "POST", "Transfer-Encoding: chunked\r\n", "64\r\nhalf", http.StatusBadGateway},
		{"half a body and the end", "POST", "Content-Length: 100\r\n", "half", leaves},
		{"half a chunk and the end", "POST", "Transfer-Encoding: chunked\r\n", "64\r\nhalf", leaves},
		{"a body over the limit", "POST", "Content-Length: 1001\r\n", big, http.StatusRequestEntityTooLarge},
		{"a length over the limit", "POST", "Content-Length: 9223372036854775807\r\n", "", http.StatusRequestEntityTooLarge},
		{"two lengths", "POST", "Content-Length: 4\r\nContent-Length: 5\r\n", "half.", http.StatusBadRequest},
		{"a length below zero", "POST", "Content-Length: -4\r\n", "half", http.StatusBadRequest},
		{"a chunk that is none", "POST", "Transfer-Encoding: chunked\r\n", "zz\r\nhalf\r\n0\r\n\r\n", http.StatusBadGateway},
		{"another method", "PUT", "Content-Length: 4\r\n", "half", http.StatusMethodNotAllowed},
		{"another method with an upgrade", "GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n", "", http.StatusBadRequest},
		{"a report with an upgrade", "POST", "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\n", "half", http.StatusBadRequest},
		{"a page that is not served", "POST", "Origin: https://evil.example\r\nContent-Length: 4\r\n", "half", http.StatusForbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			head := tc.line + " /logger/v5/x?sdkappid=1400000001 HTTP/1.1\r\nHost: h\r\n" + tc.fields + "\r\n"
			if !strings.Contains(tc.fields, "Origin") {
				head = strings.Replace(head, "\r\n", "\r\nOrigin: "+page+"\r\n", 1)
			}
			if tc.want == leaves {
				conn, err := net.Dial("tcp", h.addr)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.WriteString(conn, head+tc.body)
				conn.Close()
				return
			}
			if resp := h.raw(t, tc.line, head, strings.NewReader(tc.body)); resp.StatusCode != tc.want {
				t.Errorf("got %d, want %d", resp.StatusCode, tc.want)
			}
		})
	}
	if resp := h.post(t, "/logger/v5/x?sdkappid=1400000002", "half"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("an application that is not served: got %d, want 403", resp.StatusCode)
	}
	h.wantValues(t, "turngate_logger_spooled_total")
	h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 0")
	h.wantValues(t, "turngate_logger_spool_bytes", "route=/logger/ 0")

	h.kept(t, "an honest report")
	// What stands behind a report on its connection is none of it.
	if resp := h.raw(t, "POST", "POST /logger/v5/x?sdkappid=1400000001 HTTP/1.1\r\nHost: h\r\nOrigin: "+page+"\r\nContent-Length: 5\r\n\r\n", strings.NewReader("shortPOST /logger/half HTTP/1.1\r\n")); resp.StatusCode != 200 {
		t.Errorf("a report with more behind it: got %d, want 200", resp.StatusCode)
	}
	h.wantValues(t, "turngate_logger_spooled_total", "route=/logger/ 2")
	c.start()
	if got, want := c.bodies(2), []string{"an honest report", "short"}; !slices.Equal(got, want) {
		t.Errorf("the collector got %q, want %q", got, want)
	}
	h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 0")
}

// A client that leaves while the upstream is asked was told nothing, and sends its report again:
// it is not kept.
func TestAReportThatIsTakenBackIsNotKept(t *testing.T) {
	c := newCollector(t)
	c.answer(-1)
	route := spoolRoute(c)
	route.Wait = time.Minute
	h := startSpooling(t, t.TempDir(), route)
	conn, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(conn, "POST /logger/v5/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\ntaken")
	asked := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.seen) == 1
	}
	if !eventually(asked) {
		t.Fatal("the collector is not asked")
	}
	conn.Close()
	h.wantValues(t, "turngate_logger_requests_total", "result=client_left route=/logger/ 1")
	h.wantValues(t, "turngate_logger_spooled_total")
	h.wantValues(t, "turngate_logger_spool_reports", "route=/logger/ 0")
}
