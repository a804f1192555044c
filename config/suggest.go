package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// unknownKey says what is wrong with a key that table t at path does not
// have, and which key may be meant.
func unknownKey(path, key string, v any, t reflect.Type) (what, fix string) {
	what = "unknown key"
	if _, ok := v.(map[string]any); ok {
		what = "unknown table"
	}
	var siblings []string
	for _, f := range fieldsOf(t) {
		siblings = append(siblings, f.name)
	}
	if s := Closest(key, siblings); s != "" {
		return what, fmt.Sprintf("did you mean %q?", s)
	}
	tables := tablesWith()
	if in := tables[normal(key)]; in != nil {
		return what, "it belongs under " + strings.Join(in, " or ")
	}
	if s := Closest(key, slices.Sorted(maps.Keys(tables))); s != "" {
		return what, fmt.Sprintf("did you mean %q? It belongs under %s", s, strings.Join(tables[s], " or "))
	}
	where := "at the top of the file"
	if path != "" {
		where = "here"
	}
	return what, fmt.Sprintf("remove it; the keys %s are %s", where, strings.Join(siblings, ", "))
}

// tablesWith says for each key in which tables it stands, as their headers
// are written.
func tablesWith() map[string][]string {
	found := map[string][]string{}
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
	search(reflect.TypeFor[Config](), "", "the top of the file")
	return found
}

// Closest returns the word that key is most likely a slip of, or "".
func Closest(key string, words []string) string {
	best, bound := "", 1+len(key)/4
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
