package importer

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/turngate/turngate/config"
)

// nginxConf is nginx's configuration while it is interpreted.
type nginxConf struct {
	*site
	prefix    string
	upstreams map[string]*directive
	upgrades  map[string]bool // variables that a map makes of $http_upgrade
	zones     map[string]zone
}

// zone is a limit_conn_zone or limit_req_zone.
type zone struct{ key, rate string }

// scope is the blocks around a place, the innermost last.
type scope []*level

// level is one block, with its directives by name.
type level struct {
	list   []*directive
	byName map[string][]*directive
}

func block(list []*directive) *level {
	l := &level{list, map[string][]*directive{}}
	for _, d := range list {
		l.byName[d.name] = append(l.byName[d.name], d)
	}
	return l
}

// all are the directives of a name at the innermost level that has one: nginx
// inherits them all or none.
func (sc scope) all(name string) []*directive {
	for i := len(sc) - 1; i >= 0; i-- {
		if found := sc[i].byName[name]; found != nil {
			for _, d := range found {
				d.used = true
			}
			return found
		}
	}
	return nil
}

// one is the directive of a name that counts, or nil.
func (sc scope) one(name string) *directive {
	if list := sc.all(name); len(list) > 0 {
		return list[len(list)-1]
	}
	return nil
}

// is reports whether a switch has a value.
func (sc scope) is(name, value string) bool {
	d := sc.one(name)
	return d != nil && d.arg(0) == value
}

// within opens a block.
func (sc scope) within(list []*directive) scope { return append(slices.Clone(sc), block(list)) }

var nginxBlocks = []string{"http", "server", "location", "events", "stream", "upstream", "map", "mail", "types", "geo"}

// nginxFiles interprets all nginx files of the sources as one configuration.
func (s *site) nginxFiles(sources []Source) error {
	c := &nginxConf{site: s, upstreams: map[string]*directive{}, upgrades: map[string]bool{}, zones: map[string]zone{}}
	r := &nginxReader{opts: s.opts, read: map[string]bool{}}
	r.missing = func(d *directive, name string, err error) {
		reason := "cannot be read"
		if errors.Is(err, fs.ErrNotExist) {
			reason = "does not exist here"
		}
		s.lost(d.pos, d.name, fmt.Sprintf("%s %s, so what it holds was not imported", name, reason), "import on the host of nginx, or import the output of \"nginx -T\"")
	}
	var top []*directive
	var failed []error
	for _, src := range sources {
		if r.read[src.Name] {
			continue // included already
		}
		main, dump := splitDump(src)
		r.dump = dump
		if c.prefix == "" {
			if c.prefix = s.opts.Prefix; c.prefix == "" {
				c.prefix = nginxPrefix(main.Name)
			}
		}
		r.prefix = c.prefix
		list, err := r.file(main.Name, main.Data)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		top = append(top, list...)
	}
	if len(failed) > 0 {
		return errors.Join(failed...)
	}
	c.interpret(top)
	return nil
}

// nginxPrefix is the directory of the main file: that above the ones where parts
// of it lie.
func nginxPrefix(name string) string {
	dir := filepath.Dir(name)
	switch filepath.Base(dir) {
	case "conf.d", "sites-enabled", "sites-available", "snippets", "default.d", "http.d":
		return filepath.Dir(dir)
	}
	return dir
}

