package importer

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/turngate/turngate/config"
)

// turnSite is the TURN server of the sources. Options that belong together are
// kept until all of them are known.
type turnSite struct {
	*site
	dir string // relative paths start here

	port, tlsPort    coturnSetting
	listening        []listening
	noUDP, stunOnly  coturnSetting
	noTLS, noDTLS    bool
	minPort, maxPort coturnSetting
	relays           []external
	externals        []external

	longTerm, noAuth, useSecret coturnSetting
	secrets, users              []coturnSetting
	realm                       coturnSetting
	databases                   []database

	cert, key                         coturnSetting
	metrics, metricsPort, metricsAddr coturnSetting
}

type listening struct {
	addr netip.Addr
	pos  Pos
}

type external struct {
	public, private netip.Addr
	pos             Pos
}

type database struct {
	driver, dsn, option string
	pos                 Pos
}

// coturnSQLite is where coturn looks for users when no file says otherwise.
const coturnSQLite = "/var/lib/turn/turndb"

func (s *site) coturnFile(src Source) error {
	return s.coturn(src.Name, parseCoturn(src.Name, string(src.Data), 1))
}

// coturn takes the options of one TURN server.
func (s *site) coturn(name string, settings []coturnSetting) error {
	if s.hasTURN {
		return &SyntaxError{Pos{File: name}, "is the configuration of a second TURN server; import one at a time"}
	}
	s.hasTURN, s.source = true, name
	t := &s.turn
	t.site = s
	if t.dir == "" {
		t.dir = filepath.Dir(name)
	}
	known := coturnOptions
	for _, o := range settings {
		opt, ok := known[o.name]
		switch {
		case !ok:
			why, fix := "is no option of coturn that is known here", ""
			if near := config.Closest(o.name, slices.Sorted(maps.Keys(known))); near != "" {
				fix = fmt.Sprintf("did you mean %q?", near)
			}
			s.lost(o.pos, o.name, why, fix)
		case opt.takes != takesValue && o.given && !o.on():
		case opt.takes == takesValue && !o.given:
			s.lost(o.pos, o.name, "has no value", "")
		case opt.takes == takesValue && !utf8.ValidString(o.value):
			s.lost(o.pos, o.name, "is not UTF-8", "write it by hand")
		case opt.do != nil:
			opt.do(t, o)
		case opt.weight >= 0:
			s.remark(opt.weight, o.pos, o.name, opt.why, opt.fix)
		}
	}
	return nil
}

func (o coturnSetting) set() bool { return o.name != "" }

// number reads a number of an option, or says that it is none.
func (t *turnSite) number(o coturnSetting, most int) (int, bool) {
	n, err := strconv.Atoi(o.value)
	if err != nil || n < 0 || n > most {
		t.lost(o.pos, o.name, fmt.Sprintf("%q is not a number from 0 to %d", o.value, most), "")
		return 0, false
	}
	return n, true
}

func (t *turnSite) setPort(o coturnSetting) {
	if n, ok := t.number(o, 65535); ok && n > 0 {
		t.port = o
	}
}

func (t *turnSite) setTLSPort(o coturnSetting) {
	if n, ok := t.number(o, 65535); ok && n > 0 {
		t.tlsPort = o
	}
}

// hostAddr reads an address of a host.
func (t *turnSite) hostAddr(o coturnSetting, text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.Trim(text, "[]"))
	if a = a.Unmap(); err != nil || a.Zone() != "" || a.IsMulticast() {
		t.lost(o.pos, o.name, fmt.Sprintf("%q is not an IP address", text), "write the address by hand")
		return a, false
	}
	return a, true
}

func (t *turnSite) addListening(o coturnSetting) {
	if a, ok := t.hostAddr(o, o.value); ok {
		t.listening = append(t.listening, listening{a, o.pos})
	}
}

