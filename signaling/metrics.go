package signaling

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the collectors of one Server that entry has not.
type metrics struct {
	codes     *prometheus.CounterVec // from, code
	schedules *prometheus.CounterVec // result
	sampled   []prometheus.Collector // read from the sessions
}

func newMetrics(s *Server) *metrics {
	bytes := func(direction string, value func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "turngate_signaling_bytes_total", Help: "Bytes carried, by direction.",
			ConstLabels: prometheus.Labels{"direction": direction},
		}, value)
	}
	return &metrics{
		codes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_close_codes_total", Help: "Close frames that passed, by sender and code; 3xxx and 4xxx are the codes of libraries and applications.",
		}, []string{"from", "code"}),
		schedules: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_signaling_schedules_total", Help: "Requests to the TRTC scheduler, by result.",
		}, []string{"result"}),
		sampled: []prometheus.Collector{
			bytes("upstream", func() float64 { up, _ := s.bytes(); return float64(up) }),
			bytes("client", func() float64 { _, down := s.bytes(); return float64(down) }),
		},
	}
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
	return append(append(s.Server.Collectors(), s.metrics.codes, s.metrics.schedules), s.metrics.sampled...)
}
