package firewall

import (
	"fmt"
	"strings"
	"testing"
)

// The programs of a host print rules of others, with comments and names of theirs.
func FuzzRulesOfOthers(f *testing.F) {
	f.Add(`{"nftables":[{"chain":{"family":"inet","table":"f","name":"input","type":"filter","hook":"input","prio":0,"policy":"drop"}},
		{"rule":{"family":"inet","table":"f","chain":"input","handle":4,"comment":"turngate","expr":[{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["new"]}},
		{"match":{"op":"!=","left":{"payload":{"protocol":"tcp","field":"dport"}},"right":{"set":[22,{"range":[80,90]}]}}},{"jump":{"target":"input"}}]}},
		{"rule":{"family":"inet","table":"f","chain":"input","handle":5,"expr":[{"vmap":{"key":{"payload":{"protocol":"th","field":"dport"}},"data":{"set":[[22,{"accept":null}],[23,{"drop":null}]]}}}]}}]}`)
	f.Add(fmt.Sprintf(iptablesInput, `-A INPUT ! -s 10.0.0.0/8 -m comment --comment "a \"b" -j LOG --log-prefix "x "`, "icmp"))
	f.Add("-P INPUT DROP\n-A INPUT\n-A INPUT -g INPUT\n-A INPUT -p")
	f.Add("public (active)\n  target: default\n  interfaces: eth0\n  ports: 1/udp\n  rich rules: \n\trule accept\n")
	p := packets{proto: "udp", dst: Ports{3478, 3478}, state: "new"}
	f.Fuzz(func(t *testing.T, text string) {
		chains, _ := parseNFT([]byte(text))
		// Chains whose rules jump to each other without end are no rules of a kernel.
		loops := strings.Count(text, "jump")+strings.Count(text, "goto")+strings.Count(text, "-j")+strings.Count(text, "-g") > 2
		l := &Live{chains: append(chains, parseIPTables("ip", "filter", text)...)}
		l.findOwn()
		for _, c := range l.chains {
			if !loops {
				run(c, l.lookup(c), p, true)
			}
		}
		parseZones(text)
		reserved(text, Ports{1, 2}, 1, 2)
	})
}
