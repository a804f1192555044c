package accesslog

import "github.com/prometheus/client_golang/prometheus"

// Collectors returns the metrics for the caller to register, once per Log.
func (l *Log) Collectors() []prometheus.Collector {
	lost := func(reason string, value func() uint64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "turngate_access_log_lost_total", Help: "Lines of the access log that were not written: the queue was full, or the write failed.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(value()) })
	}
	return []prometheus.Collector{
		prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "turngate_access_log_lines_total", Help: "Lines of the access log that were written.",
		}, func() float64 { return float64(l.written.Load()) }),
		lost("queue", l.full.Load),
		lost("write", l.failed.Load),
	}
}
