package overload

import "sync"

// A quota counts what each key uses, up to a maximum.
type quota[K comparable] struct {
	max int

	mu   sync.Mutex
	used map[K]int
}

func newQuota[K comparable](limit int) *quota[K] {
	return &quota[K]{max: limit, used: make(map[K]int)}
}

// acquire counts one more for key, and reports whether key had fewer than the maximum.
func (q *quota[K]) acquire(key K) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used[key] >= q.max {
		return false
	}
	q.used[key]++
	return true
}

// release counts one less for key.
func (q *quota[K]) release(key K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.used[key]--; q.used[key] == 0 {
		delete(q.used, key)
	}
}
