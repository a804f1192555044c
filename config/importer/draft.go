package importer

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/turngate/turngate/config"
)

// entry is one key of the result.
type entry struct {
	key  string
	val  any // string, int, bool, []any, map[string]any or nested ones
	pos  Pos
	note string // stands in the comment, before the place
}

// table is one table of the result.
type table struct {
	name    string // "" is the top of the file
	list    bool   // [[name]]
	pos     Pos
	note    string
	entries []entry
}

func (t *table) get(key string) *entry {
	for i := range t.entries {
		if t.entries[i].key == key {
			return &t.entries[i]
		}
	}
	return nil
}

// put sets a key, also again.
func (t *table) put(key string, val any, pos Pos, note string) {
	if e := t.get(key); e != nil {
		*e = entry{key, val, pos, note}
		return
	}
	t.entries = append(t.entries, entry{key, val, pos, note})
}

// draft is the result while it grows.
type draft struct{ tables []*table }

// order is that of the reference file. A list of tables that nobody wrote is
// empty there, see site.write.
var order = []string{"", "tls", "https", "https.limits", "turn", "turn.user", "turn.database", "turn.peers", "turn.limits",
	"signaling", "logger", "trtc", "admin", "log"}

var topKeys = []string{"layout", "domain", "external_ip", "signaling", "logger"}

// in returns the only table of a name.
func (d *draft) in(name string) *table {
	for _, t := range d.tables {
		if t.name == name && !t.list {
			return t
		}
	}
	t := &table{name: name}
	d.tables = append(d.tables, t)
	return t
}

// another adds a table to a list of tables.
func (d *draft) another(name string, pos Pos, note string) *table {
	t := &table{name: name, list: true, pos: pos, note: note}
	d.tables = append(d.tables, t)
	return t
}

func (d *draft) count(name string) int {
	n := 0
	for _, t := range d.tables {
		if t.name == name && t.list {
			n++
		}
	}
	return n
}

// add appends to a list, once.
func (d *draft) add(name, key string, elem any, pos Pos) {
	t := d.in(name)
	e := t.get(key)
	if e == nil {
		t.put(key, []any{elem}, pos, "")
		return
	}
	list := e.val.([]any)
	if len(list) < maxPerList && !slices.ContainsFunc(list, func(o any) bool { return literal(o) == literal(elem) }) {
		e.val = append(list, elem)
	}
}

// dropDefaults takes out what is so without being said.
func (d *draft) dropDefaults() {
	base := ""
	if e := d.in("").get("domain"); e != nil {
		base = "domain = " + literal(e.val) + "\n"
	}
	top := defaults(base, "")
	known := map[string]map[string]string{}
	for _, t := range d.tables {
		identity, def := []string{}, top
		if t.list {
			identity = identities[t.name]
			text, id := "[["+t.name+"]]\n", t.name
			if p := t.get("preset"); p != nil {
				identity = []string{"preset"}
				text += "preset = " + literal(p.val) + "\n"
				id += literal(p.val)
			} else if strings.HasPrefix(t.name, "turn.") {
				continue
			} else {
				text += "path = \"/x\"\nupstream = [\"https://x/\"]\n"
			}
			if known[id] == nil {
				known[id] = defaults(text, t.name+"[0].")
			}
			def = known[id]
		}
		t.entries = slices.DeleteFunc(t.entries, func(e entry) bool {
			key := e.key
			if !t.list && t.name != "" {
				key = t.name + "." + e.key
			}
			have, ok := def[key]
			return ok && key != "domain" && !slices.Contains(identity, e.key) && have == literal(e.val)
		})
	}
}

// identities are the keys without which a table has no meaning.
var identities = map[string][]string{
	"signaling":     {"preset", "path", "upstream", "clients"},
	"logger":        {"preset", "path", "upstream"},
	"turn.user":     {"name", "password"},
	"turn.database": {"driver", "dsn"},
}

// defaults are the effective values of a file, as literals, by key without the
// given beginning.
func defaults(text, within string) map[string]string {
	cfg, findings := config.LoadBytes("", []byte(text), config.Env{})
	if cfg == nil {
		return map[string]string{} // a domain that is none, say: reported when the whole is loaded
	}
	_ = findings
	m := map[string]string{}
	for _, v := range cfg.Values() {
		if key, ok := strings.CutPrefix(v.Key, within); ok {
			m[key] = literal(v.Value)
		}
	}
	return m
}

// place says which entry stands on a line of the result; key is "" for the head
// of a table.
type place struct {
	t   *table
	key string
}

// render writes the file. The places are by line, from 1; those of comments and
// blank lines are empty.
func (d *draft) render(head []string) (text string, places []place) {
	var b strings.Builder
	places = []place{{}}
	line := func(s string, p place) {
		b.WriteString(s + "\n")
		places = append(places, p)
	}
	for _, h := range head {
		line(strings.TrimRight("# "+h, " "), place{})
	}
	slices.SortStableFunc(d.tables, func(a, b *table) int { return slices.Index(order, a.name) - slices.Index(order, b.name) })
	for _, t := range d.tables {
		if len(t.entries) == 0 && !t.list {
			continue
		}
		line("", place{})
		if t.name == "" {
			slices.SortStableFunc(t.entries, func(a, b entry) int { return slices.Index(topKeys, a.key) - slices.Index(topKeys, b.key) })
		}
		if t.note != "" {
			line("# "+printable(t.note), place{})
		}
		switch {
		case t.list:
			line("[["+t.name+"]]"+comment("", t.pos), place{t, ""})
		case t.name != "":
			line("["+t.name+"]", place{t, ""})
		}
		for _, e := range t.entries {
			text := e.key + " = " + literal(e.val)
			list, isList := e.val.([]any)
			if !isList || len(text) < 100 || len(list) < 2 {
				line(text+comment(e.note, e.pos), place{t, e.key})
				continue
			}
			line(e.key+" = ["+comment(e.note, e.pos), place{t, e.key})
			for _, v := range list {
				line("  "+literal(v)+",", place{t, e.key})
			}
			line("]", place{t, e.key})
		}
	}
	return b.String(), places
}

func comment(note string, pos Pos) string {
	at := ""
	if pos.File != "" {
		at = pos.String()
	}
	switch {
	case note != "" && at != "":
		note += ", " + at
	case note == "":
		note = at
	}
	if note == "" {
		return ""
	}
	return "  # " + printable(note)
}

// literal is a value as TOML on one line.
func literal(v any) string {
	switch x := v.(type) {
	case string:
		return config.Quote(x)
	case []any:
		parts := make([]string, len(x))
		for i, e := range x {
			parts[i] = literal(e)
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case map[string]any:
		if len(x) == 0 {
			return "{}"
		}
		var parts []string
		for _, k := range slices.Sorted(maps.Keys(x)) {
			parts = append(parts, tomlKey(k)+" = "+literal(x[k]))
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	}
	return fmt.Sprint(v)
}

func tomlKey(k string) string {
	for _, r := range k {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-') {
			return config.Quote(k)
		}
	}
	if k == "" {
		return `""`
	}
	return k
}

func anys[T any](list []T, f func(T) any) []any {
	out := make([]any, len(list))
	for i, e := range list {
		out[i] = f(e)
	}
	return out
}
