package bench

import (
	"bufio"
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Sample is what the target held at one moment of a run.
type Sample struct {
	Seconds     float64 `json:"seconds"` // since the measurement began
	Resident    int64   `json:"resident"`
	Descriptors int     `json:"descriptors"`
	Goroutines  int     `json:"goroutines,omitempty"` // if the target says
}

// watchTarget looks at the target once a second until the function returned is
// called, which returns what it saw.
func (v *visit) watchTarget(begin time.Time) (samples func() []Sample) {
	if v.server == nil {
		return func() []Sample { return nil }
	}
	ctx, cancel := context.WithCancel(v.ctx)
	var list []Sample
	look := func() {
		u := v.usage()
		list = append(list, Sample{time.Since(begin).Seconds(), u.resident, u.descriptors, goroutines(ctx, v.server.url)})
	}
	look()
	var wg sync.WaitGroup
	wg.Go(func() {
		for wait(ctx, time.Second) {
			look()
		}
	})
	return func() []Sample {
		cancel()
		wg.Wait()
		return list
	}
}

// goroutines is what the target says of itself at /metrics, or 0.
func goroutines(ctx context.Context, url string) int {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }() // it has been read
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			n, _ := strconv.Atoi(value) // 0 if it is no number
			return n
		}
	}
	return 0
}

// A Growth compares what a target held in the second quarter of a long run with the
// last: the first is for warming up.
type Growth struct {
	What          string
	Before, After float64 // medians
}

// grownBy and the slack of each are what a steady target may differ by.
const grownBy = 1.2

func growths(samples []Sample) []Growth {
	quarter := len(samples) / 4
	if quarter < minQuarter {
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

// minQuarter is how many samples say something about growth: a run of five minutes.
const minQuarter = 75

// steady counts what has grown by more than a fifth and some.
func (v *visit) steady() {
	for _, g := range growths(v.result.samples) {
		const slack = 50
		if g.After > grownBy*g.Before+slack {
			v.tally.add(grown, 1, "from %.0f %s in the second quarter to %.0f in the last", g.Before, g.What, g.After)
		}
	}
}

// Steadiness is the report's table of growth, or nil where no run was long enough.
func (r *Report) Steadiness() [][]string {
	rows := [][]string{{"TARGET", "HELD", "SECOND QUARTER", "LAST QUARTER", "MOST"}}
	for i, t := range r.Targets {
		last := r.results[i][len(r.results[i])-1].samples
		for j, g := range growths(last) {
			most := 0.0
			for _, s := range last {
				most = max(most, []float64{float64(s.Resident) / (1 << 20), float64(s.Descriptors), float64(s.Goroutines)}[j])
			}
			rows = append(rows, []string{t.Name, g.What, whole(g.Before), whole(g.After), whole(most)})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}
