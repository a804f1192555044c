package turn

import "container/list"

// recent is a map of bounded size that forgets what was not asked for longest.
// It is not safe for concurrent use.
type recent[K comparable, V any] struct {
	max   int
	order *list.List // of entry[K, V], the latest in front
	at    map[K]*list.Element
}

type entry[K comparable, V any] struct {
	key   K
	value V
}

func newRecent[K comparable, V any](max int) recent[K, V] {
	return recent[K, V]{max, list.New(), make(map[K]*list.Element)}
}

func (r *recent[K, V]) get(k K) (v V, ok bool) {
	e := r.at[k]
	if e == nil {
		return v, false
	}
	r.order.MoveToFront(e)
	return e.Value.(entry[K, V]).value, true
}

func (r *recent[K, V]) put(k K, v V) {
	if e := r.at[k]; e != nil {
		e.Value = entry[K, V]{k, v}
		r.order.MoveToFront(e)
		return
	}
	if r.order.Len() >= r.max {
		r.delete(r.order.Back().Value.(entry[K, V]).key)
	}
	r.at[k] = r.order.PushFront(entry[K, V]{k, v})
}

func (r *recent[K, V]) delete(k K) {
	if e := r.at[k]; e != nil {
		r.order.Remove(e)
		delete(r.at, k)
	}
}
