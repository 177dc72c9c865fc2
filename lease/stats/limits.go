package stats

import (
	"maps"
	"sync"
)

const (
	// maxLimitNames is the maximum number of names that are counted separately, because each
	// is a time series.
	maxLimitNames = 50
	otherLimits   = "other" // counts all further names
	// totalLimit has a count from the beginning. Every plan has this limit.
	totalLimit = "total"
)

// limitCounts are counters by the name of a limit.
type limitCounts struct {
	mu sync.Mutex
	n  map[string]int64
}

func (c *limitCounts) add(names []string) {
	if len(names) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int64)
	}
	for _, name := range names {
		if _, known := c.n[name]; !known && len(c.n) >= maxLimitNames {
			name = otherLimits
		}
		c.n[name]++
	}
}

func (c *limitCounts) snapshot() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := maps.Clone(c.n)
	if out == nil {
		out = make(map[string]int64, 1)
	}
	out[totalLimit] += 0
	return out
}
