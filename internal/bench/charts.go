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

// A Plot is one SVG picture.
type Plot struct {
	Name string // of its file
	SVG  []byte
}

// Plots draws each kind of call: its latencies by percentile, and its course
// over time.
func (r *Report) Plots() []Plot {
	var list []Plot
	for o := range ops {
		var byPercent, rate, late []plot.Curve
		for i, t := range r.Targets {
			runs := slices.DeleteFunc(summaries(r.results[i], o), func(s load.Summary) bool { return s.Count == 0 })
			if len(runs) == 0 {
				continue
			}
			byPercent = append(byPercent, percentiles(t.Name, runs))
			x, y := overTime(t.Name, typical(runs))
			rate, late = append(rate, x), append(late, y)
		}
		if len(byPercent) == 0 {
			continue
		}
		title := r.Scenario + ": " + opNames[o]
		name := r.Scenario + "-" + strings.NewReplacer("+", "-", " ", "-", "'", "").Replace(opNames[o])
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
				Title: title, Subtitle: "the run of median speed out of " + r.subtitle(),
				Charts: []plot.Chart{
					{Title: "Answers a second", X: seconds, Y: plot.Axis{Label: "answers a second"}, Curves: rate},
					{Title: "Latency, 99th percentile", X: seconds, Y: ms, Curves: late},
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

// percentiles is the distribution of all runs' latencies.
func percentiles(name string, runs []load.Summary) plot.Curve {
	all := load.Summary{Hist: runs[0].Hist.Clone()}
	for _, s := range runs[1:] {
		all.Hist.Merge(s.Hist)
	}
	c := plot.Curve{Name: name}
	// No percentile is shown that fewer than one call stands for.
	end := math.Log10(float64(max(all.Hist.TotalCount(), 2)))
	const steps = 200
	for i := range steps + 1 {
		percent := 100 * (1 - math.Pow(10, -end*float64(i)/steps))
		c.X, c.Y = append(c.X, percent), append(c.Y, millis(all.Quantile(percent)))
	}
	return c
}

// typical is the run of median speed.
func typical(runs []load.Summary) load.Summary {
	sorted := slices.SortedFunc(slices.Values(runs), func(a, b load.Summary) int {
		return cmp.Compare(perSecond(a), perSecond(b))
	})
	return sorted[len(sorted)/2]
}

func overTime(name string, s load.Summary) (rate, late plot.Curve) {
	rate, late = plot.Curve{Name: name}, plot.Curve{Name: name}
	for _, p := range s.Points {
		at := p.At.Seconds()
		rate.X, rate.Y = append(rate.X, at), append(rate.Y, float64(p.Count)/s.Step.Seconds())
		late.X, late.Y = append(late.X, at), append(late.Y, millis(p.P99)) // 0, which is not drawn, without any
	}
	return rate, late
}
