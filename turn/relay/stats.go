package relay

import "sync/atomic"

// Stats counts what one relay carried. Up is client to peer, down is peer to
// client; bytes are payload.
type Stats struct {
	PacketsUp, PacketsDown atomic.Uint64
	BytesUp, BytesDown     atomic.Uint64
	DroppedUp, DroppedDown atomic.Uint64 // no permission, no channel, too large
	FailedUp               atomic.Uint64 // the relay socket refused; see Listener.Drops for the way down
	LimitedUp, LimitedDown atomic.Uint64 // over a Budget
}
