package plot

import (
	"math"
	"strconv"
)

// A Scale says how values are laid out along an axis.
type Scale int

// The scales.
const (
	// Linear begins at zero.
	Linear Scale = iota
	// Log gives each power of ten the same room. It shows no zero.
	Log
	// Percentile is for 0 up to, but without, 100: 90, 99, 99.9 and so on are
	// equally far apart.
	Percentile
)

// An Axis is one of the two of a chart. Label names what it shows, and its
// unit.
type Axis struct {
	Label string
	Scale Scale
}

// A ruler is an axis with a range, and a place on the page.
type ruler struct {
	scale    Scale
	lo, hi   float64 // of what is shown, laid out by place
	from, to float64 // where that is, in pixels
	ticks    []tick
}

type tick struct {
	value float64
	text  string
}

// over makes the ruler that fits all curves between two places.
func (a Axis) over(curves []Curve, of func(Curve) []float64, from, to float64) ruler {
	r := ruler{scale: a.Scale, from: from, to: to}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, c := range curves {
		for _, v := range of(c) {
			if r.shows(v) {
				lo, hi = min(lo, v), max(hi, v)
			}
		}
	}
	if lo > hi { // nothing to show
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
	r.lo, r.hi = r.place(r.ticks[0].value), r.place(r.ticks[len(r.ticks)-1].value)
	if a.Scale == Percentile { // it has no natural end
		r.hi = max(r.hi, r.place(hi))
	}
	return r
}

func (r ruler) shows(v float64) bool {
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

// place is where a value is on a scale of equal steps.
func (r ruler) place(v float64) float64 {
	switch r.scale {
	case Log:
		return math.Log10(v)
	case Percentile:
		return -math.Log10(1 - v/100)
	}
	return v
}

func (r ruler) at(v float64) float64 {
	if r.hi == r.lo {
		return r.from
	}
	return r.from + (r.place(v)-r.lo)/(r.hi-r.lo)*(r.to-r.from)
}

// linearTicks go from 0 to at least hi in about five round steps.
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

// logTicks go around lo and hi in powers of ten, with 2 and 5 between them
// where there is room.
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

// percentTicks go from 0 as far as hi allows.
func percentTicks(hi float64) []tick {
	ticks := []tick{{0, "0 %"}, {50, "50 %"}}
	for _, v := range []float64{90, 99, 99.9, 99.99, 99.999, 99.9999} {
		if v <= hi {
			ticks = append(ticks, tick{v, strconv.FormatFloat(v, 'f', -1, 64) + " %"})
		}
	}
	return ticks
}

// number writes thousands as k and millions as M.
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
