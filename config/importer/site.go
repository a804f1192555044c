package importer

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/turngate/turngate/config"
)

// site is what the sources say, in no format of theirs.
type site struct {
	opts    Options
	draft   draft
	remarks Remarks
	said    map[Remark]bool

	names     []named // of the web server, in order
	somewhere Pos     // for what has no place of its own
	anyName   bool    // a server of the source answers every name
	routes    []*route
	hasTURN   bool
	source    string // that of the TURN server
	webTLS    bool   // a listener for https was there

	turn turnSite
}

// named is a name that clients use.
type named struct {
	name string
	pos  Pos
}

func newSite(opts Options) *site {
	return &site{opts: opts, said: map[Remark]bool{}}
}

// route is a path with where it leads: at most one WebSocket route and one for
// plain requests.
type route struct {
	pos       Pos
	path      string
	ws, plain bool
	targets   []upstream
	balance   string

	sig, log  []entry // further keys of [[signaling]] and [[logger]]
	clients   []netip.Prefix
	limited   bool // clients counts, also when it is empty
	limitedBy Pos
}

// upstream is one server that a route leads to.
type upstream struct {
	url       string
	weight    int // 0 to 100
	backup    bool
	sni, host string
	implied   bool // the source did not ask for this host
	pos       Pos
}

func (u upstream) value() any {
	m := map[string]any{}
	if u.weight != config.MaxWeight {
		m["weight"] = u.weight
	}
	if u.backup {
		m["backup"] = true
	}
	if u.sni != "" {
		m["sni"] = u.sni
	}
	if u.host != "" {
		m["host"] = u.host
	}
	if len(m) == 0 {
		return u.url
	}
	m["url"] = u.url
	return m
}

func (r *route) both(key string, val any, pos Pos) {
	r.sig = append(r.sig, entry{key: key, val: val, pos: pos})
	r.log = append(r.log, entry{key: key, val: val, pos: pos})
}

// addName notes a name of the web server.
func (s *site) addName(name string, pos Pos) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if len(s.names) < maxPerList && !slices.ContainsFunc(s.names, func(n named) bool { return n.name == name }) {
		s.names = append(s.names, named{name, pos})
	}
}

// domain is the first name that a certificate can be for.
func (s *site) domain() string {
	for _, n := range s.names {
		if !strings.HasPrefix(n.name, "*.") {
			return n.name
		}
	}
	return ""
}

// addRoute takes a route of the source. Two for one path are kept only when they
// say the same; which says what else belongs to the later one.
func (s *site) addRoute(r *route, what string) {
	if r.limited && len(r.clients) == 0 {
		s.notNeeded(r.pos, what, "nobody may use it")
		return
	}
	// The hosts of TRTC's log reports speak no WebSocket.
	if r.ws && r.plain && presetOf(r, true) == "" && presetOf(r, false) != "" {
		r.ws = false
	}
	s.narrowed(r, what)
	if r.limited && r.plain {
		if !r.ws {
			s.lost(r.pos, what, fmt.Sprintf("routes for plain requests have no list of clients (%s), so the route was left out rather than opened to everybody", r.limitedBy), "restrict who reaches this host in the firewall, then add [[logger]] by hand")
			return
		}
	}
	for _, o := range s.routes {
		if strings.TrimRight(o.path, "/") != strings.TrimRight(r.path, "/") {
			continue
		}
		if r.ws && o.ws {
			if fmt.Sprint(o.urls()) != fmt.Sprint(r.urls()) {
				s.lost(r.pos, what, fmt.Sprintf("the path %s leads elsewhere at %s already, and turngate has routes for paths, not for names or ports", r.path, o.pos), "give it a path of its own")
			}
			r.ws = false
		}
		if r.plain && o.plain {
			if fmt.Sprint(o.urls()) != fmt.Sprint(r.urls()) {
				s.lost(r.pos, what, fmt.Sprintf("plain requests for %s lead elsewhere at %s already, and turngate has routes for paths, not for names or ports", r.path, o.pos), "give it a path of its own")
			}
			r.plain = false
		}
	}
	if !r.ws && !r.plain {
		return
	}
	if len(s.routes) >= maxRoutes {
		s.lost(r.pos, what, fmt.Sprintf("there are more than %d routes", maxRoutes), "")
		return
	}
	s.routes = append(s.routes, r)
}

