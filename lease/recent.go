package lease

import (
	"sync"
	"time"
)

// recent remembers things for between one and two spans of time, and never
// more than twice max of them. Nothing may depend on its memory for longer.
type recent[K comparable, V any] struct {
	span time.Duration
	max  int
	now  func() time.Time

	mu         sync.Mutex
	young, old map[K]V
	turned     time.Time
}

func newRecent[K comparable, V any](span time.Duration, maximum int) *recent[K, V] {
	return &recent[K, V]{span: span, max: maximum, now: time.Now, young: map[K]V{}, turned: time.Now()}
}

func (r *recent[K, V]) put(k K, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if len(r.young) >= r.max {
		r.old, r.young, r.turned = r.young, map[K]V{}, r.now()
	}
	r.young[k] = v
}

func (r *recent[K, V]) get(k K) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.turn()
	if v, ok := r.young[k]; ok {
		return v, true
	}
	v, ok := r.old[k]
	return v, ok
}

func (r *recent[K, V]) drop(k K) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, k)
	delete(r.old, k)
}

// turn makes the young generation the old one when its span is over.
func (r *recent[K, V]) turn() {
	switch age := r.now().Sub(r.turned); {
	case age < r.span:
	case age < 2*r.span:
		r.old, r.young, r.turned = r.young, map[K]V{}, r.turned.Add(r.span)
	default:
		r.old, r.young, r.turned = nil, map[K]V{}, r.now()
	}
}