// addAux is a further listener of its own address and port.
func (t *turnSite) addAux(o coturnSetting) {
	ap, err := netip.ParseAddrPort(o.value)
	if err != nil || ap.Port() == 0 {
		t.lost(o.pos, o.name, fmt.Sprintf("%q is not an address with a port", o.value), "")
		return
	}
	t.listen("turn", listenText(ap.Addr().Unmap(), int(ap.Port())), o.pos)
}

func (t *turnSite) addRelay(o coturnSetting) {
	if a, ok := t.hostAddr(o, o.value); ok && !a.IsUnspecified() {
		t.relays = append(t.relays, external{public: a, pos: o.pos})
	}
}

func (t *turnSite) addExternal(o coturnSetting) {
	text := o.value
	if strings.Contains(text, "$") { // the variable of a script
		if t.opts.ExternalIP == "" {
			t.changed(o.pos, o.name, fmt.Sprintf("the value of %s is not known, so the address of this host is used", text), "give --external-ip ADDRESS, or write external_ip")
			return
		}
		text = t.opts.ExternalIP
	}
	public, private, pair := strings.Cut(text, "/")
	e := external{pos: o.pos}
	var ok bool
	if e.public, ok = t.hostAddr(o, public); !ok {
		return
	}
	if pair {
		if e.private, ok = t.hostAddr(o, private); !ok {
			return
		}
	}
	t.externals = append(t.externals, e)
}

func (t *turnSite) family(o coturnSetting) {
	if o.value != "ipv4" {
		t.changed(o.pos, o.name, "a client that does not say which family it wants gets an IPv4 relay (RFC 8656)", "")
	}
}

func (t *turnSite) separator(o coturnSetting) {
	if o.value != ":" {
		t.lost(o.pos, o.name, "the name of a time-limited credential is \"expiry:name\", with a colon", "change it where the credentials are made")
	}
}

func (t *turnSite) addDatabase(driver string, o coturnSetting) {
	dsn := o.value
	if driver == config.DriverSQLite {
		dsn = abs(t.dir, dsn)
	}
	t.databases = append(t.databases, database{driver, config.EscapeSecret(dsn), o.name, o.pos})
}

func (t *turnSite) otherDatabase(o coturnSetting) {
	t.databases = append(t.databases, database{option: o.name, pos: o.pos})
	t.lost(o.pos, o.name, "turngate reads users from SQLite, PostgreSQL and Redis only",
		"copy the users: turnadmin writes them to SQLite with the same command and -b FILE, or write them as [[turn.user]]")
}

// addPeers splits a range of addresses into the prefixes that are exactly it.
func (t *turnSite) addPeers(key string, o coturnSetting) {
	first, last, isRange := strings.Cut(strings.ReplaceAll(o.value, " ", ""), "-")
	var list []netip.Prefix
	if !isRange {
		p, ok := parsePrefix(first)
		if !ok {
			t.lost(o.pos, o.name, fmt.Sprintf("%q is not an address or a range", o.value), "")
			return
		}
		list = []netip.Prefix{p}
	} else {
		lo, errLo := netip.ParseAddr(first)
		hi, errHi := netip.ParseAddr(last)
		lo, hi = lo.Unmap(), hi.Unmap()
		if errLo != nil || errHi != nil || lo.Zone() != "" || hi.Zone() != "" || lo.Is4() != hi.Is4() || hi.Less(lo) {
			t.lost(o.pos, o.name, fmt.Sprintf("%q is not an address or a range", o.value), "")
			return
		}
		list = addrRange{lo, hi}.prefixes()
	}
	for _, p := range list {
		if e := t.draft.in("turn.peers").get(key); e != nil && len(e.val.([]any)) >= maxPerList {
			t.lost(o.pos, o.name, fmt.Sprintf("there are more than %d prefixes", maxPerList), "join them")
			return
		}
		t.draft.add("turn.peers", key, prefixText(p), o.pos)
	}
}

func (t *turnSite) loopback(o coturnSetting) {
	t.draft.add("turn.peers", "allow", "127.0.0.0/8", o.pos)
	t.draft.add("turn.peers", "allow", "::1", o.pos)
}

