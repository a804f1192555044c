package turn

import (
	"net/netip"

	"github.com/turngate/turngate/turn/wire"
)

// refuseAllocate answers an Allocate that cannot be served: 508, or 300 with
// ALTERNATE-SERVER when there is another server to go to (RFC 8489 section
// 10, RFC 8656 section 7.2). The alternates of the client's address family
// take turns.
func (s *Server) refuseAllocate(r *request, code int) {
	alternate, ok := s.alternate(r)
	if code != 508 || !ok {
		s.refuse(r, code)
		return
	}
	b := wire.NewBuilder(r.msg.Method, wire.Failure, r.msg.ID)
	b.AddError(300)
	b.AddPlainAddress(wire.AlternateServer, alternate)
	s.finish(r, b, 300)
}

func (s *Server) alternate(r *request) (netip.AddrPort, bool) {
	var fit []netip.AddrPort
	for _, a := range r.set.Alternates {
		if a.Addr().Is6() == r.tuple.client.Addr().Is6() {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return netip.AddrPort{}, false
	}
	return fit[s.turns.Add(1)%uint64(len(fit))], true
}
