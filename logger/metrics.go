package logger

import "github.com/prometheus/client_golang/prometheus"

// metrics are the collectors of one Server.
type metrics struct {
	requests *prometheus.CounterVec // route, result
	failures *prometheus.CounterVec // route, cause
	seconds  *prometheus.HistogramVec
}

func newMetrics() *metrics {
	return &metrics{
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
	}
}

// Collectors returns the metrics for the caller to register, once per Server.
func (s *Server) Collectors() []prometheus.Collector {
	return []prometheus.Collector{s.metrics.requests, s.metrics.failures, s.metrics.seconds}
}
