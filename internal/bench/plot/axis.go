package plot

import (
	"math"
	"strconv"
)

// A Scale determines the positions of values along an axis.
type Scale int

// The scales.
const (
	// Linear begins at zero.
	Linear Scale = iota
	// Log is logarithmic. It shows positive values only.
	Log
	// Percentile shows values from 0 to below 100. 90, 99, 99.9 and so on are
	// equidistant.
	Percentile
)

// An Axis is one of the two axes of a chart. Label is the quantity and its unit.
type Axis struct {
	Label string
	Scale Scale
}

// A placedAxis is an axis with a range and a place on the page.
type placedAxis struct {
	scale    Scale
	lo, hi   float64 // range, in units of position
	from, to float64 // the same range, in pixels
	ticks    []tick
}

type tick struct {
	value float64
	text  string
}

// fit returns the axis with a range that fits all curves, placed between two pixels.
func (a Axis) fit(curves []Curve, of func(Curve) []float64, from, to float64) placedAxis {
	r := placedAxis{scale: a.Scale, from: from, to: to}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for _, v := range of(c) {
			if r.shows(v) {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	if lo > hi { // there are no values
		lo, hi = 1, 10
	}
	switch a.Scale {
	case Log:
		r.ticks = logTicks(lo, hi)
	case Percentile:
		r.ticks = percentTicks(hi)
	default:
		r.ticks = linearTicks(hi)
	}
	r.lo, r.hi = r.position(r.ticks[0].value), r.position(r.ticks[len(r.ticks)-1].value)
	if a.Scale == Percentile { // the last tick may be below the last value
		r.hi = max(r.hi, r.position(hi))
	}
	return r
}

func (r placedAxis) shows(v float64) bool {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return false
	case r.scale == Log:
		return v > 0
	case r.scale == Percentile:
		return v >= 0 && v < 100
	}
	return true
}

// position returns the position of a value on a linear scale.
func (r placedAxis) position(v float64) float64 {
	switch r.scale {
	case Log:
		return math.Log10(v)
	case Percentile:
		return -math.Log10(1 - v/100)
	}
	return v
}

func (r placedAxis) pixel(v float64) float64 {
	if r.hi == r.lo {
		return r.from
	}
	return r.from + (r.position(v)-r.lo)/(r.hi-r.lo)*(r.to-r.from)
}

// linearTicks returns ticks from 0 to at least hi in about five round steps.
func linearTicks(hi float64) []tick {
	if hi <= 0 {
		hi = 1
	}
	step := math.Pow(10, math.Floor(math.Log10(hi/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if hi/(step*m) <= 6 {
			step *= m
			break
		}
	}
	var ticks []tick
	for i := 0; ; i++ {
		v := float64(i) * step
		ticks = append(ticks, tick{v, number(v)})
		if v >= hi*(1-1e-9) {
			return ticks
		}
	}
}

// logTicks returns ticks at powers of ten that enclose lo and hi, and at their multiples
// by 2 and 5 if there is space.
func logTicks(lo, hi float64) []tick {
	steps := []float64{1, 2, 5}
	if hi/lo > 2000 {
		steps = steps[:1]
	}
	var all []float64
	for e := math.Floor(math.Log10(lo)); e <= math.Ceil(math.Log10(hi))+1; e++ {
		for _, m := range steps {
			all = append(all, m*math.Pow(10, e))
		}
	}
	first, last := 0, len(all)-1
	for i, v := range all {
		if v <= lo*(1+1e-9) {
			first = i
		}
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i] >= hi*(1-1e-9) {
			last = i
		}
	}
	last = max(last, min(first+1, len(all)-1))
	var ticks []tick
	for _, v := range all[first : last+1] {
		ticks = append(ticks, tick{v, number(v)})
	}
	return ticks
}

// percentTicks returns ticks from 0 to at most hi.
func percentTicks(hi float64) []tick {
	ticks := []tick{{0, "0 %"}, {50, "50 %"}}
	for _, v := range []float64{90, 99, 99.9, 99.99, 99.999, 99.9999} {
		if v <= hi {
			ticks = append(ticks, tick{v, strconv.FormatFloat(v, 'f', -1, 64) + " %"})
		}
	}
	return ticks
}

// number formats a value, with k for thousands and M for millions.
func number(v float64) string {
	for _, unit := range []struct {
		size float64
		text string
	}{{1e6, "M"}, {1e3, "k"}} {
		if v >= unit.size {
			return strconv.FormatFloat(v/unit.size, 'g', 4, 64) + unit.text
		}
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}
