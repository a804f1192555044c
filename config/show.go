package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// Value is one effective value of a Config. A secret's value reads "[secret]",
// or where it is read from.
type Value struct {
	Key    string `json:"key"`
	Value  any    `json:"value"` // string, int64, bool, list or table of these
	Origin Origin `json:"origin"`
	Reload Reload `json:"reload,omitempty"`
}

// Values lists every effective value, in the order of the reference file.
func (c *Config) Values() []Value {
	var list []Value
	walk(reflect.ValueOf(c).Elem(), "", byIndex, func(l leaf) {
		list = append(list, Value{l.key, plain(l.value), c.origins[l.key], l.reload})
	})
	return list
}

// Origin says where the value of a key came from.
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// WriteTable writes every effective value with its origin, for reading.
func (c *Config) WriteTable(w io.Writer) error {
	var b bytes.Buffer
	for _, v := range c.Values() {
		fmt.Fprintf(&b, "%-52s  # %s\n", v.Key+" = "+literal(v.Value), v.Origin)
	}
	_, err := w.Write(b.Bytes())
	return err
}

// WriteJSON writes every effective value with its origin and reload class.
func (c *Config) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(c.Values())
}

// WriteTOML writes a file with every effective value. Literal secrets are
// replaced by a placeholder that [Load] refuses.
func (c *Config) WriteTOML(w io.Writer) error {
	var b bytes.Buffer
	writeTables(&b, reflect.ValueOf(c).Elem(), "")
	_, err := w.Write(b.Bytes())
	return err
}

// writeTables writes the values of a table and then the tables in it.
func writeTables(b *bytes.Buffer, v reflect.Value, path string) {
	fields := fieldsOf(v.Type())
	for _, f := range fields {
		if fv := v.FieldByIndex(f.index); !isTable(f.typ) && (!isTables(f.typ) || fv.Len() == 0) {
			fmt.Fprintf(b, "%s = %s\n", f.name, literal(plain(fv)))
		}
	}
	for _, f := range fields {
		fv, key := v.FieldByIndex(f.index), child(path, f.name)
		if isTable(f.typ) {
			fmt.Fprintf(b, "\n[%s]\n", key)
			writeTables(b, fv, key)
		} else if isTables(f.typ) {
			for i := range fv.Len() {
				fmt.Fprintf(b, "\n[[%s]]\n", key)
				writeTables(b, fv.Index(i), key)
			}
		}
	}
}

// literal is a plain value as TOML on one line.
func literal(v any) string {
	switch x := v.(type) {
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
		parts := make([]string, 0, len(x))
		for _, k := range sortedKeys(x) {
			parts = append(parts, toml.Key{k}.String()+" = "+literal(x[k]))
		}
		return "{ " + strings.Join(parts, ", ") + " }"
	case string:
		return Quote(x)
	}
	return fmt.Sprint(v)
}

// Quote writes a TOML basic string.
func Quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case isControl(r):
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Change is a key whose value differs between two configurations.
type Change struct {
	// Key names elements of lists by what they are, not by their position:
	// signaling["/ws/"].upstream, turn.user["alice"].password.
	Key    string `json:"key"`
	Old    string `json:"old"` // as TOML, secrets masked; "" when the key is new
	New    string `json:"new"` // "" when the key is gone
	Reload Reload `json:"reload"`
}

// Changes lists what differs between two configurations, keys of the old one
// first.
func Changes(old, new *Config) []Change {
	before, keys := byIdentity(old)
	after, more := byIdentity(new)
	var changes []Change
	for _, key := range keys {
		a := before[key]
		b, still := after[key]
		if still && reflect.DeepEqual(a.value.Interface(), b.value.Interface()) {
			continue
		}
		c := Change{Key: key, Old: literal(plain(a.value)), Reload: a.reload}
		if still {
			c.New = literal(plain(b.value))
		}
		changes = append(changes, c)
	}
	for _, key := range more {
		if _, known := before[key]; !known {
			changes = append(changes, Change{Key: key, New: literal(plain(after[key].value)), Reload: after[key].reload})
		}
	}
	return changes
}

// byIdentity lists the values of c by keys that do not move when an element is
// put into a list before others.
func byIdentity(c *Config) (values map[string]leaf, keys []string) {
	values = map[string]leaf{}
	name := func(list string, _ int, elem reflect.Value) string {
		return fmt.Sprintf("%s[%q]", list, elem.Field(0).String()) // the path of a route, the name of a user
	}
	walk(reflect.ValueOf(c).Elem(), "", name, func(l leaf) {
		if isTables(l.typ) {
			return // an empty list: its elements are the news
		}
		values[l.key] = l
		keys = append(keys, l.key)
	})
	return values, keys
}
