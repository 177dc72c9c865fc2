package bench

import (
	"time"

	"streamcount/internal/bench/load"
)

// A Report is the result of a benchmark.
type Report struct {
	Scenario string   `json:"scenario"`
	Command  []string `json:"command"`
	Version  string   `json:"version"`
	// BaseVersion is the version of the target base.
	BaseVersion string         `json:"baseVersion,omitempty"`
	StartedAt   time.Time      `json:"startedAt"`
	Seconds     float64        `json:"seconds"` // duration of the benchmark
	Machine     Machine        `json:"machine"`
	Settings    map[string]any `json:"settings"`
	Targets     []TargetReport `json:"targets"`
	Ratios      []Ratio        `json:"ratios,omitempty"`
	StepRatios  []StepRatio    `json:"stepRatios,omitempty"` // of the scenario scale

	cfg     Config
	faults  []*faultCounter // by target
	results [][]result      // by target and run
}

// A TargetReport is the result of one target over all runs. Latencies are in
// milliseconds.
type TargetReport struct {
	Name   string       `json:"name"`
	Calls  []CallReport `json:"calls"`
	Steps  []StepReport `json:"steps,omitempty"` // of the scenario scale
	Faults []Fault      `json:"faults,omitempty"`
	// CPU time per answer, in microseconds. TargetCPU is absent for a node that the
	// benchmark did not start.
	TargetCPU    *Stat `json:"targetCpuMicros,omitempty"`
	GeneratorCPU *Stat `json:"generatorCpuMicros,omitempty"`
	// Memory is the target's resident memory.
	Memory *Memory `json:"memory,omitempty"`
	// Ready is the time from a restart until /readyz answered 200, in seconds.
	Ready *Stat `json:"readySeconds,omitempty"`
	// Goodput is the throughput at the peak and under overload.
	Goodput *Goodput `json:"goodput,omitempty"`
	// Samples are the resources that the target used in the last run, once per second.
	Samples []Sample `json:"samples,omitempty"`
}

// A CallReport is the result of one kind of call.
type CallReport struct {
	Call    string          `json:"call"`
	Count   int64           `json:"count"` // over all runs
	Figures map[string]Stat `json:"figures"`
	Runs    []CallRun       `json:"runs"`
}

// A CallRun has the figures of one kind of call in one run.
type CallRun struct {
	Count   int64              `json:"count"`
	Figures map[string]float64 `json:"figures"`
}

// Memory is a target's resident memory in bytes.
type Memory struct {
	Idle      Stat  `json:"idle"`     // without streams
	Resident  Stat  `json:"resident"` // maximum while measuring
	Streams   int64 `json:"streams,omitempty"`
	PerStream *Stat `json:"perStream,omitempty"` // (Resident - Idle) / Streams
}

// A Ratio is streamcount's figure divided by that of a peer or of base. Each Stat is
// over the ratios of the runs. The figure cpuPerAnswer is of all calls together.
type Ratio struct {
	Call    string          `json:"call"`
	Peer    string          `json:"peer"`
	Figures map[string]Stat `json:"figures"`
}

func newReport(cfg Config, m Machine) *Report {
	n := len(cfg.targets())
	r := &Report{
		Scenario: cfg.Scenario.Name, StartedAt: time.Now().UTC().Truncate(time.Second), Machine: m,
		Settings: cfg.Settings.asMap(cfg.Scenario.Uses), cfg: cfg,
		faults: make([]*faultCounter, n), results: make([][]result, n),
	}
	for i := range r.faults {
		r.faults[i] = &faultCounter{}
	}
	return r
}

// asMap returns the settings that a scenario uses, with durations in seconds.
func (s Settings) asMap(uses []string) map[string]any {
	all := map[string]any{
		"rate": s.Rate, "duration": s.Duration.Seconds(), "warmup": s.Warmup.Seconds(), "users": s.Users,
		"viewers": s.Viewers, "per-user": s.PerUser, "over": s.Over.Seconds(), "heartbeat": s.Heartbeat.Seconds(),
		"batch": s.Batch, "session": s.Session.Seconds(), "switch": s.SwitchShare, "others": s.OtherStarts, "fill-timeout": s.FillTimeout.Seconds(), "restart": s.Restart,
	}
	if s.Rate == 0 {
		all["rate"] = "max"
	}
	m := map[string]any{
		"runs": s.Runs, "connections": s.Connections, "limit": s.Limit, "ttl": s.TTL.Seconds(),
	}
	for _, name := range uses {
		m[name] = all[name]
	}
	return m
}

