package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/launch"
	"streamcount/internal/bench/load"
)

// An op is one kind of call that a scenario measures.
type op int

const (
	opCycle op = iota
	opStart
	opStop
	opHeartbeat
	opBatched
	opRefused
	opSwitch
	opRestart
	opOthersStart
	opOthersStop
	opBeforeOverload
	opOverload
	opAfterOverload
	opRejected
	opKinds
	opNone = opKinds // not measured
)

var opNames = [opKinds]string{
	"start+stop", "start", "stop", "heartbeat", "batched heartbeat", "refused start", "switch", "restart", "others' start", "others' stop", "before overload",
	"under overload", "after overload", "rejected: overload",
}

const (
	answerTimeout = 10 * time.Second
	// grace is how long the backlog is processed after the last arrival.
	grace = 30 * time.Second
	// points is the number of points of a curve over time.
	points = 100
)

// A targetRun is one run of a scenario on one target.
type targetRun struct {
	ctx           context.Context
	settings      Settings
	server        *launch.Target // nil if the target was already running
	client        *load.Client
	userPrefix    string // prefix of the user ids, which no other run uses
	enforcesLimit bool   // see Target
	limit         int    // as the target answers
	ttl           time.Duration
	faults        *faultCounter

	answers   atomic.Int64           // so far
	phaseText atomic.Pointer[string] // for the progress line
	period    atomic.Pointer[period] // for the progress line; nil if the phase has no known length

	series [opKinds]*load.Series // of the calls being measured; set while no calls are made
	result result
}

// A result is the result of a targetRun.
type result struct {
	ops          [opKinds]*load.Summary // nil for calls that the scenario does not make
	duration     time.Duration
	targetCPU    time.Duration // CPU time while measuring
	generatorCPU time.Duration
	answers      int64 // answers while measuring

	idleMemory  int64 // bytes of the target without streams
	peakMemory  int64 // maximum while measuring
	streams     int64 // number at the end of the measurement
	goodput     goodput
	samples     []Sample
	restartTime time.Duration
	steps       []step
}

// setPhase sets the description of the current phase, for the progress line.
func (tr *targetRun) setPhase(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	tr.phaseText.Store(&text)
}

// countWrongRefusal counts n starts that were answered 403 although a slot was free.
func (tr *targetRun) countWrongRefusal(user int64, n int64) {
	if tr.enforcesLimit {
		tr.faults.add(faultWrongRefusal, n, "%s has fewer streams than the limit of %d", tr.appendUserID(nil, user), tr.limit)
	}
}

// recordLatency records the latency of an answer that has just arrived, for n calls.
func (tr *targetRun) recordLatency(o op, due time.Time, n int64) {
	if o == opNone || tr.series[o] == nil {
		return
	}
	now := time.Now()
	tr.series[o].Add(now, now.Sub(due), n)
}

// measure starts to record the calls in list. end stops the recording, after about d.
func (tr *targetRun) measure(d time.Duration, list ...op) (end func()) {
	begin := time.Now()
	tr.period.Store(&period{begin, d})
	step := min(max(d/points, 100*time.Millisecond), 10*time.Second).Round(50 * time.Millisecond)
	for _, o := range list {
		tr.series[o] = load.NewSeries(begin, step)
	}
	before, own, answered := tr.usage(), launch.OwnCPU(), tr.answers.Load()
	samples := tr.sampleTarget(begin)
	return func() {
		tr.period.Store(nil)
		tr.result.duration = time.Since(begin)
		tr.result.targetCPU = tr.usage().CPU - before.CPU
		tr.result.generatorCPU = launch.OwnCPU() - own
		tr.result.answers = tr.answers.Load() - answered
		tr.result.samples = samples()
		for _, s := range tr.result.samples {
			tr.result.peakMemory = max(tr.result.peakMemory, s.Resident)
		}
		for o, s := range tr.series {
			if s != nil {
				sum := s.Summary()
				tr.result.ops[o], tr.series[o] = &sum, nil
			}
		}
	}
}

// usage returns the usage of the target, or zero if the run did not start it.
func (tr *targetRun) usage() launch.Usage {
	if tr.server == nil {
		return launch.Usage{}
	}
	return tr.server.Usage()
}

// runLoad runs do at the scenario's rate, first without measuring and then measuring.
func (tr *targetRun) runLoad(ctx context.Context, connections int, do load.Do, list ...op) error {
	p := load.Plan{Rate: tr.settings.Rate, Duration: tr.settings.Warmup, Workers: connections}
	if p.Duration > 0 {
		tr.setPhase("warming up")
		p.Run(ctx, do)
	}
	p.Duration, p.Grace = tr.settings.Duration, grace
	tr.setPhase("measuring")
	end := tr.measure(p.Duration, list...)
	tr.countUnsent(p.Run(ctx, do))
	end()
	return ctx.Err()
}

func (tr *targetRun) countUnsent(n int64) {
	if tr.ctx.Err() == nil {
		tr.faults.add(faultUnsent, n, "requests were still waiting %v after the last one was due", grace)
	}
}

// checkPerUser returns an error if one user has more viewers than the target admits.
func (tr *targetRun) checkPerUser() error {
	if tr.enforcesLimit && tr.settings.PerUser > int64(tr.limit) {
		return SettingError{"per-user", fmt.Sprintf("want up to the limit of %d", tr.limit)}
	}
	return nil
}

// checkTarget returns an error if the target has exited or the run was interrupted.
func (tr *targetRun) checkTarget() error {
	if err := tr.ctx.Err(); err != nil {
		return context.Cause(tr.ctx)
	}
	if tr.server != nil {
		select {
		case <-tr.server.Done():
			return tr.server.ExitError()
		default:
		}
	}
	return nil
}

// handshake finds out the limit and the TTL of the target.
func (tr *targetRun) handshake() error {
	cs, closeAll := tr.callers(tr.ctx, 1)
	defer closeAll()
	var ok bool
	if tr.limit, tr.ttl, ok = cs[0].limitAndTTL(-1); !ok {
		why := "the answers differ"
		for _, f := range tr.faults.list() {
			why = f.Kind + ", for example: " + f.Example
		}
		return errors.New("the target does not start and stop a stream as a streamcount server does (" + why +
			"): is the address right, and is it ready?")
	}
	return nil
}
