package firewall

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The services that we define in firewalld, each with its own senders: clients,
// everybody, monitoring. None is called "turngate": a package may bring that one,
// with ports of its own.
const (
	clientService  = tag + "-clients"
	publicService  = tag + "-public" // relays, challenges of a CA
	metricsService = tag + "-metrics"
)

var services = []string{clientService, publicService, metricsService}

// service is the one that an opening belongs to.
func (o Opening) service() string {
	role, _, _ := strings.Cut(o.Key, "-")
	switch role {
	case RoleHTTPS, RoleRoutes, RoleTURN:
		return clientService
	case RoleMetrics:
		return metricsService
	}
	return publicService
}

// A Zone is what is ours in a zone of firewalld: options of firewall-cmd without
// "--add-", like "service=turngate" or "port=443/tcp".
type Zone struct {
	Permanent []string `json:"permanent,omitempty"`
	Runtime   []string `json:"runtime,omitempty"`
}

// Firewalld is what was read from firewalld.
type Firewalld struct {
	Running bool
	Default string
	Active  map[string][]string // interfaces and sources of zones in use
	own     Own

	runtime, permanent map[string]zoneListing
	services           []string // known permanently
}

// zoneListing is one zone of "--list-all-zones".
type zoneListing struct {
	target string
	items  []string // as in Zone
	uses   []string // interfaces and sources
}

// runtimeRecord is the file that remembers what we opened in the running firewalld:
// a port there has no tag. It is on a file system that a reboot clears, like
// the running rules.
const runtimeRecord = stateDir + "/firewalld"

// program is what changes the permanent configuration: firewall-cmd asks the
// daemon, firewall-offline-cmd is for when there is none.
func (f *Firewalld) program() (name string, args []string) {
	if f.Running {
		return "firewall-cmd", []string{"--permanent"}
	}
	return "firewall-offline-cmd", nil
}

// readFirewalld reads firewalld, nil when it is not in use: neither running nor
// enabled at boot.
func readFirewalld(ctx context.Context, sys System) (*Firewalld, error) {
	f := &Firewalld{}
	if sys.Has("firewall-cmd") {
		out, err := sys.Run(ctx, "", "firewall-cmd", "--list-all-zones")
		if f.Running = err == nil; f.Running {
			f.runtime, f.Active = parseZones(out)
		}
	}
	if !f.Running {
		if !sys.Has("firewall-offline-cmd") || !sys.Has("systemctl") {
			return nil, nil
		}
		out, _ := sys.Run(ctx, "", "systemctl", "is-enabled", "firewalld")
		if strings.TrimSpace(out) != "enabled" {
			return nil, nil
		}
	}
	return f, f.read(ctx, sys)
}

func (f *Firewalld) read(ctx context.Context, sys System) error {
	name, permanent := f.program()
	ask := func(args ...string) (string, error) {
		return sys.Run(ctx, "", name, append(slices.Clone(permanent), args...)...)
	}
	out, err := ask("--list-all-zones")
	if err != nil {
		return err
	}
	f.permanent, _ = parseZones(out)
	if out, err = ask("--get-services"); err != nil {
		return err
	}
	f.services = strings.Fields(out)
	f.own = Own{Services: make(map[string][]string), Zones: make(map[string]Zone)}
	for _, service := range services {
		if !slices.Contains(f.services, service) {
			continue
		}
		if out, err = ask("--service="+service, "--get-ports"); err != nil {
			return err
		}
		f.own.Services[service] = slices.Sorted(slices.Values(strings.Fields(out)))
	}
	// Without --permanent the offline program means the same.
	if out, err = sys.Run(ctx, "", name, "--get-default-zone"); err != nil {
		return err
	}
	f.Default = strings.TrimSpace(out)
	if !f.Running { // interfaces without a zone of their own will be in the default one
		f.Active = map[string][]string{f.Default: f.permanent[f.Default].uses}
		for name, z := range f.permanent {
			if len(z.uses) > 0 {
				f.Active[name] = z.uses
			}
		}
	}
	f.findOwn(sys)
	return nil
}

