package main

import (
	"math/bits"
	"time"
)

// histogram holds durations in buckets that are at most 1/64 of their value
// wide. The zero value is empty.
type histogram struct {
	buckets [40 * 64]uint64
	count   uint64
	max     time.Duration
}

func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	h.buckets[min(bucketOf(uint64(d)), len(h.buckets)-1)]++
	h.count++
	h.max = max(h.max, d)
}

func bucketOf(v uint64) int {
	shift := max(bits.Len64(v)-7, 0) // v>>shift is below 128
	return shift*64 + int(v>>shift)
}

// highest returns the largest value that falls into a bucket.
func highest(bucket int) uint64 {
	shift := max(bucket/64-1, 0)
	return uint64(bucket-shift*64+1)<<shift - 1
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.max = max(h.max, o.max)
}

// at returns the value that a share of all values (0 to 1) does not exceed;
// 0 when there are none.
func (h *histogram) at(share float64) time.Duration {
	rank := uint64(share * float64(h.count))
	if float64(rank) < share*float64(h.count) {
		rank++
	}
	seen := uint64(0)
	for i, n := range h.buckets {
		if seen += n; i == len(h.buckets)-1 {
			break // it has no end
		} else if n > 0 && seen >= rank {
			return min(time.Duration(highest(i)), h.max)
		}
	}
	return h.max
}
