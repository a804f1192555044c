package logger

import "github.com/prometheus/client_golang/prometheus"

// metrics are the collectors of one Server.
type metrics struct {
	requests *prometheus.CounterVec   // route, result
	failures *prometheus.CounterVec   // route, cause
	seconds  *prometheus.HistogramVec // route
	phases   *prometheus.HistogramVec // phase

	spooled      *prometheus.CounterVec // route
	replayed     *prometheus.CounterVec // route, result
	spoolDropped *prometheus.CounterVec // route, reason
	spools       *spools
}

func newMetrics(s *spools) *metrics {
	return &metrics{
		spools: s,
		spooled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_logger_spooled_total", Help: "Reports that were kept on the disk because the upstream was away.",
		}, []string{"route"}),
		replayed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_logger_spool_replayed_total", Help: "Kept reports that the upstream has answered, by the class of its status.",
		}, []string{"route", "result"}),
		spoolDropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_logger_spool_dropped_total", Help: "Reports that were not kept (full, disk: the client was told), or not sent (age, damaged).",
		}, []string{"route", "reason"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_logger_requests_total", Help: "Requests by route and result: the class of the upstream's status, or why we refused.",
		}, []string{"route", "result"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_logger_upstream_failures_total", Help: "Attempts on an upstream that got no answer, by route and cause.",
		}, []string{"route", "cause"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "turngate_logger_seconds", Help: "Time from a request's head to the end of its answer, forwarded requests only.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route"}),
		phases: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "turngate_logger_upstream_seconds", Help: "Time of the phases dial and tls of new connections to upstreams, and answer of each request.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"phase"}),
	}
}

var (
	spoolReports = prometheus.NewDesc("turngate_logger_spool_reports", "Reports that wait on the disk.", []string{"route"}, nil)
	spoolBytes   = prometheus.NewDesc("turngate_logger_spool_bytes", "Bytes of the reports that wait on the disk.", []string{"route"}, nil)
)

// Describe implements prometheus.Collector for the depth of the spools.
func (s *spools) Describe(ch chan<- *prometheus.Desc) {
	ch <- spoolReports
	ch <- spoolBytes
}

// Collect implements prometheus.Collector.
func (s *spools) Collect(ch chan<- prometheus.Metric) {
	for route, d := range s.depths() {
		ch <- prometheus.MustNewConstMetric(spoolReports, prometheus.GaugeValue, float64(d.reports), route)
		ch <- prometheus.MustNewConstMetric(spoolBytes, prometheus.GaugeValue, float64(d.bytes), route)
	}
}

// Collectors returns the metrics for the caller to register, once per Server.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.requests, m.failures, m.seconds, m.phases, m.spooled, m.replayed, m.spoolDropped, m.spools}
}
