// Package firewall says what a turngate host needs through firewalls, and does
// it on the host itself.
//
// [New] makes a [Plan] from what the server listens on and where it connects
// to. A plan is printed ([Plan.Describe], [Plan.Request]) or held against a
// live host: [Read] finds its firewall, [Live.Judge] compares the two, and
// [Live.Want] with [Live.Steps] are the commands that bring them together.
// Everything of ours on a host is tagged, so that it can be found, replaced
// and removed, and nothing else is ever touched. [Apply] puts a plan in place and
// [Confirm] keeps it; without the second a timer takes the first back.
//
// The package knows no configuration file. It runs the host's own programs (nft,
// iptables, firewall-cmd) through a [System] and nothing else.
package firewall

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Layouts of a site, as in the configuration.
const (
	External = "external" // 2-A: the host stands in front of the company network
	Intranet = "intranet" // 2-B: inside it
)

// Ports is a range of ports with both ends.
type Ports struct{ Lo, Hi uint16 }

func (p Ports) String() string {
	if p.Lo == p.Hi {
		return fmt.Sprint(p.Lo)
	}
	return fmt.Sprintf("%d-%d", p.Lo, p.Hi)
}

// Roles of listeners.
const (
	RoleHTTPS   = "https"   // wss, https, TURN over TLS and TCP
	RoleRoutes  = "routes"  // wss and https of some routes
	RoleTURN    = "turn"    // TURN over UDP and TCP
	RoleACME    = "acme"    // http-01
	RoleMetrics = "metrics" // for Prometheus: opened to Options.Monitoring only
)

// A Listener is one address that the server listens on.
type Listener struct {
	Role  string
	Addr  netip.Addr // invalid or unspecified: every address
	Port  uint16
	Proto string // "tcp" or "udp"
}

// An Address is what TURN hands out. Private differs from Public behind a NAT.
type Address struct{ Public, Private netip.Addr }

// Purposes of connections that the host makes.
const (
	ForSignaling  = "signaling"
	ForLogs       = "logs"
	ForStatistics = "statistics" // watchRTC
	ForScheduler  = "scheduler"
	ForUnified    = "unified" // wildcard names of the one-parameter mode
	ForACME       = "acme"
	ForHook       = "hook"
	ForDatabase   = "database"
	ForProxy      = "proxy" // the company's proxy, instead of what is behind it
)

// An Upstream is a host that the server connects to over TCP.
type Upstream struct {
	Host    string // name, address, or "*.name"
	Port    uint16
	Purpose string
	Via     string // host:port of the company's proxy; then no way of its own is needed
}

// A Peer is whom relays may reach; zero ports are any.
type Peer struct {
	Prefix netip.Prefix
	Ports  Ports
}

// Ways of the relay range through the host's firewall.
const (
	RelayAuto   = "auto"   // open when the firewall does not know connections, or NoTrack
	RelayOpen   = "open"   // for peers that send first
	RelayClosed = "closed" // answers only
)

// Options is what a plan is made from.
type Options struct {
	Layout    string
	Host      string // the name clients use; may be empty
	Addresses []Address
	Listeners []Listener
	Relay     Ports
	PeerPorts []Ports // what relays may send to; empty: any port
	TRTC      bool    // the media servers are those of the TRTC cloud
	Upstreams []Upstream
	Resolvers []netip.Addr      // DNS servers of the host; empty: unknown
	Others    []netip.AddrPort  // other TURN servers that clients are sent to
	OwnPeers  []Peer            // peers that the configuration lets relays reach beside those on the Internet
	Clients   []netip.Prefix    // where clients come from; empty: anywhere
	Monitor   []netip.Prefix    // who may ask for metrics; empty: nobody from outside
	RelayIn   string            // RelayAuto if empty
	NoTrack   bool              // keep the relay range out of the connection table
	Zones     []string          // of firewalld; empty: those in use
	Notes     []string          // what else there is to say, for the description of the plan
	Kernel    map[string]string // values of sysctls, by name; see [KernelNames]
}

// An Opening is a set of packets that the host's own firewall must pass.
type Opening struct {
	Key   string       `json:"key"` // stable, unique in a plan: "https-tcp-443"
	Out   bool         `json:"out,omitempty"`
	Proto string       `json:"protocol"`
	Addr  netip.Addr   `json:"address,omitzero"` // of ours; invalid: any
	From  netip.Prefix `json:"from,omitzero"`    // invalid: anywhere; inbound only
	Ports Ports        `json:"ports"`            // destination
	Local Ports        `json:"local,omitzero"`   // source, outbound only; zero: any
	V4    bool         `json:"ipv4"`
	V6    bool         `json:"ipv6"`
	Relay bool         `json:"relay,omitempty"` // the relay range, inbound
}

