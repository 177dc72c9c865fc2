package bench

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"time"

	"streamcount/internal/bench/load"
)

// A Stat summarizes one figure over the runs.
type Stat struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// newStat returns the Stat of values, which is zero if there are none.
func newStat(values []float64) Stat {
	if len(values) == 0 {
		return Stat{}
	}
	sorted := slices.Sorted(slices.Values(values))
	mid := len(sorted) / 2
	median := sorted[mid]
	if len(sorted)%2 == 0 {
		median = (sorted[mid-1] + sorted[mid]) / 2
	}
	return Stat{median, sorted[0], sorted[len(sorted)-1]}
}

// ratios divides run by run, so that a disturbance of one run affects both sides of
// its ratio. It omits runs in which the divisor is 0.
func ratios(of, by []float64) []float64 {
	var list []float64
	for i := range min(len(of), len(by)) {
		if by[i] > 0 {
			list = append(list, of[i]/by[i])
		}
	}
	return list
}

// MarshalJSON rounds to six significant figures.
func (s Stat) MarshalJSON() ([]byte, error) {
	type plain Stat
	return json.Marshal(plain{rounded(s.Median), rounded(s.Min), rounded(s.Max)})
}

func rounded(x float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 6, 64), 64)
	if err != nil || math.IsNaN(r) || math.IsInf(r, 0) {
		return 0
	}
	return r
}

// A figure is one number computed from the latencies of a call.
type figure struct {
	name  string
	value func(load.Summary) float64
}

func latency(percent float64) func(load.Summary) float64 {
	return func(s load.Summary) float64 { return millis(s.Quantile(percent)) }
}

func perSecond(s load.Summary) float64 {
	if s.Took <= 0 {
		return 0
	}
	return float64(s.Count) / s.Took.Seconds()
}

// figures lists the figures of every call, in the order of the table.
var figures = []figure{
	{"perSecond", perSecond},
	{"p50", latency(50)}, {"p90", latency(90)}, {"p99", latency(99)}, {"p99.9", latency(99.9)},
	{"max", latency(100)},
}

// micros returns d/n in microseconds.
func micros(d time.Duration, n int64) float64 {
	if n == 0 {
		return 0
	}
	return float64(d) / float64(time.Microsecond) / float64(n)
}
