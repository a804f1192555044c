package turn

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/turn/relay"
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
	lookups      *prometheus.CounterVec
	lookupTime   *prometheus.HistogramVec
	moves        prometheus.Counter
	traffic      *traffic
}

// dropReasons are why a message of a client is not answered. All of them are
// there from the start, so that the first of a kind is a change already.
var dropReasons = []string{"malformed", "fingerprint", "response", "method", "budget", "banned", "no allocation",
	"no channel", "peer", "framing", "stream timeout", "retransmission", "panic"}

func newMetrics(s *Server) *metrics {
	m := &metrics{
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
		moves: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "turngate_turn_moves_total", Help: "Allocations that their clients took to another address (RFC 8016).",
		}),
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "turngate_turn_lookups_total", Help: "Users and secrets looked up in databases, by what came of it; cached needs no question.",
		}, []string{"database", "outcome"}),
		lookupTime: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "turngate_turn_lookup_seconds", Help: "How long databases took to answer.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"database"}),
	}
	for _, reason := range dropReasons {
		m.dropped.WithLabelValues(reason)
	}
	for _, t := range []Transport{UDP, TCP, TLS} {
		m.allocations.WithLabelValues(string(t), "ipv4")
		if t != UDP {
			m.streams.WithLabelValues(string(t))
		}
	}
	return m
}

// looked counts a lookup. took is of one that a database was asked for.
func (m *metrics) looked(d *directory, outcome string, took time.Duration) {
	m.lookups.WithLabelValues(d.Name, outcome).Inc()
	if took > 0 {
		m.lookupTime.WithLabelValues(d.Name).Observe(took.Seconds())
	}
}

// Collectors returns the metrics of the server, to be registered once.
func (s *Server) Collectors() []prometheus.Collector {
	m := s.metrics
	return []prometheus.Collector{m.allocations, m.allocated, m.answers, m.authFailures, m.refusedPeers,
		m.dropped, m.streams, m.freePorts, m.traffic, m.lookups, m.lookupTime, m.moves}
}

func (m *metrics) answered(t Transport, method wire.Method, code int) {
	m.answers.WithLabelValues(string(t), method.String(), strconv.Itoa(code)).Inc()
}

func (m *metrics) opened(ses *session) {
	transport := string(ses.at.Load().tuple.transport)
	m.allocations.WithLabelValues(transport, family(ses)).Inc()
	m.allocated.WithLabelValues(transport, family(ses)).Inc()
}

func (m *metrics) closed(ses *session) {
	m.allocations.WithLabelValues(string(ses.at.Load().tuple.transport), family(ses)).Dec()
	m.traffic.add(ses)
}

// moved is told when a client goes on over another transport.
func (m *metrics) moved(ses *session, from, to Transport) {
	m.allocations.WithLabelValues(string(from), family(ses)).Dec()
	m.allocations.WithLabelValues(string(to), family(ses)).Inc()
}