// findOwn tells ours from what others configured: by the names of our services, and
// by the record of what we opened for now.
func (f *Firewalld) findOwn(sys System) {
	record := strings.Split(strings.TrimSpace(sys.readFile(runtimeRecord)), "\n")
	for name, z := range f.permanent {
		for _, item := range z.items {
			if ofOurService(item) {
				own := f.own.Zones[name]
				own.Permanent = append(own.Permanent, item)
				f.own.Zones[name] = own
			}
		}
	}
	for name, z := range f.runtime {
		for _, item := range z.items {
			if ofOurService(item) || slices.Contains(record, name+" "+item) {
				own := f.own.Zones[name]
				own.Runtime = append(own.Runtime, item)
				f.own.Zones[name] = own
			}
		}
	}
}

// ofOurService reports whether an item names a service of ours, alone or in a
// rich rule.
func ofOurService(item string) bool {
	for _, s := range services {
		if item == "service="+s || strings.HasPrefix(item, "rich-rule=") && strings.Contains(item, `service name="`+s+`"`) {
			return true
		}
	}
	return false
}

// parseZones reads "--list-all-zones": the items of each zone, and what belongs to
// those in use.
func parseZones(listing string) (zones map[string]zoneListing, active map[string][]string) {
	zones, active = make(map[string]zoneListing), make(map[string][]string)
	name, rich, isActive := "", false, false
	for line := range strings.Lines(listing) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		if line[0] != ' ' && line[0] != '\t' {
			var rest string
			name, rest, _ = strings.Cut(line, " ")
			isActive, rich = strings.Contains(rest, "active"), false
			zones[name] = zoneListing{}
			if isActive {
				active[name] = nil
			}
			continue
		}
		z := zones[name]
		if rich && line[0] == '\t' {
			z.items = append(z.items, "rich-rule="+strings.TrimSpace(line))
			zones[name] = z
			continue
		}
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		values := strings.Fields(value)
		rich = key == "rich rules"
		switch key {
		case "target":
			z.target = strings.TrimSpace(value)
		case "services":
			for _, v := range values {
				z.items = append(z.items, "service="+v)
			}
		case "ports":
			for _, v := range values {
				z.items = append(z.items, "port="+v)
			}
		case "interfaces", "sources":
			z.uses = append(z.uses, values...)
			if isActive {
				active[name] = z.uses
			}
		}
		zones[name] = z
	}
	return zones, active
}

// zones are those that a plan is for: the chosen ones, else those in use that let
// nothing through by themselves, else the default one.
func (f *Firewalld) zones(p *Plan) []string {
	if len(p.Zones) > 0 {
		return p.Zones
	}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f.Active)) {
		if f.permanent[name].target != "ACCEPT" {
			all = append(all, name)
		}
	}
	if len(all) == 0 && len(f.Active) == 0 {
		all = []string{f.Default}
	}
	return all
}

func (o Opening) firewalldPort() string { return o.Ports.String() + "/" + o.Proto }

// richRule lets one prefix reach an element like `service name="turngate"`.
func (o Opening) richRule(element string) string {
	family := "ipv4"
	if o.From.Addr().Is6() {
		family = "ipv6"
	}
	return fmt.Sprintf(`rich-rule=rule family="%s" source address="%s" %s accept`, family, o.From, element)
}

// want is what should be ours. What stands in a zone already by somebody else's
// hand is not added a second time.
func (f *Firewalld) want(p *Plan, in []Opening) Own {
	w := Own{Zones: make(map[string]Zone), Services: make(map[string][]string)}
	var permanent, now []string
	for _, o := range in {
		service := o.service()
		w.Services[service] = append(w.Services[service], o.firewalldPort())
		if o.From.IsValid() {
			permanent = append(permanent, o.richRule(fmt.Sprintf(`service name="%s"`, service)))
			now = append(now, o.richRule(fmt.Sprintf(`port port="%s" protocol="%s"`, o.Ports, o.Proto)))
		} else {
			permanent = append(permanent, "service="+service)
			now = append(now, "port="+o.firewalldPort())
		}
	}
	for name, ports := range w.Services {
		slices.Sort(ports)
		w.Services[name] = slices.Compact(ports)
	}
	for _, list := range []*[]string{&permanent, &now} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	if len(permanent) == 0 {
		return w
	}
	for _, name := range f.zones(p) {
		z := Zone{Permanent: permanent}
		if f.Running {
			z.Runtime = f.wantNow(name, permanent, now)
		}
		w.Zones[name] = z
	}
	return w
}

