package stats

import (
	"slices"
	"sync/atomic"
	"time"

	"streamcount/lease/internal/commit"
)

// A Distribution counts values that are less than or equal to each bound.
type Distribution struct {
	Count      uint64
	Sum        float64
	Cumulative map[float64]uint64 // by bound
}

// histogram counts values by size.
type histogram struct {
	bounds []int64 // ascending
	counts []atomic.Uint64
	sum    atomic.Int64
	scale  float64 // divides the values
}

var (
	sizeBounds = []int64{1, 2, 4, 8, 16, 32, 64, 128, commit.MaxWrites}
	timeBounds = boundsOf(100*time.Microsecond, 250*time.Microsecond, 500*time.Microsecond,
		time.Millisecond, 2500*time.Microsecond, 5*time.Millisecond, 10*time.Millisecond, 25*time.Millisecond,
		50*time.Millisecond, 100*time.Millisecond, 250*time.Millisecond, 500*time.Millisecond,
		time.Second, 2500*time.Millisecond, 5*time.Second)
)

func boundsOf(ds ...time.Duration) []int64 {
	out := make([]int64, len(ds))
	for i, d := range ds {
		out[i] = int64(d)
	}
	return out
}

func newHistogram(bounds []int64, unit float64) histogram {
	return histogram{bounds: bounds, counts: make([]atomic.Uint64, len(bounds)+1), scale: unit}
}

func (h *histogram) observe(v int64) {
	i, _ := slices.BinarySearch(h.bounds, v)
	h.counts[i].Add(1)
	h.sum.Add(v)
}

func (h *histogram) distribution() Distribution {
	d := Distribution{Sum: float64(h.sum.Load()) / h.scale, Cumulative: make(map[float64]uint64, len(h.bounds))}
	for i := range h.counts {
		d.Count += h.counts[i].Load()
		if i < len(h.bounds) {
			d.Cumulative[float64(h.bounds[i])/h.scale] = d.Count
		}
	}
	return d
}