// Tag is the comment that the rule of an opening carries.
func (o Opening) Tag() string { return tag + " " + o.Key }

// tag begins the comment of every rule of ours.
const tag = "turngate"

// A Plan is what must pass, in and out. It does not change after [New].
type Plan struct {
	Options
	In  []Opening // without the relay range
	Out []Opening // counts only where the host filters what leaves it
	// RelayRange is the relay range inbound, one opening for each family; whether it
	// is needed depends on the firewall, see [Live.RelayNeeded].
	RelayRange []Opening
}

// New checks options and plans.
func New(o Options) (*Plan, error) {
	o.RelayIn = cmp.Or(o.RelayIn, RelayAuto)
	switch {
	case o.Layout != External && o.Layout != Intranet:
		return nil, fmt.Errorf("layout %q is not known", o.Layout)
	case o.Relay.Lo == 0 || o.Relay.Hi < o.Relay.Lo:
		return nil, fmt.Errorf("relay range %s makes no sense", o.Relay)
	case !slices.Contains([]string{RelayAuto, RelayOpen, RelayClosed}, o.RelayIn):
		return nil, fmt.Errorf("relay range inbound: %q is none of auto, open and closed", o.RelayIn)
	case o.NoTrack && o.RelayIn == RelayClosed:
		return nil, errors.New("without connection tracking the relay range must be open: answers cannot be told from other packets")
	}
	p := &Plan{Options: o}
	p.inbound()
	p.outbound()
	return p, nil
}

// Keys of openings are made here only.
func opening(role string, proto string, ports Ports) Opening {
	return Opening{Key: fmt.Sprintf("%s-%s-%s", role, proto, ports), Proto: proto, Ports: ports, V4: true, V6: true}
}

func (p *Plan) inbound() {
	for _, l := range p.Listeners {
		if l.Port == 0 || l.Addr.IsLoopback() {
			continue
		}
		o := opening(l.Role, l.Proto, Ports{l.Port, l.Port})
		if l.Addr.IsValid() && !l.Addr.IsUnspecified() {
			o.Addr = l.Addr.Unmap()
			o.V4, o.V6 = o.Addr.Is4(), o.Addr.Is6()
			o.Key += "-" + o.Addr.String()
		}
		switch l.Role {
		case RoleMetrics:
			p.In = append(p.In, o.from(p.Monitor)...) // nobody: not opened
		case RoleACME:
			p.In = append(p.In, o)
		default:
			if len(p.Clients) == 0 {
				p.In = append(p.In, o)
			}
			p.In = append(p.In, o.from(p.Clients)...)
		}
	}
	p.In = unique(p.In)
	v4, v6 := p.relayFamilies()
	r := opening("relay", "udp", p.Relay)
	r.V4, r.V6, r.Relay = v4, v6, true
	p.RelayRange = []Opening{r}
}

// relayFamilies says which families relays have.
func (p *Plan) relayFamilies() (v4, v6 bool) {
	for _, a := range p.Addresses {
		v4 = v4 || a.Public.Unmap().Is4()
		v6 = v6 || a.Public.Unmap().Is6()
	}
	return v4 || !v6, v6
}

// from is an opening for each prefix that the family of the opening can have.
func (o Opening) from(prefixes []netip.Prefix) []Opening {
	var all []Opening
	for _, f := range prefixes {
		is4 := f.Addr().Is4()
		if is4 && !o.V4 || !is4 && !o.V6 {
			continue
		}
		n := o
		n.From, n.V4, n.V6 = f.Masked(), is4, !is4
		n.Key += "-from-" + f.Masked().String()
		all = append(all, n)
	}
	return all
}

func (p *Plan) outbound() {
	add := func(role, proto string, ports Ports) {
		o := opening("out-"+role, proto, ports)
		o.Out = true
		p.Out = append(p.Out, o)
	}
	for _, u := range p.Upstreams {
		if u.Via == "" && u.Port != 0 {
			add("tcp", "tcp", Ports{u.Port, u.Port})
		}
	}
	add("dns", "udp", Ports{53, 53})
	add("dns", "tcp", Ports{53, 53})
	add("ntp", "udp", Ports{123, 123})
	media := opening("out-media", "udp", Ports{1, 65535})
	media.Out, media.Local = true, p.Relay
	media.V4, media.V6 = p.relayFamilies()
	p.Out = append(p.Out, media)
	p.Out = unique(p.Out)
}

// unique drops openings with a key that was there before.
func unique(all []Opening) []Opening {
	seen := make(map[string]bool)
	return slices.DeleteFunc(all, func(o Opening) bool {
		had := seen[o.Key]
		seen[o.Key] = true
		return had
	})
}
