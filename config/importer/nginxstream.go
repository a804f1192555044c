package importer

import (
	"slices"
	"strconv"
	"strings"
)

// stream reads the stream block. What it forwards to a TURN server turngate
// serves itself.
func (c *nginxConf) stream(in *directive) {
	use(in.block)
	ports := map[string]string{} // of upstream blocks
	preread := find(in.block, "ssl_preread")
	for _, d := range in.block {
		if d.name == "upstream" {
			for _, s := range d.block {
				if s.name == "server" {
					ports[d.arg(0)] = portOf(s.arg(0))
				}
			}
		}
	}
	for _, d := range in.block {
		if d.name != "server" {
			continue
		}
		listens := c.listens(scope{block(d.block)}, &directive{block: withoutUDP(d.block)})
		to := find(d.block, "proxy_pass")
		target := ""
		if to != nil {
			if target = ports[to.arg(0)]; target == "" {
				target = portOf(to.arg(0))
			}
		}
		turn := slices.Contains(turnPorts, target)
		for _, l := range listens {
			turn = turn || slices.Contains(turnPorts, strconv.Itoa(l.port))
		}
		switch {
		case turn:
			for _, l := range listens {
				if l.tls || l.port == 443 {
					c.listen("https", listenText(l.addr, l.port), l.pos)
				} else {
					c.listen("turn", listenText(l.addr, l.port), l.pos)
				}
			}
			c.changed(d.pos, "stream", "turngate is the TURN server itself, on these ports", "import turnserver.conf too")
		case preread != nil && to != nil:
			c.changed(d.pos, "stream", "turngate tells TURN, wss and https on one port apart by what clients send, not by names", "")
		default:
			c.lost(d.pos, "stream", "turngate forwards no other TCP or UDP", "")
		}
	}
}

var turnPorts = []string{"3478", "5349", "3479", "5350"}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// withoutUDP drops the parameter udp of listeners, which stands for TURN.
func withoutUDP(block []*directive) []*directive {
	var out []*directive
	for _, d := range block {
		copied := *d
		copied.args = slices.DeleteFunc(slices.Clone(d.args), func(a string) bool { return a == "udp" })
		out = append(out, &copied)
	}
	return out
}
