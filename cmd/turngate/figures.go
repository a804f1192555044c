package main

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Figures are sums since the start and present amounts, of the metrics. Whoever
// wants rates asks twice.
type Figures struct {
	At time.Time `json:"at"`

	RelayBytesUp     float64 `json:"relay_bytes_up"` // from clients to peers
	RelayBytesDown   float64 `json:"relay_bytes_down"`
	RelayPacketsUp   float64 `json:"relay_packets_up"`
	RelayPacketsDown float64 `json:"relay_packets_down"`
	RelayDropped     float64 `json:"relay_dropped"`
	WebSocketBytes   float64 `json:"websocket_bytes"` // both ways
	Requests         float64 `json:"requests"`        // HTTP, WebSockets that opened among them
	RequestErrors    float64 `json:"request_errors"`  // answered with 5xx
	Reports          float64 `json:"reports"`         // log reports
	AllocationsMade  float64 `json:"allocations_made"`
	AuthFailures     float64 `json:"auth_failures"`
	PeersRefused     float64 `json:"peers_refused"`

	LimitHits map[string]float64 `json:"limit_hits,omitempty"` // by the limit's key
	Spools    map[string]Spool   `json:"spools,omitempty"`     // by route, those that hold something
}

// Spool is what waits on the disk for a log route.
type Spool struct {
	Reports float64 `json:"reports"`
	Bytes   float64 `json:"bytes"`
}

// figures adds up the metrics.
func (a *app) figures() Figures {
	f := Figures{At: time.Now(), LimitHits: make(map[string]float64), Spools: make(map[string]Spool)}
	families, _ := a.registry.Gather() // what could be gathered is there also with an error
	for _, family := range families {
		name := family.GetName()
		for _, m := range family.GetMetric() {
			labels := make(map[string]string, 4)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			f.add(name, labels, m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	return f
}

func (f *Figures) add(name string, labels map[string]string, v float64) {
	up := labels["direction"] == "up"
	switch name {
	case "turngate_turn_bytes_total":
		*pick(up, &f.RelayBytesUp, &f.RelayBytesDown) += v
	case "turngate_turn_packets_total":
		*pick(up, &f.RelayPacketsUp, &f.RelayPacketsDown) += v
	case "turngate_turn_relay_dropped_total":
		f.RelayDropped += v
	case "turngate_signaling_bytes_total", "turngate_inspect_message_bytes_total":
		f.WebSocketBytes += v
	case "turngate_https_requests_total":
		f.Requests += v
		if labels["code"] == "5xx" {
			f.RequestErrors += v
		}
	case "turngate_logger_requests_total":
		f.Reports += v
	case "turngate_turn_allocations_total":
		f.AllocationsMade += v
	case "turngate_turn_auth_failures_total":
		f.AuthFailures += v
	case "turngate_turn_refused_peers_total":
		f.PeersRefused += v
	case "turngate_turn_limit_hits_total", "turngate_https_limit_hits_total":
		key := labels["limit"]
		if room, _, _ := strings.Cut(strings.TrimPrefix(name, "turngate_"), "_"); !strings.Contains(key, ".") {
			key = room + ".limits." + key
		}
		if v > 0 {
			f.LimitHits[key] += v
		}
	case "turngate_logger_spool_reports", "turngate_logger_spool_bytes":
		s := f.Spools[labels["route"]]
		if name == "turngate_logger_spool_bytes" {
			s.Bytes = v
		} else {
			s.Reports = v
		}
		if s != (Spool{}) {
			f.Spools[labels["route"]] = s
		}
	}
}

func pick(first bool, a, b *float64) *float64 {
	if first {
		return a
	}
	return b
}

// perSecond is how fast a sum grew between two times.
func perSecond(from, to Figures, of func(Figures) float64) float64 {
	seconds := to.At.Sub(from.At).Seconds()
	if seconds <= 0 {
		return 0
	}
	return max(0, of(to)-of(from)) / seconds
}

// most lists the keys with the largest values first.
func most(m map[string]float64) []string {
	return slices.SortedStableFunc(maps.Keys(m), func(a, b string) int {
		switch {
		case m[a] > m[b] || m[a] == m[b] && a < b:
			return -1
		case m[a] == m[b]:
			return 0
		}
		return 1
	})
}
