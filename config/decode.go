package config

import (
	"encoding"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"
)

// decoder moves the values of a parsed file into a Config. Unlike the TOML
// library it goes on after a wrong value, knows the line of each, and does
// not take "Listen" for "listen".
type decoder struct {
	*report
	env Env
	dir string          // relative paths start here
	set map[string]bool // keys of values that the file gives
}

// table moves the values of m into the struct dst, as far as they fit.
func (d *decoder) table(path string, m map[string]any, dst reflect.Value) {
	fields := fieldsOf(dst.Type())
	for _, key := range sortedKeys(m) {
		full := child(path, key)
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == key })
		if i < 0 {
			what, fix := unknownKey(path, key, m[key], dst.Type())
			d.err(full, what, fix)
			continue
		}
		d.value(full, m[key], dst.FieldByIndex(fields[i].index), fields[i])
	}
}

func (d *decoder) value(path string, v any, dst reflect.Value, f field) {
	switch {
	case isTable(f.typ):
		m, ok := v.(map[string]any)
		switch {
		case ok:
			d.table(path, m, dst)
		case isList(v):
			d.err(path, "is a list of tables, but there is only one", fmt.Sprintf("write [%s]", path))
		default:
			d.err(path, "is "+kindOf(v)+", not a table", fmt.Sprintf("write [%s] and its keys below", path))
		}
	case isTables(f.typ):
		d.tables(path, v, dst)
	default:
		d.set[path] = true
		d.leaf(path, v, dst, f)
	}
}

// tables fills a list of tables.
func (d *decoder) tables(path string, v any, dst reflect.Value) {
	if _, ok := v.(map[string]any); ok {
		d.err(path, "is a single table, but there can be several", fmt.Sprintf("write [[%s]]", path))
		return
	}
	list, ok := listOf(v)
	if !ok {
		d.err(path, "is "+kindOf(v)+", not a list of tables", fmt.Sprintf("write [[%s]] for each, or %s = [] for none", path, path))
		return
	}
	d.set[path] = true
	dst.Set(reflect.MakeSlice(dst.Type(), len(list), len(list)))
	for i, e := range list {
		at, elem := element(path, i), dst.Index(i)
		m, ok := e.(map[string]any)
		if !ok {
			d.err(at, "is "+kindOf(e)+", not a table", fmt.Sprintf("write [[%s]]", path))
			continue
		}
		if r, ok := elem.Addr().Interface().(interface{ reset(preset string) }); ok {
			preset, _ := m["preset"].(string)
			r.reset(preset)
		}
		d.table(at, m, elem)
	}
}

// leaf fills one value; on any error dst keeps what it had.
func (d *decoder) leaf(path string, v any, dst reflect.Value, f field) {
	switch dst.Kind() {
	case reflect.Slice:
		list, ok := listOf(v)
		if !ok && !f.single {
			d.err(path, "is "+kindOf(v)+", not a list", "put it in brackets: "+f.name+" = [ ... ]")
			return
		}
		if !ok && v != "" {
			list = []any{v}
		}
		out := reflect.MakeSlice(f.typ, 0, len(list))
		for i, e := range list {
			at := path
			if ok {
				at = element(path, i)
			}
			ev := reflect.New(f.typ.Elem()).Elem()
			if d.scalar(at, e, ev, f) {
				out = reflect.Append(out, ev)
			}
		}
		if out.Len() == 0 {
			out = reflect.Zero(f.typ) // [] and a missing key are the same
		}
		dst.Set(out)
	case reflect.Map:
		m, ok := v.(map[string]any)
		if !ok {
			d.err(path, "is "+kindOf(v)+", not a table", f.name+` = { "name" = "value" }`)
			return
		}
		out := reflect.MakeMap(f.typ)
		for _, k := range sortedKeys(m) {
			ev := reflect.New(f.typ.Elem()).Elem()
			if d.scalar(child(path, k), m[k], ev, f) {
				out.SetMapIndex(reflect.ValueOf(k), ev)
			}
		}
		if out.Len() == 0 {
			out = reflect.Zero(f.typ)
		}
		dst.Set(out)
	default:
		d.scalar(path, v, dst, f)
	}
}

// scalar fills one value that is not a list, and reports whether it did.
func (d *decoder) scalar(path string, v any, dst reflect.Value, f field) bool {
	if t, ok := dst.Addr().Interface().(*Target); ok {
		return d.target(path, v, t)
	}
	err := d.assign(v, dst)
	if err == nil && f.one != nil && !slices.Contains(f.one, dst.String()) {
		err = &wrong{fmt.Sprintf("%q is not known", dst.String()), "write " + oneOf(f.one)}
	}
	if err == nil {
		return true
	}
	if w, ok := err.(*wrong); ok {
		d.err(path, w.what, w.fix)
	} else {
		d.err(path, err.Error(), "")
	}
	return false
}

