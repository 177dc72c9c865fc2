// Package cachedcount caches a count that is expensive.
package cachedcount

import (
	"sync"
	"time"
)

// A Count is the last result of a count. It is safe for concurrent use. The zero value has
// no result.
type Count struct {
	mu    sync.Mutex
	taken time.Time
	took  time.Duration
	n     int
}

// share bounds the time that counting takes to this part of all time.
const share = 50

// Within returns the result of count, no older than maxAge if counting is fast.
func (c *Count) Within(maxAge time.Duration, count func() int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken.IsZero() || time.Since(c.taken) > max(maxAge, share*c.took) {
		began := time.Now()
		c.n, c.taken = count(), time.Now()
		c.took = c.taken.Sub(began)
	}
	return c.n
}
