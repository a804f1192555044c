package entry

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/internal/proxy"
)

// metrics are the collectors that every room has under names of its own.
type metrics struct {
	handshakes *prometheus.CounterVec // route, result
	failures   *prometheus.CounterVec // route, cause
	closes     *prometheus.CounterVec // route, reason
	checks     *prometheus.CounterVec // route, result
	phases     *prometheus.HistogramVec

	sessions        prometheus.Collector
	up, connections *prometheus.Desc
}

func newMetrics(room, kind string, sessions func() float64) *metrics {
	name := func(s string) string { return "turngate_" + room + "_" + s }
	counter := func(s, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name(s), Help: help}, labels)
	}
	perUpstream := func(s, help string) *prometheus.Desc {
		return prometheus.NewDesc(name(s), help, []string{"route", "upstream", "backup"}, nil)
	}
	return &metrics{
		handshakes: counter("handshakes_total", "Handshakes for "+kind+" sessions and refused requests, by route and result.", "route", "result"),
		failures:   counter("upstream_failures_total", "Attempts on an upstream that got no answer, by route and cause.", "route", "cause"),
		closes:     counter("closes_total", "Ended "+kind+" sessions, by route and reason.", "route", "reason"),
		checks:     counter("upstream_checks_total", "Active checks of upstreams, by route and result: ok or the cause of the failure.", "route", "result"),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name("upstream_seconds"), Help: "Time of the phases dial, tls and answer of a handshake with an upstream.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"phase"}),
		sessions: prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name("sessions"), Help: "Open " + kind + " sessions."}, sessions),
		up: perUpstream("upstream_up",
			"1 while an upstream can be used, 0 while it is out; nothing for one that is switched off."),
		connections: perUpstream("upstream_connections", "Connections to an upstream, open and being opened."),
	}
}

func (m *metrics) phase(name string, d time.Duration) {
	m.phases.WithLabelValues(name).Observe(d.Seconds())
}

// AttemptFailed counts an attempt on an upstream that got no answer.
func (s *Server[S]) AttemptFailed(route string, cause proxy.Cause) {
	s.metrics.failures.WithLabelValues(route, string(cause)).Inc()
}

// Answered counts a handshake whose client is about to get its 101: who has been answered
// finds himself counted.
func (s *Server[S]) Answered(g *Gate) { s.metrics.handshakes.WithLabelValues(g.Name, "ok").Inc() }

// Closed counts the end of a session.
func (s *Server[S]) Closed(route, reason string) {
	s.metrics.closes.WithLabelValues(route, reason).Inc()
}

// Collectors returns the metrics for the caller to register, once per Server. Those of the
// upstreams are read when they are asked for.
func (s *Server[S]) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.handshakes, m.failures, m.closes, m.checks, m.phases, m.sessions, upstreamStates{m, s.Upstreams}}
}

type upstreamStates struct {
	*metrics
	list func() []UpstreamInfo
}

func (c upstreamStates) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.up
	ch <- c.connections
}

func (c upstreamStates) Collect(ch chan<- prometheus.Metric) {
	for _, u := range c.list() {
		labels := []string{u.Route, u.Upstream, strconv.FormatBool(u.Backup)}
		if u.Weight > 0 {
			up := 0.0
			if u.Up {
				up = 1
			}
			ch <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, up, labels...)
		}
		ch <- prometheus.MustNewConstMetric(c.connections, prometheus.GaugeValue, float64(u.Connections), labels...)
	}
}