// narrowed gives up the plain requests of a route that only some may use.
func (s *site) narrowed(r *route, what string) {
	if r.limited && r.ws && r.plain && len(r.clients) > 0 {
		s.lost(r.pos, what, fmt.Sprintf("routes for plain requests have no list of clients (%s), so only WebSocket handshakes are served here", r.limitedBy), "")
		r.plain = false
	}
}

func (r *route) urls() []any { return anys(r.targets, upstream.value) }

// writeRoutes turns the routes into tables.
func (s *site) writeRoutes() {
	for _, r := range s.routes {
		if r.ws {
			s.writeSignaling(r)
		}
	}
	for _, r := range s.routes {
		if r.plain {
			s.writeLogger(r)
		}
	}
	if s.draft.count("signaling") == 0 {
		s.draft.in("").put("signaling", []any{}, Pos{}, "no WebSocket route was imported; without this line there is one for TRTC")
	}
	if s.draft.count("logger") == 0 && !slices.ContainsFunc(s.routes, func(r *route) bool { return presetOf(r, true) == config.PresetTRTC }) {
		s.draft.in("").put("logger", []any{}, Pos{}, "no route for plain requests was imported; without this line there is one for TRTC")
	} else if s.draft.count("logger") == 0 {
		s.draft.in("").put("logger", []any{}, Pos{}, "the imported files have no route for log reports; without this line there is one at /logger/")
	}
	s.freeTRTC()
}

func (s *site) writeSignaling(r *route) {
	t := s.draft.another("signaling", r.pos, "")
	preset := presetOf(r, true)
	if preset != "" {
		t.put("preset", preset, r.targets[0].pos, "")
	}
	t.put("path", r.path, r.pos, "")
	t.put("upstream", r.urls(), r.targets[0].pos, "")
	if r.balance != "" && len(r.targets) > 1 {
		t.put("balance", r.balance, r.targets[0].pos, "")
	}
	for _, e := range r.sig {
		if preset != "" && e.key == "identify" {
			continue
		}
		t.put(e.key, e.val, e.pos, e.note)
	}
	if r.limited {
		t.put("clients", anys(r.clients, func(p netip.Prefix) any { return prefixText(p) }), r.limitedBy, "")
	}
}

func (s *site) writeLogger(r *route) {
	preset := presetOf(r, false)
	note := ""
	if r.ws {
		if preset != "" { // a watchRTC route serves the SDK's requests too
			return
		}
		note = "requests for " + r.path + " that are no WebSocket handshakes"
	}
	t := s.draft.another("logger", r.pos, note)
	var list []any
	main := slices.DeleteFunc(slices.Clone(r.targets), func(u upstream) bool { return u.weight == 0 })
	slices.SortStableFunc(main, func(a, b upstream) int { return btoi(a.backup) - btoi(b.backup) })
	for _, u := range main {
		if !slices.Contains(list, any(u.url)) {
			list = append(list, u.url)
		}
	}
	if preset != "" {
		t.put("preset", preset, r.targets[0].pos, "")
	}
	t.put("path", r.path, r.pos, "")
	if preset != config.PresetTRTC || !byAppID(r.targets) {
		t.put("upstream", list, r.targets[0].pos, "")
	}
	for _, e := range r.log {
		t.put(e.key, e.val, e.pos, e.note)
	}
	if preset == "" {
		s.plainLosses(r)
	}
}

