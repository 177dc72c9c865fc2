package bench

import (
	"time"

	"streamcount/internal/bench/load"
)

// A Report is what a benchmark measured.
type Report struct {
	Scenario  string         `json:"scenario"`
	Command   []string       `json:"command"`
	Version   string         `json:"version"`
	StartedAt time.Time      `json:"startedAt"`
	Seconds   float64        `json:"seconds"` // that the benchmark took
	Machine   Machine        `json:"machine"`
	Settings  map[string]any `json:"settings"`
	Targets   []TargetReport `json:"targets"`
	Ratios    []Ratio        `json:"ratios,omitempty"`

	cfg     Config
	tallies []*tally   // of each target
	results [][]result // of each target and run
}

// A TargetReport is what one target did, over all runs. Latencies are in
// milliseconds.
type TargetReport struct {
	Name   string       `json:"name"`
	Calls  []CallReport `json:"calls"`
	Faults []Fault      `json:"faults,omitempty"`
	// CPU time for each answer, in microseconds. Target is absent for a node
	// that bench did not start.
	TargetCPU    *Stat `json:"targetCpuMicros,omitempty"`
	GeneratorCPU *Stat `json:"generatorCpuMicros,omitempty"`
	// Memory is what the target had resident, in bytes.
	Memory *Memory `json:"memory,omitempty"`
	// Ready is how many seconds a restart took until /readyz answered 200.
	Ready *Stat `json:"readySeconds,omitempty"`
	// Goodput is what was done at the peak and under overload.
	Goodput *Goodput `json:"goodput,omitempty"`
	// Samples are what the target held in the last run, once a second.
	Samples []Sample `json:"samples,omitempty"`
}

// A CallReport is about one kind of call.
type CallReport struct {
	Call    string          `json:"call"`
	Count   int64           `json:"count"` // over all runs
	Figures map[string]Stat `json:"figures"`
	Runs    []CallRun       `json:"runs"`
}

// A CallRun is one run's figures of a call.
type CallRun struct {
	Count   int64              `json:"count"`
	Figures map[string]float64 `json:"figures"`
}

// Memory is a target's resident memory in bytes.
type Memory struct {
	Idle      Stat  `json:"idle"`     // before anyone watched
	Resident  Stat  `json:"resident"` // the most while measuring
	Streams   int64 `json:"streams,omitempty"`
	PerStream *Stat `json:"perStream,omitempty"` // what was added, divided by the streams
}

// A Ratio is streamcount's figure divided by a peer's: the median, lowest and
// highest of the runs' ratios. More calls a second are better, more
// milliseconds worse.
type Ratio struct {
	Call    string          `json:"call"`
	Peer    string          `json:"peer"`
	Figures map[string]Stat `json:"figures"`
}

func newReport(cfg Config, m Machine) *Report {
	n := len(cfg.targets())
	r := &Report{
		Scenario: cfg.Scenario.Name, StartedAt: time.Now().UTC().Truncate(time.Second), Machine: m,
		Settings: cfg.Settings.used(cfg.Scenario.Uses), cfg: cfg,
		tallies: make([]*tally, n), results: make([][]result, n),
	}
	for i := range r.tallies {
		r.tallies[i] = &tally{}
	}
	return r
}

// used are the settings that a scenario went by, durations in seconds.
func (s Settings) used(uses []string) map[string]any {
	all := map[string]any{
		"rate": s.Rate, "duration": s.For.Seconds(), "warmup": s.Warmup.Seconds(), "users": s.Users,
		"viewers": s.Viewers, "per-user": s.PerUser, "over": s.Over.Seconds(), "heartbeat": s.Heartbeat.Seconds(),
		"batch": s.Batch, "session": s.Session.Seconds(), "zap": s.Zap, "others": s.Others, "restart": s.Restart,
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

// sumUp fills in the report when all runs are done.
func (r *Report) sumUp() {
	r.Seconds = rounded(time.Since(r.StartedAt).Seconds())
	for i, target := range r.cfg.targets() {
		r.Targets = append(r.Targets, r.target(target.Name, r.results[i], r.tallies[i]))
	}
	for i, peer := range r.Targets {
		for _, ours := range r.Targets[0].Calls {
			if i > 0 {
				r.addRatio(peer, ours)
			}
		}
	}
}

func (r *Report) target(name string, runs []result, t *tally) TargetReport {
	out := TargetReport{Name: name, Faults: t.list(), Samples: runs[len(runs)-1].samples}
	for o := range ops {
		if c, ok := callReport(opNames[o], summaries(runs, o)); ok {
			out.Calls = append(out.Calls, c)
		}
	}
	out.GeneratorCPU = each(runs, func(res result) float64 { return micros(res.generator, res.handled) })
	out.TargetCPU = each(runs, func(res result) float64 { return micros(res.server, res.handled) })
	out.Goodput = goodputOf(runs)
	out.Ready = each(runs, func(res result) float64 { return res.ready.Seconds() })
	resident := each(runs, func(res result) float64 { return float64(res.resident) })
	if resident == nil {
		return out
	}
	out.Memory = &Memory{Resident: *resident}
	if idle := each(runs, func(res result) float64 { return float64(res.idle) }); idle != nil {
		out.Memory.Idle = *idle
	}
	out.Memory.Streams = runs[len(runs)-1].streams
	out.Memory.PerStream = each(runs, func(res result) float64 {
		return float64(res.resident-res.idle) / float64(max(res.streams, 1)) * float64(min(res.streams, 1))
	})
	return out
}

// each sums up a figure of the runs, or is nil where it is zero in all.
func each(runs []result, f func(result) float64) *Stat {
	values := make([]float64, len(runs))
	some := false
	for i, res := range runs {
		values[i] = f(res)
		some = some || values[i] != 0
	}
	if !some {
		return nil
	}
	s := statOf(values)
	return &s
}

// summaries are those of one kind of call in all runs that made it.
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
			x := f.of(s)
			run.Figures[f.name] = rounded(x)
			values[f.name] = append(values[f.name], x)
		}
		c.Count += s.Count
		c.Runs = append(c.Runs, run)
	}
	for name, v := range values {
		c.Figures[name] = statOf(v)
	}
	return c, len(runs) > 0
}

// addRatio compares one of our calls with the same call of a peer.
func (r *Report) addRatio(peer TargetReport, ours CallReport) {
	for _, theirs := range peer.Calls {
		if theirs.Call != ours.Call || theirs.Count == 0 || ours.Count == 0 {
			continue
		}
		ratio := Ratio{Call: ours.Call, Peer: peer.Name, Figures: make(map[string]Stat)}
		for _, f := range figures {
			ratio.Figures[f.name] = statOf(ratios(ours.of(f.name), theirs.of(f.name)))
		}
		r.Ratios = append(r.Ratios, ratio)
	}
}

// of lists one figure of all runs.
func (c CallReport) of(figure string) []float64 {
	var list []float64
	for _, run := range c.Runs {
		list = append(list, run.Figures[figure])
	}
	return list
}

// Violations lists the faults of streamcount itself that are not harmless. A
// peer's are shown, but it is not the peer that is being tested.
func (r *Report) Violations() []Fault {
	var list []Fault
	for _, f := range r.Targets[0].Faults {
		if !f.Harmless {
			list = append(list, f)
		}
	}
	return list
}