// wantNow is what should be ours in the running zone. After firewalld was loaded
// anew our service is there and does what the single ports did.
func (f *Firewalld) wantNow(zone string, permanent, now []string) []string {
	own := f.own.Zones[zone].Runtime
	loaded := !slices.ContainsFunc(permanent, func(item string) bool { return !slices.Contains(f.runtime[zone].items, item) })
	if loaded && slices.Equal(f.own.Zones[zone].Permanent, permanent) && !slices.ContainsFunc(own, func(item string) bool { return !ofOurService(item) }) {
		return slices.Clone(own)
	}
	var all []string
	for _, item := range now {
		if slices.Contains(own, item) || !slices.Contains(f.runtime[zone].items, item) {
			all = append(all, item)
		}
	}
	for _, item := range own {
		if ofOurService(item) && slices.Contains(permanent, item) {
			all = append(all, item)
		}
	}
	slices.Sort(all)
	return all
}

// firewalldSteps change firewalld. They take the running zones and the permanent
// configuration apart, so that firewalld need not be loaded anew, which would
// drop what others changed for now only.
func (l *Live) firewalldSteps(want Own) []Step {
	f := l.Firewalld
	if f == nil {
		return nil
	}
	var steps []Step
	name, permanent := f.program()
	run := func(base []string, args ...string) {
		if len(args) > 0 {
			steps = append(steps, Step{Name: name, Args: append(slices.Clone(base), args...)})
		}
	}
	zones := slices.Sorted(maps.Keys(union(f.own.Zones, want.Zones)))
	edit := func(verb string, stay bool, zone string, items []string) {
		on := []string{"--zone=" + zone}
		if stay {
			on = append(slices.Clone(permanent), on...)
		}
		for _, call := range f.change(verb, items, stay) {
			run(on, call...)
		}
	}
	for _, z := range zones {
		have, will := f.own.Zones[z], want.Zones[z]
		edit("remove", false, z, without(have.Runtime, will.Runtime))
		edit("add", false, z, without(will.Runtime, have.Runtime))
		edit("remove", true, z, without(have.Permanent, will.Permanent))
	}
	for _, service := range services {
		have, exists := f.own.Services[service]
		will := want.Services[service]
		switch {
		case exists && len(will) == 0:
			run(permanent, "--delete-service="+service)
			continue
		case !exists && len(will) > 0:
			run(permanent, "--new-service="+service)
			run(permanent, "--service="+service, "--set-short="+service)
			run(permanent, "--service="+service, "--set-description=WebRTC gateway: wss, https and TURN")
		}
		on := append(slices.Clone(permanent), "--service="+service)
		run(on, options("--remove-port=", without(have, will))...)
		run(on, options("--add-port=", without(will, have))...)
	}
	for _, z := range zones {
		edit("add", true, z, without(want.Zones[z].Permanent, f.own.Zones[z].Permanent))
	}
	return steps
}

// change gives the options that add or remove items, a list for each call: the
// program looks at one kind of option only.
func (f *Firewalld) change(verb string, items []string, permanent bool) [][]string {
	byKind := make(map[string][]string)
	for _, i := range items {
		kind, _, _ := strings.Cut(i, "=")
		option := "--" + verb + "-" + i
		if !f.Running && permanent && verb == "remove" && kind == "service" {
			// What firewall-offline-cmd calls --remove-service is for the default zone.
			option = "--remove-service-from-zone=" + strings.TrimPrefix(i, "service=")
		}
		byKind[kind] = append(byKind[kind], option)
	}
	var calls [][]string
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		calls = append(calls, byKind[kind])
	}
	return calls
}

func union(a, b map[string]Zone) map[string]Zone {
	all := maps.Clone(a)
	if all == nil {
		all = make(map[string]Zone)
	}
	maps.Copy(all, b)
	return all
}

func options(option string, items []string) []string {
	var all []string
	for _, i := range items {
		all = append(all, option+i)
	}
	return all
}

func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}
