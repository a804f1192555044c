// Package limit bounds what one source may do: how many things it may hold at
// once (Cap, KeyedCap) and how often it may ask (KeyedRate). Memory is bounded
// whatever strangers send, and a decision about a known key allocates nothing.
//
// Keys are any comparable type; limits on strangers use Source(addr), because
// whoever has one IPv6 address has the /64 around it.
//
// Every method of every type may be called from many goroutines at once.
package limit

import (
	"hash/maphash"
	"net/netip"
)

// Source returns the prefix that stands for one source of traffic: the address
// itself for IPv4 (also when written as IPv4-mapped IPv6), the /64 for IPv6,
// the smallest network one customer gets (RFC 6177 section 2). An invalid
// address gives the zero Prefix: all of those share one budget.
func Source(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// shardCount is a power of two: enough that a few cores seldom meet on one
// lock, small enough that an empty limiter costs next to nothing.
const shardCount = 16

// sharder picks the shard of a key. The seed is random in each process, so that
// nobody can choose keys that all meet in one shard.
type sharder[K comparable] struct{ seed maphash.Seed }

func newSharder[K comparable]() sharder[K] { return sharder[K]{maphash.MakeSeed()} }

func (s sharder[K]) of(k K) uint64 {
	return maphash.Comparable(s.seed, k) % shardCount
}
