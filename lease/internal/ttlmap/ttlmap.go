// Package ttlmap provides a bounded map whose entries expire.
package ttlmap

import (
	"sync"
	"time"
)

// A Map is a cache that keeps an entry for between one and two spans of time. It has
// two generations of limited size; when the current one is full or a span has passed,
// the previous one is discarded. A Map is safe for concurrent use.
type Map[K comparable, V any] struct {
	span time.Duration
	max  int // entries per generation
	now  func() time.Time

	mu                sync.Mutex
	current, previous map[K]V
	rotatedAt         time.Time
}

// New returns an empty Map with at most maximum entries per generation.
func New[K comparable, V any](span time.Duration, maximum int) *Map[K, V] {
	return &Map[K, V]{span: span, max: maximum, now: time.Now, current: map[K]V{}, rotatedAt: time.Now()}
}

// Put stores an entry.
func (m *Map[K, V]) Put(k K, v V) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rotate()
	if len(m.current) >= m.max {
		m.previous, m.current, m.rotatedAt = m.current, map[K]V{}, m.now()
	}
	m.current[k] = v
}

// Get returns an entry, if it is still stored.
func (m *Map[K, V]) Get(k K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rotate()
	if v, ok := m.current[k]; ok {
		return v, true
	}
	v, ok := m.previous[k]
	return v, ok
}

// Remove removes an entry.
func (m *Map[K, V]) Remove(k K) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.current, k)
	delete(m.previous, k)
}

// rotate makes the current generation the previous one when a span has passed.
func (m *Map[K, V]) rotate() {
	switch age := m.now().Sub(m.rotatedAt); {
	case age < m.span:
	case age < 2*m.span:
		m.previous, m.current, m.rotatedAt = m.current, map[K]V{}, m.rotatedAt.Add(m.span)
	default:
		m.previous, m.current, m.rotatedAt = nil, map[K]V{}, m.now()
	}
}