func (c *nginxConf) interpret(top []*directive) {
	var http, bare []*directive
	for _, d := range top {
		switch d.name {
		case "http":
			d.used = true
			http = append(http, d.block...)
		case "stream":
			d.used = true
			c.stream(d)
		case "location":
			bare = append(bare, d)
		case "server", "upstream", "map", "limit_conn_zone", "limit_req_zone", "set_real_ip_from", "real_ip_header", "proxy_set_header":
			http = append(http, d) // a part of the configuration, without the rest
		}
	}
	if len(bare) > 0 {
		c.changed(bare[0].pos, "location", "there is no server around it, so a name and a certificate are missing", "write domain and [tls]")
		http = append(http, &directive{name: "server", used: true, pos: bare[0].pos, block: bare, args: []string{"bare"}})
	}
	for _, d := range http {
		switch d.name {
		case "upstream":
			c.upstreams[d.arg(0)] = d
		case "map":
			if d.used = d.arg(0) == "$http_upgrade"; d.used {
				c.upgrades[d.arg(1)] = true
				use(d.block)
			}
		case "limit_conn_zone", "limit_req_zone":
			d.used = true
			z := zone{key: d.arg(0)}
			name := ""
			for _, a := range d.args[min(1, len(d.args)):] {
				if v, ok := strings.CutPrefix(a, "zone="); ok {
					name, _, _ = strings.Cut(v, ":")
				} else if v, ok := strings.CutPrefix(a, "rate="); ok {
					z.rate = v
				}
			}
			c.zones[d.name+name] = z
		}
	}
	around := block(http)
	for _, d := range http {
		if d.name == "server" {
			d.used = true
			c.server(scope{around, block(d.block)}, d)
		}
	}
	c.leftovers(top)
}

// leftovers remarks on every directive that nothing has read.
func (c *nginxConf) leftovers(list []*directive) {
	for _, d := range list {
		if d.used {
			c.leftovers(d.block)
			continue
		}
		known, ok := nginxTable[d.name]
		switch {
		case !ok && strings.Contains(d.name, "_by_lua"):
			c.lost(d.pos, d.name, "turngate runs no Lua", "")
		case !ok && moduleOf(d.name) != "":
			c.lost(d.pos, d.name, "turngate has nothing like it: "+moduleOf(d.name), "")
		case !ok:
			c.lost(d.pos, d.name, "turngate has nothing like it", "")
		case known.weight >= 0:
			c.remark(known.weight, d.pos, d.name, known.why, known.fix)
		}
	}
}

// use marks a block and everything in it as read.
func use(list []*directive) {
	for _, d := range list {
		d.used = true
		use(d.block)
	}
}

// find reports whether a directive stands in a block, at any depth.
func find(list []*directive, names ...string) *directive {
	for _, d := range list {
		if slices.Contains(names, d.name) {
			return d
		}
		if in := find(d.block, names...); in != nil {
			return in
		}
	}
	return nil
}

// nginxTime reads a duration of nginx: "60", "60s", "1h30m", "500ms".
func nginxTime(s string) (time.Duration, bool) {
	total, number, had := time.Duration(0), "", false
	add := func(unit time.Duration) bool {
		n, err := strconv.ParseInt(number, 10, 32)
		total += time.Duration(n) * unit
		number, had = "", true
		return err == nil && total >= 0
	}
	for i := 0; i < len(s); i++ {
		unit := time.Duration(0)
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			number += string(c)
			continue
		case c == 'm' && i+1 < len(s) && s[i+1] == 's':
			unit = time.Millisecond
			i++
		case c == 's':
			unit = time.Second
		case c == 'm':
			unit = time.Minute
		case c == 'h':
			unit = time.Hour
		case c == 'd':
			unit = 24 * time.Hour
		case c == 'w':
			unit = 7 * 24 * time.Hour
		case c == 'M':
			unit = 30 * 24 * time.Hour
		case c == 'y':
			unit = 365 * 24 * time.Hour
		}
		if unit == 0 || !add(unit) {
			return 0, false
		}
	}
	if number != "" && !add(time.Second) {
		return 0, false
	}
	return total, had && total < 10*365*24*time.Hour
}

// nginxSize reads a size of nginx: "8m", "512k", "1g", "1024".
func nginxSize(s string) (int64, bool) {
	unit := int64(1)
	if s != "" {
		switch s[len(s)-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 32)
	return n * unit, err == nil && n >= 0
}

func durationText(d time.Duration) string { return config.Duration(d).String() }