// limit is a quota; 0 is none in coturn, where turngate has a default.
func (t *turnSite) limit(key string, o coturnSetting, bytes bool) {
	n, ok := t.number(o, 1<<40)
	if !ok || n == 0 {
		return
	}
	if bytes {
		t.draft.in("turn.limits").put(key, fmt.Sprintf("%dB", n), o.pos, "")
		return
	}
	if n > 1<<30 {
		n = 0
	}
	t.draft.in("turn.limits").put(key, n, o.pos, "")
}

func (t *turnSite) addAlternate(o coturnSetting) {
	ap, err := netip.ParseAddrPort(o.value)
	a := ap.Addr()
	if err != nil {
		if a, err = netip.ParseAddr(strings.Trim(o.value, "[]")); err != nil {
			t.lost(o.pos, o.name, fmt.Sprintf("%q is not an address", o.value), "")
			return
		}
	}
	port := int(ap.Port())
	if port == 0 && o.name == "tls-alternate-server" {
		port = 5349
	}
	text := a.Unmap().String()
	if port != 0 {
		text = net.JoinHostPort(text, strconv.Itoa(port))
	}
	t.draft.add("turn", "alternates", text, o.pos)
	t.changed(o.pos, o.name, "clients are sent there only while this server drains or is full, and not one after the other", "to spread clients give them several turn: URLs")
}

func (t *turnSite) logFile(o coturnSetting) {
	switch o.value {
	case "stdout", "-", "syslog", "/dev/null", "/dev/stdout":
		return
	}
	t.notNeeded(o.pos, o.name, "turngate logs to standard error, which systemd keeps")
}

func (t *turnSite) otherFile(o coturnSetting) {
	t.changed(o.pos, o.name, "the file is not read here", "name it on the command line of the import too")
}

// writeTURN turns the options into tables.
func (s *site) writeTURN() {
	t := &s.turn
	if !s.hasTURN {
		if s.draft.in("turn").get("listen") == nil {
			s.draft.in("turn").put("listen", []any{}, Pos{}, "no TURN server was imported; without this line there is one on :3478")
		}
		s.mergeListeners()
		return
	}
	t.writeListeners()
	t.writeAddresses()
	t.writePorts()
	t.writeCredentials()
	t.writeTLS()
	t.writeMetrics()
	s.mergeListeners()
}

func listenText(a netip.Addr, port int) string {
	if !a.IsValid() || a.IsUnspecified() {
		return ":" + strconv.Itoa(port)
	}
	return net.JoinHostPort(a.String(), strconv.Itoa(port))
}

// writeListeners writes the plain ports. Without UDP they are listeners of
// https, which serve TURN over TCP and TLS.
func (t *turnSite) writeListeners() {
	port, pos := 3478, t.port.pos
	if t.port.set() {
		port, _ = strconv.Atoi(t.port.value)
	}
	table := "turn"
	if t.noUDP.set() {
		table = "https"
		t.changed(t.noUDP.pos, t.noUDP.name, fmt.Sprintf("port %d is served as one of https, which has TURN over TCP and TLS without UDP, and wss too", port), "")
		t.draft.in("turn").put("listen", []any{}, t.noUDP.pos, "no UDP")
	}
	each := t.listening
	if len(each) == 0 {
		each = []listening{{pos: pos}}
	}
	for _, l := range each {
		t.listen(table, listenText(l.addr, port), l.pos)
	}
	if t.noTLS || !t.cert.set() || !t.key.set() {
		if t.tlsPort.set() && !t.noTLS {
			t.changed(t.tlsPort.pos, t.tlsPort.name, "there is no certificate, so coturn did not serve it either; TURN over TLS is served on the listeners of https", "")
		}
		return
	}
	tlsPort := 5349
	if t.tlsPort.set() {
		tlsPort, _ = strconv.Atoi(t.tlsPort.value)
		pos = t.tlsPort.pos
	} else {
		pos = t.cert.pos
	}
	for _, l := range each {
		if l.pos.File == "" || !t.tlsPort.set() {
			l.pos = pos
		}
		t.listen("https", listenText(l.addr, tlsPort), l.pos)
	}
	if !t.noDTLS {
		t.changed(pos, "dtls", "turngate has no TURN over DTLS, which no browser uses", "")
	}
}

