package acme

import "github.com/prometheus/client_golang/prometheus"

// Metrics are the collectors of all Managers of a process; it is itself a
// prometheus.Collector and is registered once.
type Metrics struct {
	Orders   *prometheus.CounterVec // by result
	Failures *prometheus.GaugeVec   // by name, which the operator chose
}

// NewMetrics returns unregistered collectors.
func NewMetrics() *Metrics {
	m := &Metrics{
		Orders: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_acme_orders_total", Help: "Certificates ordered from the ACME server, by result.",
		}, []string{"result"}),
		Failures: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "turngate_acme_failures", Help: "Orders for a name that failed since the last good one.",
		}, []string{"name"}),
	}
	for _, result := range []string{"ok", "failed"} {
		m.Orders.WithLabelValues(result)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	m.Orders.Describe(ch)
	m.Failures.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.Orders.Collect(ch)
	m.Failures.Collect(ch)
}
