package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/turngate/turngate/internal/pages"
)

// listenStatus serves the status page. Its addresses are loopback ones.
func (a *app) listenStatus(addr string) (*sideListener, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &sideListener{ln, &http.Server{
		Handler:           pages.NewStatus(a.recorder, func() any { return a.status() }),
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}}, nil
}

// sample returns the numbers that the status page draws, nil while there is none.
func (a *app) sample() map[string]float64 {
	p := a.plan.Load()
	if p == nil || p.cfg.Admin.Status.IsZero() {
		return nil
	}
	n := map[string]float64{
		"connections": float64(a.httpsCaps.Open() + a.turnCaps.Open()),
		"websockets":  float64(a.webSockets()),
		"allocations": float64(a.turn.Allocations()),
		"bans":        float64(len(a.turn.Bans())),
	}
	families, _ := a.registry.Gather() // a collector that fails hides no other
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			if name := sampledAs(f.GetName(), labels); name != "" {
				n[name] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return n
}

// sampledAs names the graph that a metric belongs to, "" for none.
func sampledAs(metric string, labels map[string]string) string {
	switch metric {
	case "turngate_turn_bytes_total":
		return "relay_" + labels["direction"] // "up" from clients, "down" to them
	case "turngate_signaling_bytes_total":
		if labels["direction"] == "upstream" {
			return "web_up"
		}
		return "web_down"
	case "turngate_signaling_upstream_failures_total", "turngate_logger_upstream_failures_total", "turngate_inspect_upstream_failures_total":
		return "upstream_failures"
	case "turngate_turn_requests_total":
		switch labels["code"] {
		case "0", "300", "401", "438": // good ones, and steps on the way to one
			return ""
		}
		return "turn_refusals"
	case "turngate_turn_auth_failures_total":
		return "wrong_passwords"
	case "turngate_https_limit_hits_total", "turngate_turn_limit_hits_total":
		return "limit_hits"
	case "turngate_logger_requests_total":
		return "reports"
	case "turngate_logger_spool_reports":
		return "spool"
	case "process_cpu_seconds_total":
		return "cpu"
	case "process_resident_memory_bytes":
		return "memory"
	}
	return ""
}
