package turn

import (
	"log/slog"
	"sync/atomic"
)

// limitName names a limit as its key in the configuration does.
type limitName int

const (
	limitAllocations limitName = iota
	limitPerUser
	limitPerAddress
	limitPorts
	limitPermissions
	limitChannels
	limitAuthFailures
	limitAllocationBytes
	limitUserBytes
	limitTotalBytes
	limitNames // how many there are
)

func (n limitName) String() string {
	return [limitNames]string{
		"allocations", "allocations_per_user", "allocations_per_address", "relay_ports",
		"permissions_per_allocation", "channels_per_allocation", "auth_failures",
		"bytes_per_second_per_allocation", "bytes_per_second_per_user", "bytes_per_second_total",
	}[n]
}

// limitHits counts how often each limit held: requests refused, or datagrams
// dropped for the limits of bandwidth.
type limitHits [limitNames]atomic.Uint64

// limited counts a request that a limit refuses, and tells the operator now
// and then.
func (s *Server) limited(r *request, limit limitName) {
	s.hits[limit].Add(1)
	s.refusals.log(r.set.Log, "limit "+limit.String(), "limit reached",
		"limit", limit.String(), "client", r.tuple.client, "user", printable(r.user))
}

// logBandwidth tells of the limits that only the packet path has met, since
// the counts of last, which it brings up to date.
func (s *Server) logBandwidth(log *slog.Logger, last *[limitNames]uint64) {
	for _, limit := range []limitName{limitAllocationBytes, limitUserBytes, limitTotalBytes} {
		hits := s.hits[limit].Load()
		if dropped := hits - last[limit]; dropped > 0 {
			s.refusals.log(log, "limit "+limit.String(), "limit reached", "limit", limit.String(), "dropped", dropped)
		}
		last[limit] = hits
	}
}
