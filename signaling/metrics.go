package signaling

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the collectors of one Server.
type metrics struct {
	handshakes *prometheus.CounterVec // route, result
	failures   *prometheus.CounterVec // route, cause
	closes     *prometheus.CounterVec // route, reason
	schedules  *prometheus.CounterVec // result
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
		schedules: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_schedules_total", Help: "Requests to the TRTC scheduler, by result.",
		}, []string{"result"}),
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

// Collectors returns the metrics for the caller to register, once per Server.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return append([]prometheus.Collector{m.handshakes, m.failures, m.closes, m.schedules, m.phases}, m.sampled...)
}
