package config

import (
	"encoding"
	"log/slog"
	"net/url"
	"reflect"
	"strings"
)

// Reload says when a changed key takes effect.
type Reload string

const (
	Live    Reload = "live"    // at a reload
	Restart Reload = "restart" // at the next start
)

// field is one key of a table.
type field struct {
	name   string
	index  []int
	typ    reflect.Type
	reload Reload
	one    []string // the words it may hold; nil: anything
	single bool     // a list that may be written as one value
}

// fieldsOf lists the keys of a table in the order of the struct. A struct
// field without a name of its own lends its keys to the table.
func fieldsOf(t reflect.Type) []field {
	var list []field
	for i := range t.NumField() {
		sf := t.Field(i)
		if !sf.IsExported() {
			continue
		}
		name := sf.Tag.Get("toml")
		if name == "" {
			for _, f := range fieldsOf(sf.Type) {
				f.index = append([]int{i}, f.index...)
				list = append(list, f)
			}
			continue
		}
		f := field{name: name, index: []int{i}, typ: sf.Type, reload: Reload(sf.Tag.Get("reload"))}
		if words, ok := sf.Tag.Lookup("one"); ok {
			f.one = strings.Split(words, "|")
		}
		f.single = sf.Tag.Get("single") != ""
		list = append(list, f)
	}
	return list
}

// isTable reports whether t is a table of keys, not a value.
func isTable(t reflect.Type) bool { return t.Kind() == reflect.Struct && !isText(t) }

// isTables reports whether t is a list of tables.
func isTables(t reflect.Type) bool { return t.Kind() == reflect.Slice && isTable(t.Elem()) }

func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextMarshaler]())
}

// leaf is one value of a configuration.
type leaf struct {
	key string
	field
	value reflect.Value
}

// walk calls visit for every value below v. The elements of lists of tables
// are named by name; an empty list of tables is visited itself.
func walk(v reflect.Value, path string, name func(list string, i int, elem reflect.Value) string, visit func(leaf)) {
	for _, f := range fieldsOf(v.Type()) {
		key, fv := child(path, f.name), v.FieldByIndex(f.index)
		switch {
		case isTable(f.typ):
			walk(fv, key, name, visit)
		case isTables(f.typ) && fv.Len() > 0:
			for i := range fv.Len() {
				walk(fv.Index(i), name(key, i, fv.Index(i)), name, visit)
			}
		default:
			visit(leaf{key, f, fv})
		}
	}
}

// byIndex names the elements of lists as [element] does.
func byIndex(list string, i int, _ reflect.Value) string { return element(list, i) }

// plain turns a value into what a TOML or JSON file holds: string, int64,
// bool, []any or map[string]any.
func plain(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case slog.Level:
		return strings.ToLower(x.String())
	case *url.URL:
		return x.String()
	case Target:
		return x.plain()
	case HeaderValue:
		return x.plain()
	case Secret:
		if x.ref() != "" {
			return x.ref()
		}
		return x.String()
	case encoding.TextMarshaler:
		text, _ := x.MarshalText()
		return string(text)
	}
	switch v.Kind() {
	case reflect.Bool:
		return v.Bool()
	case reflect.Int:
		return v.Int()
	case reflect.Uint16, reflect.Uint64:
		return int64(v.Uint())
	case reflect.Slice:
		list := make([]any, v.Len())
		for i := range list {
			list[i] = plain(v.Index(i))
		}
		return list
	case reflect.Map:
		m := make(map[string]any, v.Len())
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = plain(it.Value())
		}
		return m
	}
	return v.String()
}