func (t *turnSite) writeAddresses() {
	list := t.externals
	if len(list) == 1 && !list[0].private.IsValid() {
		for _, r := range t.relays {
			if r.public.Is4() == list[0].public.Is4() && r.public != list[0].public {
				list[0].private = r.public
				break
			}
		}
	} else if len(list) == 0 {
		list = t.relays
	}
	var values []any
	for _, e := range list {
		text := e.public.String()
		if e.private.IsValid() && e.private != e.public {
			text += "/" + e.private.String()
		}
		if len(values) < maxPerList && !slices.Contains(values, any(text)) {
			values = append(values, text)
		}
	}
	if len(values) == 0 {
		return
	}
	var val any = values
	if len(values) == 1 {
		val = values[0]
	}
	t.draft.in("").put("external_ip", val, list[0].pos, "")
	if a := list[0].public; a.IsPrivate() {
		t.draft.in("").put("layout", config.Intranet, list[0].pos, "external_ip is of the intranet")
	}
}

// writePorts writes the range also when coturn had its own, because firewalls
// are open for it.
func (t *turnSite) writePorts() {
	lo, errLo := strconv.Atoi(cmpOr(t.minPort.value, "49152"))
	hi, errHi := strconv.Atoi(cmpOr(t.maxPort.value, "65535"))
	if errLo == nil && errHi == nil && lo > hi {
		o := t.maxPort
		if !o.set() {
			o = t.minPort
		}
		t.lost(o.pos, o.name, fmt.Sprintf("the range from %d to %d is empty, so the default of turngate is used", lo, hi), "write min_port and max_port, and open the firewall for them")
		return
	}
	for _, p := range []struct {
		key string
		o   coturnSetting
		def int
	}{{"min_port", t.minPort, 49152}, {"max_port", t.maxPort, 65535}} {
		n, note := p.def, "the default of coturn"
		if p.o.set() {
			var ok bool
			if n, ok = t.number(p.o, 65535); !ok {
				n = p.def
			} else {
				note = ""
			}
		}
		t.draft.in("turn").put(p.key, n, p.o.pos, note)
	}
}

func (t *turnSite) writeCredentials() {
	if t.realm.set() && t.realm.value != "" && t.realm.value != "(None)" {
		t.draft.in("turn").put("realm", t.realm.value, t.realm.pos, "")
	}
	if t.stunOnly.set() {
		t.lost(t.stunOnly.pos, t.stunOnly.name, "turngate has TURN wherever it has STUN", "no user was imported, so nobody can use the relay")
		return
	}
	if t.noAuth.set() {
		t.lost(t.noAuth.pos, t.noAuth.name, "turngate relays for nobody without a credential", "write [[turn.user]] and give clients its name and password")
		return
	}
	byTime := t.useSecret.set() || len(t.secrets) > 0
	if byTime {
		for _, o := range t.secrets {
			if o.value == "" {
				t.lost(o.pos, o.name, "is empty", "")
				continue
			}
			t.draft.add("turn", "secrets", config.EscapeSecret(o.value), o.pos)
		}
		for _, o := range t.users {
			t.notNeeded(o.pos, o.name, "coturn has no users beside a secret; write [[turn.user]] if there should be some")
		}
	} else {
		t.writeUsers()
	}
	if n := len(t.databases); n > 1 {
		for _, d := range t.databases[:n-1] {
			t.notNeeded(d.pos, d.option, "coturn asks the last database that is named")
		}
		t.databases = t.databases[n-1:]
	}
	switch {
	case len(t.databases) == 1 && t.databases[0].driver != "":
		d := t.databases[0]
		db := t.draft.another("turn.database", d.pos, "")
		db.put("driver", d.driver, Pos{}, "")
		db.put("dsn", d.dsn, Pos{}, "")
	case len(t.databases) == 1:
	case byTime && len(t.secrets) == 0, !byTime && len(t.users) == 0 && t.longTerm.set():
		o := t.longTerm
		if byTime {
			o = t.useSecret
		}
		t.changed(o.pos, o.name, "the file has no credential, so those of coturn's default database are used", "check that "+coturnSQLite+" is where they are")
		db := t.draft.another("turn.database", o.pos, "the default of coturn")
		db.put("driver", config.DriverSQLite, Pos{}, "")
		db.put("dsn", coturnSQLite, Pos{}, "")
	case !byTime && len(t.users) == 0:
		t.lost(Pos{File: t.source}, "no-auth", "the file has no credential, so coturn relays for everybody; turngate does not", "write [[turn.user]] and give clients its name and password")
	}
}

