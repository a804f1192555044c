package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// unknownKey says what is wrong with a key that table t at path does not
// have, and which key may be meant: one of this table first, then the same key
// of another.
func unknownKey(path, key string, v any, t reflect.Type) (what, fix string) {
	what = "unknown key"
	if _, ok := v.(map[string]any); ok {
		what = "unknown table"
	}
	var siblings, fixes []string
	for _, f := range fieldsOf(t) {
		siblings = append(siblings, f.name)
	}
	here := Closest(key, siblings)
	if here != "" {
		fixes = append(fixes, fmt.Sprintf("did you mean %q?", here))
	}
	tables := tablesWith(path)
	switch known := normal(key); {
	case tables[known] != nil && normal(here) != known:
		fixes = append(fixes, fmt.Sprintf("%q belongs %s", known, tables[known].text()))
	case here == "":
		if s := Closest(key, slices.Sorted(maps.Keys(tables))); s != "" {
			return what, fmt.Sprintf("did you mean %q? It belongs %s", s, tables[s].text())
		}
		fixes = append(fixes, "remove it")
	}
	// What is meant may have another name here: admin.listen is admin.metrics
	// or admin.status. The keys of a long table would bury the rest.
	if here == "" && (len(siblings) <= 10 || tables[normal(key)] == nil) {
		where := "at the top of the file"
		if path != "" {
			where = "here"
		}
		fixes = append(fixes, fmt.Sprintf("the keys %s are %s", where, strings.Join(siblings, ", ")))
	}
	return what, strings.ReplaceAll(strings.Join(fixes, "; "), "?;", "?")
}

// places are the headers of the tables that have a key, as a file writes
// them, "" for the top of the file.
type places []string

func (p places) text() string {
	var tables, phrases []string
	for _, header := range p {
		if header != "" {
			tables = append(tables, header)
		}
	}
	if last := len(tables) - 1; last > 0 {
		tables = []string{strings.Join(tables[:last], ", "), tables[last]}
	}
	if len(tables) > 0 {
		phrases = append(phrases, "in "+strings.Join(tables, " or "))
	}
	if slices.Contains(p, "") {
		phrases = append(phrases, "at the top of the file, before the first table")
	}
	return strings.Join(phrases, ", or ")
}

// tablesWith says for each key in which tables it stands, those of the family
// of the table at path first.
func tablesWith(path string) map[string]places {
	found := map[string]places{}
	var search func(t reflect.Type, path, header string)
	search = func(t reflect.Type, path, header string) {
		for _, f := range fieldsOf(t) {
			found[f.name] = append(found[f.name], header)
			switch at := child(path, f.name); {
			case isTable(f.typ):
				search(f.typ, at, "["+at+"]")
			case isTables(f.typ):
				search(f.typ.Elem(), at, "[["+at+"]]")
			}
		}
	}
	search(reflect.TypeFor[Config](), "", "")
	family := func(name string) string {
		name = strings.TrimLeft(name, "[")
		if end := strings.IndexAny(name, ".[]"); end >= 0 {
			return name[:end]
		}
		return name
	}
	for _, p := range found {
		slices.SortStableFunc(p, func(a, b string) int {
			switch ours := family(path); {
			case family(a) == family(b):
				return 0
			case family(a) == ours:
				return -1
			case family(b) == ours:
				return 1
			}
			return 0
		})
	}
	return found
}

// keyNames are the names of all keys and tables, each with whether it holds secrets.
func keyNames() map[string]bool {
	names := map[string]bool{}
	var search func(t reflect.Type)
	search = func(t reflect.Type) {
		for _, f := range fieldsOf(t) {
			elem := f.typ
			if k := elem.Kind(); k == reflect.Slice || k == reflect.Map {
				elem = elem.Elem()
			}
			names[f.name] = names[f.name] || elem == reflect.TypeFor[Secret]() || elem == reflect.TypeFor[HeaderValue]()
			if isTable(elem) {
				search(elem)
			}
		}
	}
	search(reflect.TypeFor[Config]())
	return names
}

// Closest returns the word that key is most likely a slip of, or "".
func Closest(key string, words []string) string {
	best, bound := "", 1+len(key)/5
	for _, w := range words {
		if d := distance(normal(key), w); d <= bound {
			best, bound = w, d-1
		}
	}
	return best
}

// normal writes a key in our style: min-port and MIN_PORT are min_port.
func normal(key string) string {
	return strings.ReplaceAll(strings.ToLower(key), "-", "_")
}

// distance is the number of bytes to insert, delete, replace or swap with the
// neighbour to turn a into b (optimal string alignment). Very long keys count
// as different from everything.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
