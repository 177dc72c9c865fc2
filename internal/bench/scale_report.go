package bench

import (
	"slices"
	"strings"
)

// A StepReport is the result of one target at one number of live streams.
type StepReport struct {
	Viewers int64                `json:"viewers"` // number of streams that the step was to have
	Figures map[string]Stat      `json:"figures"`
	Runs    []map[string]float64 `json:"runs"`
}

// A StepRatio is streamcount's figures at one number of live streams divided by those of
// a peer or of base. Each Stat is over the ratios of the runs.
type StepRatio struct {
	Peer    string          `json:"peer"`
	Viewers int64           `json:"viewers"`
	Figures map[string]Stat `json:"figures"`
}

// A scaleFigure is one figure of a step.
type scaleFigure struct {
	name, label string
	unit        float64 // of the value in the table
}

// scaleFigures lists the figures in the order of the table.
var scaleFigures = []scaleFigure{
	{"streams", "live streams", 1},
	{"fillSeconds", "time to fill, s", 1},
	{"fillStartsPerSecond", "starts/s while filling", 1},
	{"startsPerSecond", "starts/s", 1},
	{"startCPUMicros", "CPU per start, us", 1},
	{"stopCPUMicros", "CPU per stop, us", 1},
	{"heartbeatCPUMicros", "CPU per single heartbeat, us", 1},
	{"batchedCPUMicros", "CPU per batched heartbeat, us", 1},
	{"gcShare", "garbage collector, % of CPU", 0.01},
	{"liveBytes", "live memory, MB", 1 << 20},
	{"liveBytesPerStream", "live bytes per stream", 1},
	{"residentBytes", "resident memory, MB", 1 << 20},
	{"startP50Millis", "start, p50, ms", 1},
	{"startP99Millis", "start, p99, ms", 1},
	{"stopP50Millis", "stop, p50, ms", 1},
	{"stopP99Millis", "stop, p99, ms", 1},
	{"heartbeatP50Millis", "heartbeat, p50, ms", 1},
	{"heartbeatP99Millis", "heartbeat, p99, ms", 1},
	{"batchedP50Millis", "batch of heartbeats, p50, ms", 1},
	{"batchedP99Millis", "batch of heartbeats, p99, ms", 1},
	{"generatorShare", "load generator, % of CPU", 0.01},
}

// stepReports returns the reports of all steps that at least one run has reached.
func stepReports(runs []result) []StepReport {
	var list []StepReport
	for _, res := range runs {
		for _, s := range res.steps {
			if !slices.ContainsFunc(list, func(r StepReport) bool { return r.Viewers == s.viewers }) {
				list = append(list, StepReport{Viewers: s.viewers, Figures: make(map[string]Stat), Runs: make([]map[string]float64, len(runs))})
			}
		}
	}
	for i := range list {
		for run, res := range runs {
			for _, s := range res.steps {
				if s.viewers == list[i].Viewers {
					list[i].Runs[run] = s.figures
				}
			}
		}
		for _, f := range scaleFigures {
			if values := slices.DeleteFunc(list[i].perRun(f.name), func(x float64) bool { return x == 0 }); len(values) > 0 {
				list[i].Figures[f.name] = newStat(values)
			}
		}
	}
	slices.SortFunc(list, func(a, b StepReport) int { return int(a.Viewers - b.Viewers) })
	return list
}

// perRun returns the values of one figure, by run; 0 for a run without it.
func (r StepReport) perRun(figure string) []float64 {
	var list []float64
	for _, run := range r.Runs {
		list = append(list, run[figure])
	}
	return list
}

// addStepRatios adds the ratios of streamcount's figures to those of target i.
func (r *Report) addStepRatios(i int) {
	for _, ours := range r.Targets[0].Steps {
		for _, theirs := range r.Targets[i].Steps {
			if theirs.Viewers != ours.Viewers {
				continue
			}
			ratio := StepRatio{Peer: r.Targets[i].Name, Viewers: ours.Viewers, Figures: make(map[string]Stat)}
			for _, f := range scaleFigures {
				list := slices.DeleteFunc(ratios(ours.perRun(f.name), theirs.perRun(f.name)), func(x float64) bool { return x == 0 })
				if len(list) > 0 {
					ratio.Figures[f.name] = newStat(list)
				}
			}
			r.StepRatios = append(r.StepRatios, ratio)
		}
	}
}

// ScaleTable returns a table of the figures of each step, with a column for each target
// and one for its ratio, or nil if the scenario has no steps.
func (r *Report) ScaleTable() [][]string {
	header := []string{"STREAMS", "FIGURE"}
	for i, t := range r.Targets {
		header = append(header, strings.ToUpper(t.Name))
		if i > 0 {
			header = append(header, "STREAMCOUNT / "+strings.ToUpper(t.Name))
		}
	}
	rows := [][]string{header}
	for _, at := range scaleSteps(r.cfg.Settings.Viewers) {
		for _, f := range scaleFigures {
			row, measured := []string{wholeNumber(float64(at)), f.label}, false
			for i, t := range r.Targets {
				cell, ok := statCell(t.stepFigures(at), f.name, f.unit, "")
				row, measured = append(row, cell), measured || ok
				if i > 0 {
					cell, _ = statCell(r.stepRatio(t.Name, at), f.name, 1, "x")
					row = append(row, cell)
				}
			}
			if measured {
				rows = append(rows, row)
			}
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

func (t TargetReport) stepFigures(viewers int64) map[string]Stat {
	for _, s := range t.Steps {
		if s.Viewers == viewers {
			return s.Figures
		}
	}
	return nil
}

func (r *Report) stepRatio(peer string, viewers int64) map[string]Stat {
	for _, x := range r.StepRatios {
		if x.Peer == peer && x.Viewers == viewers {
			return x.Figures
		}
	}
	return nil
}

// statCell returns the median of a figure, with the lowest and the highest value if they
// differ, or "-" if there is no such figure.
func statCell(figures map[string]Stat, name string, unit float64, suffix string) (cell string, ok bool) {
	s, ok := figures[name]
	if !ok {
		return "-", false
	}
	cell = threeDigits(s.Median/unit) + suffix
	if s.Min != s.Max {
		cell += " (" + threeDigits(s.Min/unit) + suffix + "-" + threeDigits(s.Max/unit) + suffix + ")"
	}
	return cell, true
}