// target fills an upstream from a URL or a table.
func (d *decoder) target(path string, v any, t *Target) bool {
	before := len(d.findings)
	t.Weight = MaxWeight
	m, isTable := v.(map[string]any)
	if _, isString := v.(string); !isTable && !isString {
		d.err(path, "is "+kindOf(v), `write "https://host/path" or { url = "https://host/path", weight = 50 }`)
		return false
	}
	if isTable {
		d.table(path, m, reflect.ValueOf(t).Elem())
	} else {
		d.scalar(path, v, reflect.ValueOf(&t.URL).Elem(), field{})
	}
	if t.URL == nil && len(d.findings) == before {
		d.err(path, "has no url", `write { url = "https://host/path", ... }`)
	}
	return t.URL != nil && len(d.findings) == before
}

// assign converts v to the type of dst. A value of the wrong TOML type is
// named by its type, never by itself: it may be a secret.
func (d *decoder) assign(v any, dst reflect.Value) error {
	text, isString := v.(string)
	number, isInt := v.(int64)
	expect := func(ok bool, form string) error {
		if ok {
			return nil
		}
		return &wrong{"is " + kindOf(v), "write " + form}
	}
	switch p := dst.Addr().Interface().(type) {
	case *HeaderValue:
		return d.assign(v, reflect.ValueOf(&p.Secret).Elem())
	case *Secret:
		if err := expect(isString, "a string"); err != nil {
			return err
		}
		s, err := resolveSecret(text, d.dir, d.env)
		if err == nil {
			*p = s
		}
		return err
	case *netip.Prefix:
		if err := expect(isString, `a string like "192.0.2.0/24"`); err != nil {
			return err
		}
		return keep(p)(parsePrefix(text))
	case **url.URL:
		if err := expect(isString, `a string like "https://host/path"`); err != nil {
			return err
		}
		return keep(p)(parseURL(text))
	case *slog.Level:
		if err := expect(isString, `a string like "info"`); err != nil {
			return err
		}
		return keep(p)(parseLevel(text))
	case interface{ setInt(int64) error }:
		if isInt {
			return p.setInt(number)
		}
	}
	if p, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := expect(isString, "a string like "+example(dst.Type())); err != nil {
			return err
		}
		return p.UnmarshalText([]byte(text))
	}
	switch dst.Kind() {
	case reflect.String:
		if err := expect(isString, "a string, in quotes"); err != nil {
			return err
		}
		if strings.ContainsFunc(text, isControl) {
			return &wrong{"has a control character in it", "remove it"}
		}
		dst.SetString(text)
	case reflect.Bool:
		b, isBool := v.(bool)
		if err := expect(isBool, "true or false, without quotes"); err != nil {
			return err
		}
		dst.SetBool(b)
	case reflect.Int:
		if err := expect(isInt, "a whole number, without quotes"); err != nil {
			return err
		}
		if number < 0 || number > 1<<31-1 {
			return &wrong{fmt.Sprintf("%d is out of range", number), "write a number from 0 to 2147483647"}
		}
		dst.SetInt(number)
	case reflect.Uint16:
		if err := expect(isInt, "a port number, without quotes"); err != nil {
			return err
		}
		if number < 1 || number > 65535 {
			return &wrong{fmt.Sprintf("%d is not a port", number), "write a number from 1 to 65535"}
		}
		dst.SetUint(uint64(number))
	case reflect.Uint64:
		if err := expect(isInt, "a whole number, without quotes"); err != nil {
			return err
		}
		if number < 0 {
			return &wrong{fmt.Sprintf("%d is negative", number), "write the number of the application"}
		}
		dst.SetUint(uint64(number))
	}
	return nil
}

// keep stores the result of a parser in p unless it failed.
func keep[T any](p *T) func(T, error) error {
	return func(v T, err error) error {
		if err == nil {
			*p = v
		}
		return err
	}
}

// example is a value of t as the file writes it.
func example(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return `"10s"`
	case reflect.TypeFor[Size]():
		return `"512KiB"`
	case reflect.TypeFor[ListenAddr]():
		return `":443"`
	case reflect.TypeFor[PortRange]():
		return `"8000-8010"`
	case reflect.TypeFor[PeerRule]():
		return `"203.0.113.0/24:8000"`
	case reflect.TypeFor[FixedAddr]():
		return `"192.0.2.7:443"`
	}
	return `"203.0.113.7"`
}

// kindOf names the TOML type of a value.
func kindOf(v any) string {
	switch v.(type) {
	case string:
		return "a string"
	case int64:
		return "a whole number"
	case float64:
		return "a decimal number"
	case bool:
		return "true or false"
	case time.Time:
		return "a date"
	case map[string]any:
		return "a table"
	}
	return "a list"
}

// listOf returns the elements of either kind of list that the parser makes.
func listOf(v any) ([]any, bool) {
	switch l := v.(type) {
	case []any:
		return l, true
	case []map[string]any:
		list := make([]any, len(l))
		for i, m := range l {
			list[i] = m
		}
		return list, true
	}
	return nil, false
}

func isList(v any) bool { _, ok := listOf(v); return ok }

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func oneOf(words []string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = fmt.Sprintf("%q", w)
	}
	if n := len(quoted); n > 1 {
		return strings.Join(quoted[:n-1], ", ") + " or " + quoted[n-1]
	}
	return strings.Join(quoted, "")
}

func isControl(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 }
