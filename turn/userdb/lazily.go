package userdb

import "sync"

// lazily makes something at the first use, and never after close.
type lazily[T any] struct {
	make func() (T, error)

	mu     sync.Mutex // guards the fields below
	made   bool
	closed bool
	value  T
}

func (l *lazily[T]) get() (v T, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return v, errClosed
	}
	if !l.made {
		if l.value, err = l.make(); err != nil {
			return v, err
		}
		l.made = true
	}
	return l.value, nil
}

// close returns what was made, if anything was.
func (l *lazily[T]) close() (v T, made bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	made = l.made && !l.closed
	l.closed = true
	return l.value, made
}