func (t *turnSite) writeUsers() {
	seen := map[string]bool{}
	for i, o := range t.users {
		if i >= maxUsers {
			t.lost(o.pos, o.name, fmt.Sprintf("there are more than %d users", maxUsers), "keep them in a database: [[turn.database]]")
			return
		}
		name, password, ok := strings.Cut(o.value, ":")
		switch {
		case !ok || name == "" || password == "":
			t.lost(o.pos, o.name, "is not NAME:PASSWORD", "write it as [[turn.user]]")
		case seen[name]:
			t.lost(o.pos, o.name, fmt.Sprintf("%q is there twice, and coturn keeps one", name), "check which password counts")
		case strings.HasPrefix(password, "0x") && len(password) == 34:
			t.lost(o.pos, o.name, fmt.Sprintf("%q has a key and no password: an MD5 sum from which the password cannot be found", name), "set a new password in [[turn.user]], or keep the user in a database, which may hold keys")
		default:
			seen[name] = true
			u := t.draft.another("turn.user", o.pos, "")
			u.put("name", name, Pos{}, "")
			u.put("password", config.EscapeSecret(password), Pos{}, "")
		}
	}
}

func (t *turnSite) writeTLS() {
	switch {
	case t.noTLS && t.noDTLS || !t.cert.set() && !t.key.set():
	case t.cert.set() && t.key.set():
		t.addPair(abs(t.dir, t.cert.value), abs(t.dir, t.key.value), t.cert.pos, t.key.pos)
	default:
		o := t.cert
		if !o.set() {
			o = t.key
		}
		t.changed(o.pos, o.name, "a certificate needs its key, and the other way round: the pair was left out", "write both in [tls]")
	}
}

// addPair adds a certificate and its key to those of the site, once.
func (s *site) addPair(cert, key string, pos, keyPos Pos) {
	t := s.draft.in("tls")
	if c := t.get("cert"); c != nil {
		for i, v := range c.val.([]any) {
			if v == cert && t.get("key").val.([]any)[i] == key {
				return
			}
		}
		if len(c.val.([]any)) >= 50 {
			s.lost(pos, "certificate", "there are more than 50 certificates", "write it in [tls]")
			return
		}
		c.val = append(c.val.([]any), cert)
		k := t.get("key")
		k.val = append(k.val.([]any), key)
		return
	}
	t.put("cert", []any{cert}, pos, "")
	t.put("key", []any{key}, keyPos, "")
}

func (t *turnSite) writeMetrics() {
	if !t.metrics.set() {
		return
	}
	port, addr := 9641, netip.Addr{}
	if t.metricsPort.set() {
		if n, ok := t.number(t.metricsPort, 65535); ok && n > 0 {
			port = n
		}
	}
	if t.metricsAddr.set() {
		addr, _ = t.hostAddr(t.metricsAddr, t.metricsAddr.value)
	}
	t.draft.in("admin").put("metrics", listenText(addr, port), t.metrics.pos, "")
	t.changed(t.metrics.pos, t.metrics.name, "the metrics have names of turngate", "see the operations manual for alarms and graphs")
}
