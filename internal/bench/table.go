package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Calls is the report as a table: what each target did.
func (r *Report) Calls() [][]string {
	rows := [][]string{{"TARGET", "CALL", "A SECOND", "(MIN-MAX)", "P50 MS", "P90", "P99", "P99.9", "MAX"}}
	for _, t := range r.Targets {
		for _, c := range t.Calls {
			rate := c.Figures["perSecond"]
			row := []string{t.Name, c.Call, whole(rate.Median), whole(rate.Min) + "-" + whole(rate.Max)}
			for _, name := range []string{"p50", "p90", "p99", "p99.9", "max"} {
				row = append(row, short(c.Figures[name].Median))
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// Costs is a table of what each target took, and of its faults.
func (r *Report) Costs() [][]string {
	rows := [][]string{{"TARGET", "CPU US/ANSWER", "GENERATOR'S", "MEMORY MB", "BYTES/STREAM", "READY AFTER S", "FAULTS"}}
	for _, t := range r.Targets {
		memory, perStream := "-", "-"
		if t.Memory != nil {
			memory = whole(t.Memory.Resident.Median / (1 << 20))
			perStream = median(t.Memory.PerStream)
		}
		rows = append(rows, []string{
			t.Name, median(t.TargetCPU), median(t.GeneratorCPU), memory, perStream, median(t.Ready), faultText(t.Faults),
		})
	}
	return rows
}

func faultText(list []Fault) string {
	var parts []string
	for _, f := range list {
		parts = append(parts, fmt.Sprintf("%d %s", f.Count, f.Kind))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// Compared is a table of streamcount's figures divided by its peers', or nil.
func (r *Report) Compared() [][]string {
	if len(r.Ratios) == 0 {
		return nil
	}
	rows := [][]string{{"STREAMCOUNT /", "CALL", "A SECOND", "(MIN-MAX)", "P50", "P99"}}
	for _, x := range r.Ratios {
		rate := x.Figures["perSecond"]
		rows = append(rows, []string{
			x.Peer, x.Call, times(rate.Median), times(rate.Min) + "-" + times(rate.Max),
			times(x.Figures["p50"].Median), times(x.Figures["p99"].Median),
		})
	}
	return rows
}

func median(s *Stat) string {
	if s == nil {
		return "-"
	}
	return short(s.Median)
}

func whole(x float64) string { return strconv.FormatFloat(math.Round(x), 'f', -1, 64) }

// short has three significant figures, or all digits before the point.
func short(x float64) string {
	for _, r := range []struct {
		below  float64
		digits int
	}{{0.9995, 3}, {9.995, 2}, {99.95, 1}} {
		if x < r.below {
			return strconv.FormatFloat(x, 'f', r.digits, 64)
		}
	}
	return whole(x)
}

func times(x float64) string { return short(x) + "x" }
