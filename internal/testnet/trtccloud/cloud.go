// Package trtccloud is a TRTC cloud that fits into a test process: scheduler,
// signaling, log collector and media server, as far as the browser SDKs
// trtc-sdk-v5 and trtc-js-sdk (v4) need them to join a room and publish.
//
// The media server is a real one (ICE-lite, DTLS-SRTP), so that a camera that
// a browser publishes is received and counted, not assumed. Everything that
// reaches the cloud is recorded; tests read it with State and Wait.
//
// The wire contract was read out of the SDKs' own sources; what the vendor's
// servers do beyond it is unknown and not imitated.
package trtccloud

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Paths of the services.
const (
	SchedulePath = "/api/v1/config"
	SignalPath   = "/v2/ws" // what v5 dials at a scheduled domain; "/" serves as well
	LogPath      = "/v5/AVQualityReportSvc/C2S"
)

// Names the SDKs dial when no proxy is configured. The cloud's certificate
// covers them. A request whose Host is none of them, or another name than the
// TLS handshake asked for, is answered with 421, as by a strict server.
var Names = []string{
	"signaling.rtc.qq.com", "*.rtc.qq.com", "*.rtc.qcloud.com", "*.rtc.tencentcloud.com",
	"*.cloud-rtc.com", "*.cloud-rtc.net", "*.rtc-web.com", "*.rtc-web.io",
	"yun.tim.qq.com", "apisgp.my-imcloud.com",
}

// Cloud is a running fake cloud. All methods may be called at once.
type Cloud struct {
	tb       testing.TB
	ca       *authority
	addr     netip.AddrPort
	media    *mediaServer
	recorder recorder

	mu        sync.Mutex // guards the fields below
	schedule  Schedule
	logStatus int
	refuse    bool
	sockets   map[*socket]struct{}
	seats     map[seatKey]*seat
	nextID    int64
	closing   bool

	running sync.WaitGroup // of signaling connections
}

// Start starts a cloud on loopback, one TLS port for its three web services and
// one UDP port for media. It ends with the test.
func Start(tb testing.TB) *Cloud {
	tb.Helper()
	ca, err := newAuthority()
	if err != nil {
		tb.Fatalf("test authority: %v", err)
	}
	cert, err := ca.issue(append([]string{"localhost", "127.0.0.1"}, Names...))
	if err != nil {
		tb.Fatalf("cloud certificate: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("cloud listener: %v", err)
	}
	c := &Cloud{
		tb:       tb,
		ca:       ca,
		addr:     ln.Addr().(*net.TCPAddr).AddrPort(),
		schedule: DefaultSchedule(),
		sockets:  map[*socket]struct{}{},
		seats:    map[seatKey]*seat{},
	}
	c.recorder.state.Sources = map[netip.AddrPort]int{}
	c.media, err = newMediaServer(func(from netip.AddrPort) {
		c.recorder.quiet(func(s *State) { s.Sources[from]++ })
	})
	if err != nil {
		tb.Fatalf("media server: %v", err)
	}
	srv := &http.Server{
		Handler:   http.HandlerFunc(c.serve),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
		Protocols: new(http.Protocols),
		ErrorLog:  log.New(io.Discard, "", 0), // clients that do not trust us are the tests' business
	}
	// With HTTP/2 a browser sends requests for all our names over one connection,
	// and the server name says nothing any more.
	srv.Protocols.SetHTTP1(true)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.ServeTLS(ln, "", ""); !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("fake cloud: %v", err)
		}
	})
	tb.Cleanup(func() {
		c.mu.Lock()
		c.closing = true
		c.mu.Unlock()
		srv.Close()
		c.Cut() // hijacked connections are not the server's any more
		c.running.Wait()
		wg.Wait()
		c.closeSeats()
		c.media.close()
	})
	return c
}

// Addr is where scheduler, signaling and log collector listen.
func (c *Cloud) Addr() netip.AddrPort { return c.addr }

// MediaAddr is where the media server listens, UDP.
func (c *Cloud) MediaAddr() netip.AddrPort { return c.media.addr }

// CA is the certificate of the authority that signed the cloud's certificate.
// Servers send it as part of their chain.
func (c *Cloud) CA() *x509.Certificate { return c.ca.cert }

// CAPEM is CA in PEM.
func (c *Cloud) CAPEM() []byte { return c.ca.pem }

// Issue makes a certificate for other servers of the test, by the same
// authority. Names may be host names and IP addresses.
func (c *Cloud) Issue(names ...string) (certPEM, keyPEM []byte) {
	c.tb.Helper()
	certPEM, keyPEM, err := c.ca.issuePEM(names)
	if err != nil {
		c.tb.Fatalf("certificate for %v: %v", names, err)
	}
	return certPEM, keyPEM
}

// SetSchedule replaces what the scheduler answers.
func (c *Cloud) SetSchedule(s Schedule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.schedule = s
}

// SetLogStatus makes the log collector answer with the status (readable by the
// page, CORS header included); 0 is normal service.
func (c *Cloud) SetLogStatus(status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.logStatus = status
}

// Refuse makes the signaling service answer every handshake with 503.
func (c *Cloud) Refuse(refuse bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuse = refuse
}

// Cut drops every signaling connection without a close frame, as a network
// does, and returns how many there were. Rooms and media stay.
func (c *Cloud) Cut() int {
	c.mu.Lock()
	cut := make([]*socket, 0, len(c.sockets))
	for s := range c.sockets {
		cut = append(cut, s)
	}
	c.mu.Unlock()
	for _, s := range cut {
		s.drop()
	}
	return len(cut)
}

func (c *Cloud) serve(w http.ResponseWriter, r *http.Request) {
	req := Request{
		Time:   time.Now(),
		Method: r.Method,
		Target: r.RequestURI,
		Path:   r.URL.Path,
		Query:  r.URL.RawQuery,
		Host:   r.Host,
		Header: r.Header.Clone(),
		Remote: r.RemoteAddr,
	}
	if r.TLS != nil {
		req.SNI = r.TLS.ServerName
	}
	c.recorder.add(func(s *State) { s.Requests = append(s.Requests, req) })
	if !known(req) {
		http.Error(w, "no such host here", http.StatusMisdirectedRequest)
		return
	}
	// The raw path decides: "/logger//v5/..." arriving here is a defect of
	// whoever forwarded it, and must not be repaired silently.
	switch r.URL.EscapedPath() {
	case SchedulePath:
		c.serveSchedule(w, r)
	case LogPath:
		c.serveLog(w, r)
	case "/", SignalPath:
		c.serveSignal(w, r, req)
	default:
		http.NotFound(w, r)
	}
}

// known reports whether the request is for a host of the cloud, by the same name
// in TLS and in HTTP.
func known(r Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" || host == "127.0.0.1" {
		return true
	}
	if r.SNI != host {
		return false
	}
	return slices.ContainsFunc(Names, func(name string) bool {
		if suffix, ok := strings.CutPrefix(name, "*"); ok {
			label, found := strings.CutSuffix(host, suffix)
			return found && label != "" && !strings.Contains(label, ".")
		}
		return host == name
	})
}
