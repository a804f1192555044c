package edge

import (
	"github.com/prometheus/client_golang/prometheus"
)

// kind is what a connection turned out to be, as metrics name it.
type kind string

const (
	kindHTTPS   kind = "https"
	kindTURNTLS kind = "turn_tls"
	kindTURNTCP kind = "turn_tcp"
)

var kinds = []kind{kindHTTPS, kindTURNTLS, kindTURNTCP}

// reason is why a connection was not handed over, as metrics name it.
type reason string

const (
	tooManyConns            reason = "connections"           // Caps.Conns
	tooManyConnsOfSource    reason = "source_connections"    // Caps.ConnsPerSource
	tooManyHalfOpen         reason = "half_open"             // Caps.HalfOpen
	tooManyHalfOpenOfSource reason = "source_half_open"      // Caps.HalfOpenPerSource
	tooFast                 reason = "source_handshakes"     // Caps.HandshakesPerSource
	badProxyHeader          reason = "proxy_header"          // listed source, bad or no PROXY header
	unlistedProxyHeader     reason = "proxy_header_unlisted" // PROXY header, source not listed
	timedOut                reason = "timeout"               // Timeouts.Prove is over
	wentAway                reason = "closed_by_peer"        // before it had proved itself
	plainHTTP               reason = "plain_http"            // HTTP without TLS
	notOurs                 reason = "unknown_protocol"      // first bytes of nothing we serve
	badHandshake            reason = "tls_handshake"         // failed, also for want of a common ALPN protocol
	challenged              reason = "acme_challenge"        // answered: RFC 8737 ends there
	nobodyTakes             reason = "not_served"            // HTTP side closed, or not served here
	shuttingDown            reason = "listener_closed"       // cut by Close
	panicked                reason = "panic"                 // a bug, logged
)

var reasons = []reason{
	tooManyConns, tooManyConnsOfSource, tooManyHalfOpen, tooManyHalfOpenOfSource, tooFast,
	badProxyHeader, unlistedProxyHeader, timedOut, wentAway, plainHTTP, notOurs,
	badHandshake, challenged, nobodyTakes, shuttingDown, panicked,
}

// Metrics are the collectors of all listeners; it is itself a
// prometheus.Collector and is registered once.
type Metrics struct {
	Accepted     *prometheus.CounterVec // by listen
	AcceptErrors *prometheus.CounterVec // by listen
	Connections  *prometheus.CounterVec // handed over, by listen and kind
	Rejected     *prometheus.CounterVec // by listen and reason
	Open         *prometheus.GaugeVec   // handed over and open, by listen and kind
	HalfOpen     *prometheus.GaugeVec   // not handed over yet, by listen
	Proving      prometheus.Histogram   // accept to handing over
}

// NewMetrics returns unregistered collectors.
func NewMetrics() *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "turngate", Subsystem: "edge", Name: name, Help: help,
		}, append([]string{"listen"}, labels...))
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "turngate", Subsystem: "edge", Name: name, Help: help,
		}, append([]string{"listen"}, labels...))
	}
	return &Metrics{
		Accepted:     counter("accepted_total", "TCP connections accepted."),
		AcceptErrors: counter("accept_errors_total", "Times accept failed and paused, for example for want of descriptors."),
		Connections:  counter("connections_total", "Connections that proved what they are and were handed over.", "kind"),
		Rejected:     counter("rejected_total", "Connections closed before they were handed over.", "reason"),
		Open:         gauge("open_connections", "Connections handed over and still open.", "kind"),
		HalfOpen:     gauge("half_open_connections", "Connections that have not proved what they are yet."),
		Proving: prometheus.NewHistogram(prometheus.HistogramOpts{
			Namespace: "turngate", Subsystem: "edge", Name: "proving_seconds",
			Help:    "Time from accept until a connection was handed over: PROXY header, TLS handshake and first bytes.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.Accepted, m.AcceptErrors, m.Connections, m.Rejected, m.Open, m.HalfOpen, m.Proving}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, c := range m.all() {
		c.Describe(ch)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for _, c := range m.all() {
		c.Collect(ch)
	}
}

// listenCounters are the collectors of one listening address with their labels
// looked up: a flood of connections then costs additions only.
type listenCounters struct {
	accepted, acceptErrors prometheus.Counter
	halfOpen               prometheus.Gauge
	connections            map[kind]prometheus.Counter
	open                   map[kind]prometheus.Gauge
	rejected               map[reason]prometheus.Counter
	proving                prometheus.Observer
}

func (m *Metrics) listen(addr string) *listenCounters {
	c := &listenCounters{
		accepted:     m.Accepted.WithLabelValues(addr),
		acceptErrors: m.AcceptErrors.WithLabelValues(addr),
		halfOpen:     m.HalfOpen.WithLabelValues(addr),
		connections:  make(map[kind]prometheus.Counter),
		open:         make(map[kind]prometheus.Gauge),
		rejected:     make(map[reason]prometheus.Counter),
		proving:      m.Proving,
	}
	for _, k := range kinds {
		c.connections[k] = m.Connections.WithLabelValues(addr, string(k))
		c.open[k] = m.Open.WithLabelValues(addr, string(k))
	}
	for _, r := range reasons {
		c.rejected[r] = m.Rejected.WithLabelValues(addr, string(r))
	}
	return c
}

// certificateMetrics reads the state of Certificates when it is scraped.
type certificateMetrics struct {
	certs            *Certificates
	notAfter, failed *prometheus.Desc
}

// CertificateMetrics returns a collector for the expiry and health of certs.
func CertificateMetrics(certs *Certificates) prometheus.Collector {
	return &certificateMetrics{
		certs: certs,
		notAfter: prometheus.NewDesc("turngate_certificate_not_after_seconds",
			"Expiry of the certificate being served, in Unix time.", []string{"cert"}, nil),
		failed: prometheus.NewDesc("turngate_certificate_load_failed",
			"1 while the files on disk cannot be loaded and an older pair is served.", []string{"cert"}, nil),
	}
}

func (m *certificateMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.notAfter
	ch <- m.failed
}

func (m *certificateMetrics) Collect(ch chan<- prometheus.Metric) {
	for _, s := range m.certs.State() {
		failed := 0.0
		if s.Error != "" {
			failed = 1
		}
		ch <- prometheus.MustNewConstMetric(m.notAfter, prometheus.GaugeValue, float64(s.NotAfter.Unix()), s.Cert)
		ch <- prometheus.MustNewConstMetric(m.failed, prometheus.GaugeValue, failed, s.Cert)
	}
}
