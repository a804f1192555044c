package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// tidyMemory gives memory back when there is time for it. A collection otherwise waits until the
// heap has doubled, which after a rush of handshakes, some 100 KiB of garbage each, may be
// hours: sessions that carry messages allocate nothing. It returns when ctx ends.
func tidyMemory(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var t tidier
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if t.due(readHeap()) {
			debug.FreeOSMemory()
		}
	}
}

// heap is what the decision needs, in bytes.
type heap struct {
	allocated uint64 // since the start of the process
	live      uint64 // found by the last collection
	objects   uint64 // live and dead
	free      uint64 // could go back to the system
}

func readHeap() heap {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return heap{s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64(), s[3].Value.Uint64()}
}

// A tidier decides when to collect, asked once a second.
type tidier struct {
	last  uint64 // allocated
	quiet int    // seconds
	rest  int    // seconds until the next may come
}

const (
	quietRate  = 256 << 10 // bytes a second that still count as quiet: metrics, logs, refreshes
	quietTime  = 2         // seconds of it before a collection
	restTime   = 10        // seconds between two
	worthwhile = 4 << 20   // bytes that must be won, and a quarter of what lives
)

func (t *tidier) due(h heap) bool {
	if h.allocated-t.last > quietRate {
		t.quiet = 0
	} else {
		t.quiet++
	}
	t.last = h.allocated
	if t.rest > 0 {
		t.rest--
	}
	win := h.objects + h.free - min(h.live, h.objects)
	if t.quiet < quietTime || t.rest > 0 || win < max(worthwhile, h.live/4) {
		return false
	}
	t.rest = restTime
	return true
}
