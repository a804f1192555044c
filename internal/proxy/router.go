package proxy

import (
	"fmt"
	"slices"
	"strings"
)

// A Router maps prefixes of raw paths to values. A route "/x", written with or
// without a final slash, owns "/x" and "/x/..." and nothing else: not "/xy".
// The longest prefix wins. The route "/" owns every path.
//
// Fill it with Add before use; Match may then be called at once from many goroutines.
type Router[T any] struct {
	routes []route[T] // longest prefix first
}

type route[T any] struct {
	prefix string // no final slash; "" owns everything
	value  T
}

// Add binds a prefix. A prefix that is bound already, or is not a plain path, is an error.
func (rt *Router[T]) Add(prefix string, value T) error {
	if err := checkPath(prefix); err != nil {
		return fmt.Errorf("route %q: %w", prefix, err)
	}
	if strings.ContainsAny(prefix, "?#% ") {
		return fmt.Errorf("route %q: only a plain path can be a route", prefix)
	}
	p := strings.TrimRight(prefix, "/")
	for _, r := range rt.routes {
		if r.prefix == p {
			return fmt.Errorf("route %q is there twice", prefix)
		}
	}
	rt.routes = append(rt.routes, route[T]{p, value})
	slices.SortStableFunc(rt.routes, func(a, b route[T]) int { return len(b.prefix) - len(a.prefix) })
	return nil
}

// Match finds the route that owns a raw path as returned by [SplitTarget]. The
// remainder is what follows the prefix: "" or something that begins with a slash.
func (rt *Router[T]) Match(path string) (value T, rest string, ok bool) {
	for i := range rt.routes {
		r := &rt.routes[i]
		if rest, ok := strings.CutPrefix(path, r.prefix); ok && (rest == "" || rest[0] == '/') {
			return r.value, rest, true
		}
	}
	return value, "", false
}
