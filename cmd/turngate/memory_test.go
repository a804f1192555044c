package main

import "testing"

func TestMemoryIsGivenBackInQuietTimes(t *testing.T) {
	const mib = 1 << 20
	waste := heap{live: 20 * mib, objects: 30 * mib, free: 2 * mib}
	for _, tt := range []struct {
		name    string
		heap    heap
		perTick uint64 // allocated in a second
		seconds int
		want    int // collections
	}{
		{"after a rush", waste, 0, 11, 1},
		{"again when there is more", waste, 100 << 10, 15, 2},
		{"not while there is work", waste, mib, 100, 0},
		{"not for a little", heap{live: 20 * mib, objects: 23 * mib}, 0, 100, 0},
		{"not for what is little beside the rest", heap{live: 400 * mib, objects: 450 * mib}, 0, 100, 0},
		{"not when the numbers are of different moments", heap{live: 20 * mib, objects: 10 * mib}, 0, 100, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d tidier
			got := 0
			for range tt.seconds {
				tt.heap.allocated += tt.perTick
				if d.due(tt.heap) {
					got++
				}
			}
			if got != tt.want {
				t.Errorf("%d collections in %d s, want %d", got, tt.seconds, tt.want)
			}
		})
	}
}

func TestHeapIsRead(t *testing.T) {
	h := readHeap()
	if h.allocated == 0 || h.objects == 0 || h.objects > h.allocated {
		t.Errorf("heap %+v", h)
	}
}
