package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Router maps prefixes of raw paths to values. A route "/x", written with or
// without a final slash, owns "/x" and "/x/..." and nothing else: not "/xy".
// The longest prefix wins. The route "/" owns every path.
//
// A route can be bound to a listener. One that has such routes serves no others, and
// the other listeners serve the routes that are bound to none.
//
// Fill it with Add before use; Match may then be called at once from many goroutines.
type Router[T any] struct {
	common []route[T]            // longest prefix first
	bound  map[string][]route[T] // by listener
}

type route[T any] struct {
	prefix string // no final slash; "" owns everything
	value  T
}

// Add binds a prefix, on the listeners alone if there are any. A prefix that is bound
// already there, or is not a plain path, is an error.
func (rt *Router[T]) Add(listeners []string, prefix string, value T) error {
	if err := checkPath(prefix); err != nil {
		return fmt.Errorf("route %q: %w", prefix, err)
	}
	if strings.ContainsAny(prefix, "?#% ") {
		return fmt.Errorf("route %q: only a plain path can be a route", prefix)
	}
	if len(listeners) == 0 {
		return add(&rt.common, prefix, value)
	}
	if rt.bound == nil {
		rt.bound = make(map[string][]route[T])
	}
	for _, l := range listeners {
		list := rt.bound[l]
		if err := add(&list, prefix, value); err != nil {
			return fmt.Errorf("%s: %w", l, err)
		}
		rt.bound[l] = list
	}
	return nil
}

func add[T any](list *[]route[T], prefix string, value T) error {
	p := strings.TrimRight(prefix, "/")
	for _, r := range *list {
		if r.prefix == p {
			return fmt.Errorf("route %q is there twice", prefix)
		}
	}
	*list = append(*list, route[T]{p, value})
	slices.SortStableFunc(*list, func(a, b route[T]) int { return len(b.prefix) - len(a.prefix) })
	return nil
}

// Listeners returns those that have routes of their own.
func (rt *Router[T]) Listeners() []string { return slices.Sorted(maps.Keys(rt.bound)) }

// Match finds the route that owns a raw path as returned by [SplitTarget], for a request
// that came by this listener, see [ListenerOf]. The remainder is what follows the prefix:
// "" or something that begins with a slash.
func (rt *Router[T]) Match(listener, path string) (value T, rest string, ok bool) {
	routes, own := rt.bound[listener]
	if !own {
		routes = rt.common
	}
	for i := range routes {
		r := &routes[i]
		if rest, ok := strings.CutPrefix(path, r.prefix); ok && (rest == "" || rest[0] == '/') {
			return r.value, rest, true
		}
	}
	return value, "", false
}

// RouteName is what metrics and logs call a route.
func RouteName(listeners []string, path string) string { return strings.Join(listeners, ",") + path }

type listenerKey struct{}

// WithListener returns a context for requests that come by a listener.
func WithListener(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, listenerKey{}, name)
}

// ListenerOf returns the listener of a request's context, or "".
func ListenerOf(ctx context.Context) string {
	name, _ := ctx.Value(listenerKey{}).(string)
	return name
}
