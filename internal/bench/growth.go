package bench

import (
	"context"
	"slices"
	"sync"
	"time"

	"streamcount/internal/retry"
)

// A Sample is the resource usage of the target at one time of a run.
type Sample struct {
	Seconds     float64 `json:"seconds"` // since the start of the measurement
	Resident    int64   `json:"resident"`
	Descriptors int     `json:"descriptors"`
	Goroutines  int     `json:"goroutines,omitempty"` // if the target reports it
}

// sampleTarget samples the target once per second until the returned function is
// called, which returns the samples.
func (tr *targetRun) sampleTarget(begin time.Time) (samples func() []Sample) {
	if tr.server == nil {
		return func() []Sample { return nil }
	}
	ctx, cancel := context.WithCancel(tr.ctx)
	var list []Sample
	sample := func() {
		u := tr.usage()
		list = append(list, Sample{time.Since(begin).Seconds(), u.Resident, u.Descriptors, int(tr.server.Runtime(ctx)["go_goroutines"])})
	}
	sample()
	var wg sync.WaitGroup
	wg.Go(func() {
		for retry.Sleep(ctx, time.Second) == nil {
			sample()
		}
	})
	return func() []Sample {
		cancel()
		wg.Wait()
		return list
	}
}

// A Growth compares the resource usage of a target in the second quarter of a run with
// that in the last quarter. The first quarter is the warm-up.
type Growth struct {
	What          string
	Before, After float64 // medians
}

// growthFactor is the maximum of After / Before of a steady target, apart from a slack.
const growthFactor = 1.2

func growths(samples []Sample) []Growth {
	quarter := len(samples) / 4
	if quarter < minQuarterSamples {
		return nil
	}
	of := func(what string, value func(Sample) float64) Growth {
		median := func(part []Sample) float64 {
			var values []float64
			for _, s := range part {
				values = append(values, value(s))
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		return Growth{what, median(samples[quarter : 2*quarter]), median(samples[len(samples)-quarter:])}
	}
	return []Growth{
		of("MB resident", func(s Sample) float64 { return float64(s.Resident) / (1 << 20) }),
		of("descriptors", func(s Sample) float64 { return float64(s.Descriptors) }),
		of("goroutines", func(s Sample) float64 { return float64(s.Goroutines) }),
	}
}

// minQuarterSamples is the minimum number of samples in a quarter, as in a run of five
// minutes.
const minQuarterSamples = 75

// checkGrowth counts each resource that has grown by more than growthFactor and the
// slack.
func (tr *targetRun) checkGrowth() {
	for _, g := range growths(tr.result.samples) {
		const slack = 50
		if g.After > growthFactor*g.Before+slack {
			tr.faults.add(faultGrowth, 1, "from %.0f %s in the second quarter to %.0f in the last", g.Before, g.What, g.After)
		}
	}
}

// GrowthTable returns a table of the growth of resources, or nil if no run was long
// enough.
func (r *Report) GrowthTable() [][]string {
	rows := [][]string{{"TARGET", "RESOURCE", "SECOND QUARTER", "LAST QUARTER", "MAX"}}
	for i, t := range r.Targets {
		last := r.results[i][len(r.results[i])-1].samples
		for j, g := range growths(last) {
			peak := 0.0
			for _, s := range last {
				peak = max(peak, []float64{float64(s.Resident) / (1 << 20), float64(s.Descriptors), float64(s.Goroutines)}[j])
			}
			rows = append(rows, []string{t.Name, g.What, wholeNumber(g.Before), wholeNumber(g.After), wholeNumber(peak)})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}
