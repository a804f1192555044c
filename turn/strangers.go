package turn

import (
	"math/rand/v2"
	"net/netip"

	"github.com/turngate/turngate/internal/limit"
)

// strangers is the budget of answers to UDP sources that have not proved that
// they receive where they send from: such an answer may go to somebody who
// never asked. It is kept per source prefix, and over a connection, whose
// handshake is the proof, there is none.
//
// The other side of a budget per address is a company behind one: whoever
// spoofs its address uses its budget up. So a few of the requests beyond it are
// answered all the same, at random; clients repeat a request until they hear
// something, and their next one carries the nonce that needs no budget.
type strangers struct {
	rate *limit.KeyedRate[netip.Prefix]
}

const (
	strangerKeys  = 1 << 16 // prefixes remembered
	strangerBurst = 1.6     // seconds of the rate
	strangerGrace = 16      // one in so many beyond the budget
)

func newStrangers() strangers {
	return strangers{limit.NewKeyedRate[netip.Prefix](0, 0, strangerKeys)}
}

func (s strangers) set(perSecond int) {
	s.rate.SetLimit(float64(perSecond), int(strangerBurst*float64(perSecond)))
}

// allow reports whether a request may be answered, and takes an answer from
// the budget of its source if it has proved nothing.
func (s strangers) allow(r *request) bool {
	if r.tuple.transport != UDP || r.key != nil || r.session != nil {
		return true
	}
	return s.rate.AllowAt(limit.Source(r.tuple.client.Addr()), r.now) || rand.N(strangerGrace) == 0
}