func family(ses *session) string {
	switch {
	case len(ses.legs) == 2:
		return "both"
	case ses.legs[0].v6():
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

// carried counts in both directions, up first.
type carried struct {
	packets, bytes                        [2]uint64
	unpermitted, limited, overruns        [2]uint64
	toPeer, toClient, queue, unknownTuple uint64 // toPeer and toClient: refused by the system
}

func (c *carried) add(ses *session) {
	for _, l := range ses.legs {
		l.carriedInKernel()
		c.addStats(l.relay.Stats())
		c.overruns[1] += l.relay.Overruns()
	}
}

func (c *carried) addStats(st *relay.Stats) {
	for i, up := range []bool{true, false} {
		pick := func(u, d *atomic.Uint64) uint64 {
			if up {
				return u.Load()
			}
			return d.Load()
		}
		c.packets[i] += pick(&st.PacketsUp, &st.PacketsDown)
		c.bytes[i] += pick(&st.BytesUp, &st.BytesDown)
		c.unpermitted[i] += pick(&st.DroppedUp, &st.DroppedDown)
		c.limited[i] += pick(&st.LimitedUp, &st.LimitedDown)
	}
	c.toPeer += st.FailedUp.Load()
}

// add keeps the counters of a session that ends. s.mu is held.
func (t *traffic) add(ses *session) { t.ended.add(ses) }

var (
	packetsDesc = prometheus.NewDesc("turngate_turn_packets_total", "Datagrams relayed; up is client to peer.", []string{"direction"}, nil)
	bytesDesc   = prometheus.NewDesc("turngate_turn_bytes_total", "Payload relayed; up is client to peer.", []string{"direction"}, nil)
	lostDesc    = prometheus.NewDesc("turngate_turn_relay_dropped_total", "Datagrams not relayed. permission: no permission or channel; "+
		"socket: refused by the system; bandwidth: over a limit of bytes a second; queue: too old or too many for a TCP or TLS client; "+
		"kernel: the receive buffer of a socket was full; allocation: from a client without one; away: to a client whose connection is lost and who may come back.", []string{"direction", "reason"}, nil)
	limitDesc  = prometheus.NewDesc("turngate_turn_limit_hits_total", "Requests refused, or datagrams dropped, by a limit; named as its key in the configuration.", []string{"limit"}, nil)
	portsDesc  = prometheus.NewDesc("turngate_turn_ports", "Relayed ports. resting: given back not long ago, free if need be; busy: held by other programs.", []string{"state", "family"}, nil)
	bansDesc   = prometheus.NewDesc("turngate_turn_bans", "Sources that are banned now for failed authentications.", nil, nil)
	bansMade   = prometheus.NewDesc("turngate_turn_bans_total", "Bans made.", nil, nil)
	offDesc    = prometheus.NewDesc("turngate_turn_offload_bindings", "Channels that the kernel relays.", nil, nil)
	offPackets = prometheus.NewDesc("turngate_turn_offload_packets_total", "Datagrams that the kernel relayed, which turngate_turn_packets_total counts too.", []string{"direction"}, nil)
	offBytes   = prometheus.NewDesc("turngate_turn_offload_bytes_total", "Payload that the kernel relayed, which turngate_turn_bytes_total counts too.", []string{"direction"}, nil)
	offPassed  = prometheus.NewDesc("turngate_turn_offload_passed_total", "Datagrams of channels in the kernel that it left to user space. length: too long for the next hop; "+
		"neighbour: its address is not known yet; route: through no interface of ours; headroom: the driver left no room for the header.", []string{"reason"}, nil)
	offRefused  = prometheus.NewDesc("turngate_turn_offload_refused_total", "Channels that could not be relayed by the kernel and stay in user space.", nil, nil)
	offAttached = prometheus.NewDesc("turngate_turn_offload_interface_info", "Interfaces on which the kernel relays.", []string{"interface", "mode"}, nil)
	waitingDesc = prometheus.NewDesc("turngate_turn_queued_bytes", "What waits for TCP and TLS clients.", nil, nil)
)

// Describe implements prometheus.Collector.
func (t *traffic) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{packetsDesc, bytesDesc, lostDesc, limitDesc, portsDesc, bansDesc, bansMade, waitingDesc,
		offDesc, offPackets, offBytes, offPassed, offRefused, offAttached} {
		ch <- d
	}
}

func (c *carried) addListener(l *listener) {
	c.toClient += l.udp.Drops()
	c.overruns[0] += l.udp.Overruns()
}

// sum adds the live counters to those of what has ended.
func (t *traffic) sum() (sum carried, waiting int) {
	t.s.mu.Lock()
	defer t.s.mu.Unlock()
	sum = t.ended
	for _, ses := range t.s.sessions {
		sum.add(ses)
	}
	for st := range t.s.streams {
		sum.queue += st.out.Drops()
		waiting += st.out.Waiting()
	}
	for _, l := range t.s.listeners {
		sum.addListener(l)
	}
	for l := range t.s.retired {
		sum.addListener(l)
	}
	sum.unknownTuple = t.s.table.Strays()
	return sum, waiting
}

// Collect implements prometheus.Collector.
func (t *traffic) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	sum, waiting := t.sum()
	status := t.s.Offload()
	gauge(offDesc, status.Bindings)
	counter(offRefused, t.s.kernel.refused.Load())
	for reason, n := range status.Passed {
		counter(offPassed, n, reason)
	}
	for _, name := range status.Interfaces {
		gauge(offAttached, 1, name, string(status.Mode))
	}
	for i, direction := range []string{"up", "down"} {
		counter(packetsDesc, sum.packets[i], direction)
		counter(bytesDesc, sum.bytes[i], direction)
		counter(offPackets, t.s.kernel.packets[i].Load(), direction)
		counter(offBytes, t.s.kernel.bytes[i].Load(), direction)
		counter(lostDesc, sum.unpermitted[i], direction, "permission")
		counter(lostDesc, sum.limited[i], direction, "bandwidth")
		counter(lostDesc, sum.overruns[i], direction, "kernel")
	}
	counter(lostDesc, sum.toPeer, "up", "socket")
	counter(lostDesc, sum.toClient, "down", "socket")
	counter(lostDesc, sum.queue, "down", "queue")
	counter(lostDesc, sum.unknownTuple, "up", "allocation")
	counter(lostDesc, t.s.unreachable.Load(), "down", "away")
	gauge(waitingDesc, waiting)
	for limit := range limitNames {
		counter(limitDesc, t.s.hits[limit].Load(), limit.String())
	}
	set := t.s.settings.Load()
	for i, name := range []string{"ipv4", "ipv6"} {
		if _, ok := set.address(i == 1); !ok {
			continue
		}
		p := t.s.ports.of(i == 1).Stats()
		gauge(portsDesc, p.Free-p.Resting, "free", name)
		gauge(portsDesc, p.Resting, "resting", name)
		gauge(portsDesc, p.Busy, "busy", name)
		gauge(portsDesc, p.Taken, "taken", name)
	}
	gauge(bansDesc, len(t.s.Bans()))
	counter(bansMade, t.s.bans.made.Load())
}
