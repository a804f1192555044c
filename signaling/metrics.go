package signaling

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the collectors of one Server.
type metrics struct {
	handshakes *prometheus.CounterVec // route, result
	failures   *prometheus.CounterVec // route, cause
	closes     *prometheus.CounterVec // route, reason
	codes      *prometheus.CounterVec // from, code
	schedules  *prometheus.CounterVec // result
	checks     *prometheus.CounterVec // route, result
	phases     *prometheus.HistogramVec
	sampled    []prometheus.Collector // read from the registry
}

func newMetrics(g *registry) *metrics {
	bytes := func(direction string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "turngate_signaling_bytes_total", Help: "Bytes carried, by direction.",
			ConstLabels: prometheus.Labels{"direction": direction},
		}, value)
	}
	return &metrics{
		handshakes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_handshakes_total", Help: "WebSocket handshakes and refused requests, by route and result.",
		}, []string{"route", "result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_upstream_failures_total", Help: "Attempts on an upstream that got no answer, by route and cause.",
		}, []string{"route", "cause"}),
		closes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_closes_total", Help: "Sessions ended, by route and reason.",
		}, []string{"route", "reason"}),
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_close_codes_total", Help: "Close frames that passed, by sender and code; 3xxx and 4xxx are the codes of libraries and applications.",
		}, []string{"from", "code"}),
		schedules: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_schedules_total", Help: "Requests to the TRTC scheduler, by result.",
		}, []string{"result"}),
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_upstream_checks_total", Help: "Active checks of upstreams, by route and result: ok or the cause of the failure.",
		}, []string{"route", "result"}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "turngate_signaling_upstream_seconds", Help: "Time of the phases dial, tls and answer of a handshake with an upstream.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"phase"}),
		sampled: []prometheus.Collector{
			prometheus.NewGaugeFunc(prometheus.GaugeOpts{
				Name: "turngate_signaling_sessions", Help: "Open WebSocket sessions.",
			}, func() float64 { return float64(g.count()) }),
			bytes("upstream", func() float64 { up, _ := g.bytes(); return float64(up) }),
			bytes("client", func() float64 { _, down := g.bytes(); return float64(down) }),
		},
	}
}

func (m *metrics) phase(name string, d time.Duration) {
	m.phases.WithLabelValues(name).Observe(d.Seconds())
}

// closeCode counts the code of a Close frame, 0 for none, under a label that clients
// cannot choose freely: RFC 6455 section 7.4.
func (m *metrics) closeCode(from string, code uint16) {
	label := "other"
	switch {
	case code == 0:
		return
	case code >= 1000 && code <= 1015:
		label = strconv.Itoa(int(code))
	case code/1000 == 3, code/1000 == 4:
		label = strconv.Itoa(int(code/1000)) + "xxx"
	}
	m.codes.WithLabelValues(from, label).Inc()
}

// Collectors returns the metrics for the caller to register, once per Server.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return append([]prometheus.Collector{m.handshakes, m.failures, m.closes, m.codes, m.schedules, m.checks, m.phases, upstreamStates{s}}, m.sampled...)
}

// upstreamStates reads the state of the upstreams when it is asked for.
type upstreamStates struct{ s *Server }

var (
	upstreamUp = prometheus.NewDesc("turngate_signaling_upstream_up",
		"1 while an upstream can be used, 0 while it is out; nothing for one that is switched off.", []string{"route", "upstream", "backup"}, nil)
	upstreamOpen = prometheus.NewDesc("turngate_signaling_upstream_connections",
		"Connections to an upstream, open and being opened.", []string{"route", "upstream", "backup"}, nil)
)

func (upstreamStates) Describe(ch chan<- *prometheus.Desc) {
	ch <- upstreamUp
	ch <- upstreamOpen
}

func (c upstreamStates) Collect(ch chan<- prometheus.Metric) {
	for _, u := range c.s.Upstreams() {
		labels := []string{u.Route, u.Upstream, strconv.FormatBool(u.Backup)}
		if u.Weight > 0 {
			up := 0.0
			if u.Up {
				up = 1
			}
			ch <- prometheus.MustNewConstMetric(upstreamUp, prometheus.GaugeValue, up, labels...)
		}
		ch <- prometheus.MustNewConstMetric(upstreamOpen, prometheus.GaugeValue, float64(u.Connections), labels...)
	}
}