// plainLosses says what a route for plain requests cannot do with several or
// renamed upstreams.
func (s *site) plainLosses(r *route) {
	for _, u := range r.targets {
		if u.sni != "" {
			s.lost(u.pos, "upstream "+hostOf(u.url), "plain requests to it name that host in TLS, and not "+u.sni, "write the name in upstream of [[logger]], and its address in resolve")
		}
		if u.host != "" && !u.implied {
			s.changed(u.pos, "upstream "+hostOf(u.url), "plain requests have its own name in Host, and not "+u.host, "let it accept that name")
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// presetOf recognises the hosts that a preset is made for.
func presetOf(r *route, ws bool) string {
	preset := ""
	for i, u := range r.targets {
		p := presetOfHost(u.url, ws)
		if p == "" || i > 0 && p != preset {
			return ""
		}
		preset = p
	}
	return preset
}

func presetOfHost(text string, ws bool) string {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || strings.Trim(u.Path, "/") != "" || u.Port() != "" && u.Port() != "443" {
		return ""
	}
	host := u.Hostname()
	for _, preset := range watchRTCPresets {
		if hostOf(defaultUpstream(preset)) == host {
			return preset
		}
	}
	if ws && slices.ContainsFunc(reference.TRTC.SignalDomains, func(d string) bool {
		name, wild := strings.CutPrefix(d, "*.")
		return host == name || wild && strings.HasSuffix(host, "."+name)
	}) {
		return config.PresetTRTC
	}
	if !ws && slices.Contains(trtcLogHosts, host) {
		return config.PresetTRTC
	}
	return ""
}

var (
	watchRTCPresets = []string{config.PresetWatchRTC, config.PresetWatchRTCStaging, config.PresetWatchRTCLegacy, config.PresetWatchRTCStagingLegacy}

	// trtcLogHosts take the log reports of the TRTC SDKs: of the first kind of
	// sdkAppId, which the recipe names for all, and of the international ones.
	trtcLogHosts = []string{"yun.tim.qq.com", "apisgp.my-imcloud.com"}
)

// byAppID reports whether the preset's own choice of host takes the place of
// these upstreams.
func byAppID(list []upstream) bool { return len(list) == 1 && hostOf(list[0].url) == trtcLogHosts[0] }

var presetUpstreams = map[string]string{}

// reference is what an empty file means.
var reference, _ = config.LoadBytes("", nil, config.Env{})

func init() {
	for _, p := range watchRTCPresets {
		cfg, _ := config.LoadBytes("", []byte("[[logger]]\npreset = \""+p+"\"\n"), config.Env{})
		presetUpstreams[p] = cfg.Logger[0].Upstream[0].String()
	}
}

func defaultUpstream(preset string) string { return presetUpstreams[preset] }

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// freeTRTC gives up the paths of [trtc] that a route of the source has.
func (s *site) freeTRTC() {
	trtc := slices.ContainsFunc(s.routes, func(r *route) bool {
		return r.ws && presetOf(r, true) == config.PresetTRTC || r.plain && presetOf(r, false) == config.PresetTRTC
	})
	if !trtc {
		return
	}
	def := reference.TRTC
	for key, path := range map[string]string{"schedule": def.Schedule, "unified": def.Unified} {
		for _, r := range s.routes {
			if strings.TrimRight(r.path, "/") == strings.TrimRight(path, "/") {
				s.draft.in("trtc").put(key, "", r.pos, "the path is taken")
			}
		}
	}
}

// writeNames writes domain and names.
func (s *site) writeNames() {
	domain := s.domain()
	if domain == "" || s.anyName && len(s.names) > 1 {
		if domain == "" {
			for _, n := range s.names {
				s.changed(n.pos, n.name, "without a name that is no pattern there is no domain, and every name is served", `write domain = "..."`)
			}
			return
		}
	}
	for _, n := range s.names {
		switch {
		case n.name == domain:
			s.draft.in("").put("domain", n.name, n.pos, "")
		case !s.anyName:
			s.draft.add("https", "names", n.name, n.pos)
		}
	}
	if s.anyName {
		s.draft.in("https").put("names", []any{"*"}, Pos{}, "a server answered every name")
	}
}

// errBug is a result that does not load though nothing in it is known to be
// wrong.
var errBug = errors.New("the imported configuration does not load; this is a mistake of turngate")

// write renders the result and loads it. What the loader refuses is taken out
// again, with its reason.
func (s *site) write(res *Result) error {
	s.writeTURN()
	s.writeNames()
	s.writeRoutes()
	s.singleFiles()
	for range 20 {
		s.draft.dropDefaults()
		text, places := s.draft.render(s.head(res.Kinds))
		cfg, findings := config.LoadBytes("", []byte(text), config.Env{})
		if cfg != nil {
			res.TOML, res.Config, res.Remarks = []byte(text), cfg, s.remarks
			return nil
		}
		if !s.repair(findings, places) {
			return fmt.Errorf("%w: %w", errBug, findings.Err())
		}
	}
	return errBug
}

// singleFiles writes a list of one certificate as one.
func (s *site) singleFiles() {
	for _, key := range []string{"cert", "key"} {
		if e := s.draft.in("tls").get(key); e != nil {
			if list, ok := e.val.([]any); ok && len(list) == 1 {
				e.val = list[0]
			}
		}
	}
}

// repair takes out what the loader refuses, and reports whether there was
// something.
func (s *site) repair(findings config.Findings, places []place) bool {
	done := false
	gone := map[place]bool{}
	for _, f := range findings {
		if f.Severity != config.Error || f.Line <= 0 || f.Line >= len(places) {
			continue
		}
		p := places[f.Line]
		if p.t != nil && p.key == "" && !p.t.list { // about a key that is not there, so about its neighbours
			if i := strings.LastIndexByte(f.Key, '.'); p.t.get(f.Key[i+1:]) != nil {
				p.key = f.Key[i+1:]
			} else if len(p.t.entries) > 0 {
				p.key = p.t.entries[0].key
			}
		}
		if p.t == nil || gone[p] || gone[place{p.t, ""}] {
			continue
		}
		gone[p], done = true, true
		what, at := p.key, p.t.pos
		if e := p.t.get(p.key); e != nil && e.pos.File != "" {
			at = e.pos
		}
		if p.t.name != "" {
			what = p.t.name + "." + p.key
		}
		if p.key == "" || p.t.list && slices.Contains(identities[p.t.name], p.key) {
			gone[place{p.t, ""}] = true
			s.lost(at, what, f.What, f.Fix)
			s.draft.tables = slices.DeleteFunc(s.draft.tables, func(t *table) bool { return t == p.t })
			if p.t.list && s.draft.count(p.t.name) == 0 && (p.t.name == "signaling" || p.t.name == "logger") {
				s.draft.in("").put(p.t.name, []any{}, Pos{}, "nothing was imported")
			}
			continue
		}
		if at.File == "" {
			at = s.somewhere
		}
		s.lost(at, what, f.What, f.Fix)
		p.t.entries = slices.DeleteFunc(p.t.entries, func(e entry) bool { return e.key == p.key })
	}
	return done
}

func (s *site) head(kinds []Kind) []string {
	var names []string
	for _, k := range []Kind{Nginx, HAProxy, Coturn, Command} {
		if slices.Contains(kinds, k) {
			names = append(names, string(k))
		}
	}
	return []string{
		"Configuration of turngate, imported from " + strings.Join(names, " and ") + ". Every other key has a",
		`default: "turngate config init --reference FILE" writes a file that documents`,
		"them all. The end of a line says where a value came from.",
	}
}

// abs makes a path of a source relative to a directory.
func abs(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// prefixText writes a single address without its length.
func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// listen adds a listener for https, or for TURN.
func (s *site) listen(table, addr string, pos Pos) {
	s.draft.add(table, "listen", addr, pos)
}

// mergeListeners drops listeners that another one holds already, and writes
// those of TURN as those of https where they share a port.
func (s *site) mergeListeners() {
	https, turn := s.draft.in("https").get("listen"), s.draft.in("turn").get("listen")
	wild := map[string]bool{}
	clean := func(e *entry) {
		if e == nil {
			return
		}
		list := e.val.([]any)
		for _, v := range list {
			if port, ok := strings.CutPrefix(v.(string), ":"); ok {
				wild[port] = true
			}
		}
		var out []any
		for _, v := range list {
			text := v.(string)
			if port := text[strings.LastIndexByte(text, ':')+1:]; wild[port] {
				text = ":" + port
			}
			if !slices.Contains(out, any(text)) {
				out = append(out, text)
			}
		}
		e.val = out
	}
	clean(https)
	if https == nil {
		wild["443"] = true
	}
	clean(turn)
}
