package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// CallTable returns a table of the figures of each call.
func (r *Report) CallTable() [][]string {
	rows := [][]string{{"TARGET", "CALL", "PER SECOND", "(MIN-MAX)", "P50 MS", "P90", "P99", "P99.9", "MAX"}}
	for _, t := range r.Targets {
		for _, c := range t.Calls {
			rate := c.Figures["perSecond"]
			row := []string{t.Name, c.Call, wholeNumber(rate.Median), wholeNumber(rate.Min) + "-" + wholeNumber(rate.Max)}
			for _, name := range []string{"p50", "p90", "p99", "p99.9", "max"} {
				row = append(row, threeDigits(c.Figures[name].Median))
			}
			rows = append(rows, row)
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

// CostTable returns a table of the resources that each target used and of its faults.
func (r *Report) CostTable() [][]string {
	rows := [][]string{{"TARGET", "CPU US/ANSWER", "GENERATOR'S", "MEMORY MB", "BYTES/STREAM", "RESTART S", "FAULTS"}}
	for _, t := range r.Targets {
		memory, perStream := "-", "-"
		if t.Memory != nil {
			memory = wholeNumber(t.Memory.Resident.Median / (1 << 20))
			perStream = medianText(t.Memory.PerStream)
		}
		rows = append(rows, []string{
			t.Name, medianText(t.TargetCPU), medianText(t.GeneratorCPU), memory, perStream, medianText(t.Ready), faultText(t.Faults),
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

// RatioTable returns a table of streamcount's figures divided by its peers', or nil if
// there are no peers.
func (r *Report) RatioTable() [][]string {
	if len(r.Ratios) == 0 {
		return nil
	}
	rows := [][]string{{"STREAMCOUNT /", "CALL", "PER SECOND", "(MIN-MAX)", "P50", "P99", "CPU/ANSWER", "(MIN-MAX)"}}
	for _, x := range r.Ratios {
		rate := x.Figures["perSecond"]
		cpu, cpuRange := "-", "-"
		if c, ok := x.Figures["cpuPerAnswer"]; ok {
			cpu, cpuRange = ratioText(c.Median), ratioText(c.Min)+"-"+ratioText(c.Max)
		}
		rows = append(rows, []string{
			x.Peer, x.Call, ratioText(rate.Median), ratioText(rate.Min) + "-" + ratioText(rate.Max),
			ratioText(x.Figures["p50"].Median), ratioText(x.Figures["p99"].Median), cpu, cpuRange,
		})
	}
	return rows
}

func medianText(s *Stat) string {
	if s == nil {
		return "-"
	}
	return threeDigits(s.Median)
}

func wholeNumber(x float64) string { return strconv.FormatFloat(math.Round(x), 'f', -1, 64) }

// threeDigits formats x with three significant figures, or with all digits before the
// decimal point.
func threeDigits(x float64) string {
	for _, r := range []struct {
		below  float64
		digits int
	}{{0.9995, 3}, {9.995, 2}, {99.95, 1}} {
		if x < r.below {
			return strconv.FormatFloat(x, 'f', r.digits, 64)
		}
	}
	return wholeNumber(x)
}

func ratioText(x float64) string { return threeDigits(x) + "x" }
