package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// result is what one step measured.
type result struct {
	Name      string  `json:"name,omitempty"`
	PID       int     `json:"pid,omitempty"`
	Rate      float64 `json:"rate"` // packets a second that were planned
	Seconds   float64 `json:"seconds"`
	Sent      uint64  `json:"sent"`
	Delivered uint64  `json:"delivered"`

	Lost        uint64  `json:"lost"`
	LossShare   float64 `json:"lossShare"`
	Duplicated  uint64  `json:"duplicated"`
	Reordered   uint64  `json:"reordered"`
	Misdirected uint64  `json:"misdirected"` // with the wrong content, or at the wrong place
	Unsent      uint64  `json:"unsent"`      // refused by the generator's kernel; not in Sent
	DroppedHere uint64  `json:"droppedHere"` // lost, but in the generator's own sockets
	Limited     bool    `json:"limited"`     // the generator could not do it; not the server's fault

	CPU struct {
		ServerSeconds    float64 `json:"serverSeconds"`
		ThreadSeconds    float64 `json:"threadSeconds"` // of -cpu-of
		GeneratorSeconds float64 `json:"generatorSeconds"`
		OtherCores       float64 `json:"otherCores"` // what else ran on the machine, in cores

		// Microseconds for a delivered packet.
		Server    float64 `json:"server"`
		Threads   float64 `json:"threads"`
		Generator float64 `json:"generator"`
	} `json:"cpu"`
	Latency percentiles `json:"latency"` // from when a packet was due
	Late    percentiles `json:"late"`    // how much of that is the generator's being late

	Resident int64 `json:"resident,omitempty"` // memory of the server, bytes
}

// percentiles in microseconds.
type percentiles struct {
	P50 float64 `json:"p50"`
	P90 float64 `json:"p90"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func percentilesOf(h *histogram) percentiles {
	us := func(d time.Duration) float64 { return float64(d) / 1e3 }
	return percentiles{us(h.at(0.50)), us(h.at(0.90)), us(h.at(0.99)), us(h.max)}
}

func (r *result) perPacket() {
	if r.Delivered == 0 {
		return
	}
	per := func(s float64) float64 { return s * 1e6 / float64(r.Delivered) }
	r.CPU.Server, r.CPU.Threads, r.CPU.Generator = per(r.CPU.ServerSeconds), per(r.CPU.ThreadSeconds), per(r.CPU.GeneratorSeconds)
}

// trial judges a step of a search.
func (r *result) trial() trial {
	switch {
	case r.Limited:
		return limited
	case r.LossShare >= lossFree:
		return lost
	}
	return passed
}

// printTable prints steps, one in a line.
func printTable(w io.Writer, results []*result) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\trate/s\tdelivered\tlost\t%\treordered\tdup\tmisdir\tserver us/pkt\tthreads\tgenerator\tother cores\tp50 us\tp90\tp99\tmax\tlate p99\tRSS MiB\t")
	for _, r := range results {
		note := ""
		if r.Limited {
			note = " generator's limit"
		}
		fmt.Fprintf(t, "%s\t%.0f\t%d\t%d\t%.4f\t%d\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f\t%s\n",
			r.Name, r.Rate, r.Delivered, r.Lost, 100*r.LossShare, r.Reordered, r.Duplicated, r.Misdirected,
			r.CPU.Server, r.CPU.Threads, r.CPU.Generator, r.CPU.OtherCores,
			r.Latency.P50, r.Latency.P90, r.Latency.P99, r.Latency.Max, r.Late.P99, float64(r.Resident)/(1<<20), note)
	}
	t.Flush()
}
