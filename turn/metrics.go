package turn

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/turn/wire"
)

// metrics of the TURN server. No label has values that strangers choose.
type metrics struct {
	allocations  *prometheus.GaugeVec
	allocated    *prometheus.CounterVec
	answers      *prometheus.CounterVec
	authFailures prometheus.Counter
	refusedPeers prometheus.Counter
	dropped      *prometheus.CounterVec
	streams      *prometheus.GaugeVec
	freePorts    prometheus.GaugeFunc
	traffic      *traffic
}

func newMetrics(s *Server) *metrics {
	return &metrics{
		allocations: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "turngate_turn_allocations", Help: "Live allocations.",
		}, []string{"transport", "family"}),
		allocated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_turn_allocations_total", Help: "Allocations made.",
		}, []string{"transport", "family"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_turn_requests_total", Help: "Requests answered, by error code; 0 is success.",
		}, []string{"transport", "method", "code"}),
		authFailures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "turngate_turn_auth_failures_total", Help: "Requests with a good nonce and a wrong credential.",
		}),
		refusedPeers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "turngate_turn_refused_peers_total", Help: "Peers refused with 403.",
		}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_turn_dropped_total", Help: "What came in and was not answered or relayed, by reason.",
		}, []string{"reason"}),
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "turngate_turn_connections", Help: "Open TCP and TLS connections of TURN clients.",
		}, []string{"transport"}),
		freePorts: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "turngate_turn_free_ports", Help: "Relayed ports that can be had.",
		}, func() float64 { return float64(s.FreePorts()) }),
		traffic: &traffic{s: s},
	}
}

// Collectors returns the metrics of the server, to be registered once.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.allocations, m.allocated, m.answers, m.authFailures, m.refusedPeers,
		m.dropped, m.streams, m.freePorts, m.traffic}
}

func (m *metrics) answered(t Transport, method wire.Method, code int) {
	m.answers.WithLabelValues(string(t), method.String(), strconv.Itoa(code)).Inc()
}

func (m *metrics) opened(ses *session) {
	m.allocations.WithLabelValues(string(ses.tuple.transport), family(ses)).Inc()
	m.allocated.WithLabelValues(string(ses.tuple.transport), family(ses)).Inc()
}

func (m *metrics) closed(ses *session) {
	m.allocations.WithLabelValues(string(ses.tuple.transport), family(ses)).Dec()
	m.traffic.add(ses)
}

func family(ses *session) string {
	if ses.relay.Relayed().Addr().Is6() {
		return "ipv6"
	}
	return "ipv4"
}

// traffic sums what the relays carried when it is asked: the counters of the
// live ones, which the packet path keeps, and of those that have ended.
type traffic struct {
	s     *Server
	ended carried // guarded by s.mu
}

type carried struct{ packets, bytes, dropped [2]uint64 } // up, down

func (c *carried) add(ses *session) {
	st := ses.relay.Stats()
	c.packets[0] += st.PacketsUp.Load()
	c.packets[1] += st.PacketsDown.Load()
	c.bytes[0] += st.BytesUp.Load()
	c.bytes[1] += st.BytesDown.Load()
	c.dropped[0] += st.DroppedUp.Load() + st.FailedUp.Load()
	c.dropped[1] += st.DroppedDown.Load() + st.FailedDown.Load()
}

// add keeps the counters of a session that ends. s.mu is held.
func (t *traffic) add(ses *session) { t.ended.add(ses) }

var (
	packetsDesc = prometheus.NewDesc("turngate_turn_packets_total", "Datagrams relayed; up is client to peer.", []string{"direction"}, nil)
	bytesDesc   = prometheus.NewDesc("turngate_turn_bytes_total", "Payload relayed; up is client to peer.", []string{"direction"}, nil)
	lostDesc    = prometheus.NewDesc("turngate_turn_relay_dropped_total", "Datagrams not relayed: no permission, no channel, refused by the socket.", []string{"direction"}, nil)
)

// Describe implements prometheus.Collector.
func (t *traffic) Describe(ch chan<- *prometheus.Desc) {
	ch <- packetsDesc
	ch <- bytesDesc
	ch <- lostDesc
}

// Collect implements prometheus.Collector.
func (t *traffic) Collect(ch chan<- prometheus.Metric) {
	t.s.mu.Lock()
	sum := t.ended
	for _, ses := range t.s.sessions {
		sum.add(ses)
	}
	t.s.mu.Unlock()
	for i, direction := range []string{"up", "down"} {
		ch <- prometheus.MustNewConstMetric(packetsDesc, prometheus.CounterValue, float64(sum.packets[i]), direction)
		ch <- prometheus.MustNewConstMetric(bytesDesc, prometheus.CounterValue, float64(sum.bytes[i]), direction)
		ch <- prometheus.MustNewConstMetric(lostDesc, prometheus.CounterValue, float64(sum.dropped[i]), direction)
	}
}
