package main

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/turngate/turngate/internal/admin"
)

// sideListener serves plain HTTP beside the doors.
type sideListener struct {
	net.Listener
	server *http.Server
}

// listenMetrics serves the metrics over plain HTTP for a Prometheus that cannot
// read the admin socket. It shows nothing else.
func listenMetrics(addr string, from prometheus.Gatherer) (*sideListener, error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux() // our own path: nothing is proxied here
	mux.Handle("GET "+admin.PathMetrics, admin.MetricsHandler(from))
	return &sideListener{ln, &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}}, nil
}