// summarize computes the exported fields from the results of the runs.
func (r *Report) summarize() {
	r.Seconds = rounded(time.Since(r.StartedAt).Seconds())
	for i, target := range r.cfg.targets() {
		r.Targets = append(r.Targets, r.target(target.Name, r.results[i], r.faults[i]))
	}
	for i := range r.Targets[1:] {
		for _, ours := range r.Targets[0].Calls {
			r.addRatio(i+1, ours)
		}
		r.addStepRatios(i + 1)
	}
}

func (r *Report) target(name string, runs []result, t *faultCounter) TargetReport {
	out := TargetReport{Name: name, Calls: []CallReport{}, Steps: stepReports(runs), Faults: t.list(), Samples: runs[len(runs)-1].samples}
	for o := range opKinds {
		if c, ok := callReport(opNames[o], summaries(runs, o)); ok {
			out.Calls = append(out.Calls, c)
		}
	}
	out.GeneratorCPU = statOver(runs, func(res result) float64 { return micros(res.generatorCPU, res.answers) })
	out.TargetCPU = statOver(runs, func(res result) float64 { return micros(res.targetCPU, res.answers) })
	out.Goodput = newGoodput(runs)
	out.Ready = statOver(runs, func(res result) float64 { return res.restartTime.Seconds() })
	resident := statOver(runs, func(res result) float64 { return float64(res.peakMemory) })
	if resident == nil {
		return out
	}
	out.Memory = &Memory{Resident: *resident}
	if idle := statOver(runs, func(res result) float64 { return float64(res.idleMemory) }); idle != nil {
		out.Memory.Idle = *idle
	}
	out.Memory.Streams = runs[len(runs)-1].streams
	out.Memory.PerStream = statOver(runs, func(res result) float64 {
		return float64(res.peakMemory-res.idleMemory) / float64(max(res.streams, 1)) * float64(min(res.streams, 1))
	})
	return out
}

// statOver returns the Stat of a figure over the runs, or nil if it is zero in all.
func statOver(runs []result, f func(result) float64) *Stat {
	values := make([]float64, len(runs))
	some := false
	for i, res := range runs {
		values[i] = f(res)
		some = some || values[i] != 0
	}
	if !some {
		return nil
	}
	s := newStat(values)
	return &s
}

// summaries returns the summaries of one kind of call in the runs that made it.
func summaries(runs []result, o op) []load.Summary {
	var list []load.Summary
	for _, res := range runs {
		if s := res.ops[o]; s != nil {
			list = append(list, *s)
		}
	}
	return list
}

func callReport(name string, runs []load.Summary) (CallReport, bool) {
	c := CallReport{Call: name, Figures: make(map[string]Stat)}
	values := make(map[string][]float64)
	for _, s := range runs {
		run := CallRun{Count: s.Count, Figures: make(map[string]float64)}
		for _, f := range figures {
			x := f.value(s)
			run.Figures[f.name] = rounded(x)
			values[f.name] = append(values[f.name], x)
		}
		c.Count += s.Count
		c.Runs = append(c.Runs, run)
	}
	for name, v := range values {
		c.Figures[name] = newStat(v)
	}
	return c, len(runs) > 0
}

// addRatio adds the ratio of a call of streamcount to the same call of target i.
func (r *Report) addRatio(i int, ours CallReport) {
	for _, theirs := range r.Targets[i].Calls {
		if theirs.Call != ours.Call || theirs.Count == 0 || ours.Count == 0 {
			continue
		}
		ratio := Ratio{Call: ours.Call, Peer: r.Targets[i].Name, Figures: make(map[string]Stat)}
		for _, f := range figures {
			ratio.Figures[f.name] = newStat(ratios(ours.perRun(f.name), theirs.perRun(f.name)))
		}
		if cpu := ratios(cpuPerAnswer(r.results[0]), cpuPerAnswer(r.results[i])); len(cpu) > 0 {
			ratio.Figures["cpuPerAnswer"] = newStat(cpu)
		}
		r.Ratios = append(r.Ratios, ratio)
	}
}

// cpuPerAnswer returns the target's CPU time per answer in microseconds, by run.
func cpuPerAnswer(runs []result) []float64 {
	var list []float64
	for _, res := range runs {
		list = append(list, micros(res.targetCPU, res.answers))
	}
	return list
}

// perRun returns the values of one figure, by run.
func (c CallReport) perRun(figure string) []float64 {
	var list []float64
	for _, run := range c.Runs {
		list = append(list, run.Figures[figure])
	}
	return list
}

// Violations returns the faults of streamcount that are not harmless. Faults of peers
// are reported but are no violations.
func (r *Report) Violations() []Fault {
	var list []Fault
	for _, f := range r.Targets[0].Faults {
		if !f.Harmless {
			list = append(list, f)
		}
	}
	return list
}
