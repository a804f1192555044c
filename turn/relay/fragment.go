package relay

import "net/netip"

// SendUnfragmented is SendTo with the DF bit set: the datagram is dropped
// where it does not fit, instead of cut (RFC 8656 section 14). Datagrams that
// other goroutines send through the relay at the same moment may have the bit
// too, which costs them nothing as long as they fit.
func (r *Relay) SendUnfragmented(peer netip.AddrPort, p []byte) bool {
	r.dfMu.Lock()
	defer r.dfMu.Unlock()
	if err := r.socket.setDontFragment(true); err != nil {
		r.stats.FailedUp.Add(1)
		return false
	}
	defer func() { _ = r.socket.setDontFragment(false) }()
	return r.SendTo(peer, p)
}
