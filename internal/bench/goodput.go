package bench

// goodput is how many starts and stops a target did a second, in the mean of both.
type goodput struct {
	before, after float64 // as fast as they were answered: its peak
	under         float64 // under overload
}

// share is what was done under overload, of the peak.
func (g goodput) share() float64 {
	if peak := (g.before + g.after) / 2; peak > 0 {
		return g.under / peak
	}
	return 0
}

const (
	leastShare = 0.8 // of the peak must be done under overload
	leastAfter = 0.5 // of what was done before must be done afterwards: rates vary by a third
)

func (g goodput) collapsed() bool { return g.share() < leastShare || g.after < leastAfter*g.before }

// Goodput is how many starts and stops were done a second, in the mean of both.
// Share is what was done under overload divided by the mean of before and after.
type Goodput struct {
	Before Stat `json:"before"`
	Under  Stat `json:"underOverload"`
	After  Stat `json:"after"`
	Share  Stat `json:"share"`
}

// goodputOf is nil where it was not measured.
func goodputOf(runs []result) *Goodput {
	stat := func(f func(goodput) float64) Stat {
		if s := each(runs, func(res result) float64 { return f(res.goodput) }); s != nil {
			return *s
		}
		return Stat{}
	}
	g := Goodput{
		Before: stat(func(g goodput) float64 { return g.before }),
		Under:  stat(func(g goodput) float64 { return g.under }),
		After:  stat(func(g goodput) float64 { return g.after }),
		Share:  stat(goodput.share),
	}
	if g == (Goodput{}) {
		return nil
	}
	return &g
}

// Goodputs is a table of what targets did under overload, or nil.
func (r *Report) Goodputs() [][]string {
	rows := [][]string{{"TARGET", "STARTS AND STOPS A SECOND: BEFORE", "UNDER OVERLOAD", "AFTER", "OF THE PEAK", "(MIN-MAX)"}}
	for _, t := range r.Targets {
		if g := t.Goodput; g != nil {
			rows = append(rows, []string{
				t.Name, whole(g.Before.Median), whole(g.Under.Median), whole(g.After.Median),
				percent(g.Share.Median), percent(g.Share.Min) + "-" + percent(g.Share.Max),
			})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

func percent(x float64) string { return whole(100*x) + "%" }
