package inspect

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the collectors of one Server that entry has not.
type metrics struct {
	messages   *prometheus.CounterVec   // route, direction
	bytes      *prometheus.CounterVec   // route, direction
	verdicts   *prometheus.CounterVec   // route, direction, verdict
	hookErrors *prometheus.CounterVec   // route, direction, cause
	hookTime   *prometheus.HistogramVec // route, direction
	hookCalls  *prometheus.GaugeVec     // route, direction

	sampled []prometheus.Collector
}

func newMetrics(s *Server) *metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "turngate_inspect_" + name, Help: help}, labels)
	}
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15}
	return &metrics{
		messages:   counter("messages_total", "Messages read, by route and direction.", "route", "direction"),
		bytes:      counter("message_bytes_total", "Payload bytes of messages read, by route and direction.", "route", "direction"),
		verdicts:   counter("verdicts_total", "Verdicts of hooks, by route and direction; failed is a message without one.", "route", "direction", "verdict"),
		hookErrors: counter("hook_errors_total", "Hook requests without a verdict, by route, direction and cause.", "route", "direction", "cause"),
		hookTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "turngate_inspect_hook_seconds", Help: "Time of hook requests.", Buckets: buckets,
		}, []string{"route", "direction"}),
		hookCalls: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "turngate_inspect_hook_calls", Help: "Hook requests under way.",
		}, []string{"route", "direction"}),
		sampled: []prometheus.Collector{
			&breakers{&s.gates, prometheus.NewDesc("turngate_inspect_hook_breakers_open",
				"Hooks in use that are not asked at the moment because they failed too often.", []string{"route", "direction"}, nil)},
		},
	}
}

// flowCounters are those of one direction of a route, looked up once.
type flowCounters struct {
	messages, bytes prometheus.Counter
	verdict         func(verdict)
}

func (m *metrics) flow(route, direction string) flowCounters {
	return flowCounters{
		messages: m.messages.WithLabelValues(route, direction),
		bytes:    m.bytes.WithLabelValues(route, direction),
		verdict:  func(v verdict) { m.verdicts.WithLabelValues(route, direction, string(v)).Inc() },
	}
}

type hookCounters struct {
	calls   prometheus.Gauge
	seconds prometheus.Observer
	errors  func(cause string)
}

func (m *metrics) hook(route, direction string) *hookCounters {
	return &hookCounters{
		calls:   m.hookCalls.WithLabelValues(route, direction),
		seconds: m.hookTime.WithLabelValues(route, direction),
		errors:  func(cause string) { m.hookErrors.WithLabelValues(route, direction, cause).Inc() },
	}
}

// breakers counts the open ones when asked.
type breakers struct {
	gates *gates
	desc  *prometheus.Desc
}

func (b *breakers) Describe(to chan<- *prometheus.Desc) { to <- b.desc }

func (b *breakers) Collect(to chan<- prometheus.Metric) {
	for k, n := range b.gates.openBreakers() {
		to <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, float64(n), k[0], k[1])
	}
}

// Collectors returns the metrics for the caller to register, once per Server.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return append(append(s.Server.Collectors(), m.messages, m.bytes, m.verdicts, m.hookErrors, m.hookTime, m.hookCalls), m.sampled...)
}
