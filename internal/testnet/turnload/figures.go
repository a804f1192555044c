package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// server is the turngate under load, seen from outside.
type server struct {
	socket string
	pid    int
}

// figures are what must come back.
type figures struct {
	rss         int64 // bytes
	heap        int64 // bytes that live after a garbage collection
	goroutines  int64
	descriptors int64
	allocations int64
	taken       int64 // ports
	connections int64
}

func (f figures) String() string {
	return fmt.Sprintf("RSS %.1f MiB, live heap %.1f MiB, %d goroutines, %d descriptors, %d allocations, %d ports taken, %d TURN connections",
		float64(f.rss)/(1<<20), float64(f.heap)/(1<<20), f.goroutines, f.descriptors, f.allocations, f.taken, f.connections)
}

func (f figures) highest(o figures) figures {
	return figures{
		max(f.rss, o.rss), max(f.heap, o.heap), max(f.goroutines, o.goroutines), max(f.descriptors, o.descriptors),
		max(f.allocations, o.allocations), max(f.taken, o.taken), max(f.connections, o.connections),
	}
}

// slack is what may differ at the end: pools, tables that keep their size, and
// the connection that asks.
const (
	slackHeap        = 16 << 20
	slackGoroutines  = 8
	slackDescriptors = 4
)

// settled waits until the server is back where it began, and says what is not
// when it takes too long.
func (s *server) settled(start figures, within time.Duration) (figures, error) {
	deadline := time.Now().Add(within)
	for {
		now, err := s.look()
		if err == nil {
			err = now.differsFrom(start)
		}
		if err == nil || time.Now().After(deadline) {
			return now, err
		}
		time.Sleep(5 * time.Second)
	}
}

func (f figures) differsFrom(start figures) error {
	var errs []error
	for _, v := range []struct {
		name              string
		got, start, slack int64
	}{
		{"bytes of live heap", f.heap, start.heap, slackHeap},
		{"goroutines", f.goroutines, start.goroutines, slackGoroutines},
		{"descriptors", f.descriptors, start.descriptors, slackDescriptors},
		{"allocations", f.allocations, start.allocations, 0},
		{"ports taken", f.taken, start.taken, 0},
		{"TURN connections", f.connections, start.connections, 0},
	} {
		if v.got > v.start+v.slack {
			errs = append(errs, fmt.Errorf("%d %s, %d at the start", v.got, v.name, v.start))
		}
	}
	return errors.Join(errs...)
}

// look reads the figures, after a garbage collection of the server.
func (s *server) look() (f figures, err error) {
	heap, err := s.get("/debug/pprof/heap?gc=1")
	if err != nil {
		return f, err
	}
	_, _ = io.Copy(io.Discard, heap)
	heap.Close()
	body, err := s.get("/metrics")
	if err != nil {
		return f, err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		n, err := strconv.ParseFloat(value, 64)
		if !ok || err != nil {
			continue
		}
		bare, labels, _ := strings.Cut(name, "{")
		switch {
		case bare == "go_memstats_alloc_bytes":
			f.heap = int64(n)
		case bare == "go_goroutines":
			f.goroutines = int64(n)
		case bare == "turngate_turn_allocations":
			f.allocations += int64(n)
		case bare == "turngate_turn_ports" && strings.Contains(labels, `state="taken"`):
			f.taken += int64(n)
		case bare == "turngate_turn_connections":
			f.connections += int64(n)
		}
	}
	if err := lines.Err(); err != nil {
		return f, err
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.pid))
	if err != nil {
		return f, err
	}
	f.descriptors = int64(len(fds))
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.pid))
	if err != nil {
		return f, err
	}
	fields := strings.Fields(string(statm))
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	f.rss = pages * int64(os.Getpagesize())
	return f, err
}

func (s *server) get(path string) (io.ReadCloser, error) {
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", s.socket)
		},
	}}
	res, err := client.Get("http://turngate" + path)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, errors.New(path + ": " + res.Status)
	}
	return res.Body, nil
}
