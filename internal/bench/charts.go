package bench

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"streamcount/internal/bench/load"
	"streamcount/internal/bench/plot"
)

// A Plot is one SVG image.
type Plot struct {
	Name string // file name
	SVG  []byte
}

// Plots draws the latency by percentile of each kind of call, and its rate and latency
// over time.
func (r *Report) Plots() []Plot {
	var list []Plot
	for o := range opKinds {
		var byPercent, rate, p99 []plot.Curve
		for i, t := range r.Targets {
			runs := slices.DeleteFunc(summaries(r.results[i], o), func(s load.Summary) bool { return s.Count == 0 })
			if len(runs) == 0 {
				continue
			}
			byPercent = append(byPercent, percentileCurve(t.Name, runs))
			x, y := timeCurves(t.Name, medianRun(runs))
			rate, p99 = append(rate, x), append(p99, y)
		}
		if len(byPercent) == 0 {
			continue
		}
		title := r.Scenario + ": " + opNames[o]
		name := r.Scenario + "-" + strings.NewReplacer("+", "-", " ", "-", "'", "", ":", "").Replace(opNames[o])
		seconds, ms := plot.Axis{Label: "seconds"}, plot.Axis{Label: "milliseconds", Scale: plot.Log}
		list = append(list,
			Plot{name + "-percentiles.svg", plot.Page{
				Title: title, Subtitle: "all " + r.subtitle(),
				Charts: []plot.Chart{{
					Title: "Latency by percentile", X: plot.Axis{Label: "percentile", Scale: plot.Percentile}, Y: ms,
					Curves: byPercent,
				}},
			}.SVG()},
			Plot{name + "-over-time.svg", plot.Page{
				Title: title, Subtitle: "the run with the median rate out of " + r.subtitle(),
				Charts: []plot.Chart{
					{Title: "Answers per second", X: seconds, Y: plot.Axis{Label: "answers per second"}, Curves: rate},
					{Title: "Latency, 99th percentile", X: seconds, Y: ms, Curves: p99},
				},
			}.SVG()})
	}
	return list
}

func (r *Report) subtitle() string {
	s := r.cfg.Settings
	return fmt.Sprintf("%d run(s), %d connections, %d cores, fsync %.2f ms",
		s.Runs, s.Connections, r.Machine.Cores, r.Machine.FsyncMillis)
}

// percentileCurve returns the distribution of the latencies of all runs.
func percentileCurve(name string, runs []load.Summary) plot.Curve {
	all := load.Summary{Hist: runs[0].Hist.Clone()}
	for _, s := range runs[1:] {
		all.Hist.Merge(s.Hist)
	}
	c := plot.Curve{Name: name}
	// The curve ends at the last percentile that a whole call represents.
	end := math.Log10(float64(max(all.Hist.TotalCount(), 2)))
	const steps = 200
	for i := range steps + 1 {
		percent := 100 * (1 - math.Pow(10, -end*float64(i)/steps))
		c.X, c.Y = append(c.X, percent), append(c.Y, millis(all.Quantile(percent)))
	}
	return c
}

// medianRun returns the run with the median rate.
func medianRun(runs []load.Summary) load.Summary {
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b load.Summary) int {
		return cmp.Compare(perSecond(a), perSecond(b))
	})
	return sorted[len(sorted)/2]
}

func timeCurves(name string, s load.Summary) (rate, p99 plot.Curve) {
	rate, p99 = plot.Curve{Name: name}, plot.Curve{Name: name}
	for _, p := range s.Points {
		at := p.At.Seconds()
		rate.X, rate.Y = append(rate.X, at), append(rate.Y, float64(p.Count)/s.Step.Seconds())
		p99.X, p99.Y = append(p99.X, at), append(p99.Y, millis(p.P99)) // without calls it is 0, which is not drawn
	}
	return rate, p99
}
