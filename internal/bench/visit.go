package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/load"
)

// An op is one kind of call that a scenario measures.
type op int

const (
	opCycle op = iota
	opStart
	opStop
	opHeartbeat
	opRefused
	opZap
	opRestart
	opOthersStart
	opOthersStop
	opPeak
	opOverload
	opAfter
	opShed
	ops
	opNone = ops // not measured
)

var opNames = [ops]string{
	"start+stop", "start", "stop", "heartbeat", "refused start", "zap", "restart", "others' start", "others' stop", "at the peak",
	"under overload", "and afterwards", "refused: overload",
}

const (
	answerTimeout = 10 * time.Second
	// grace is how long a backlog is worked off after the last arrival.
	grace = 30 * time.Second
	// points of a curve over time.
	points = 100
)

// A visit is one run of a scenario on one target.
type visit struct {
	ctx    context.Context
	s      Settings
	server *server // nil if the target ran already
	client *load.Client
	space  string // begins the ids of the visit's own users
	counts bool   // whether the target limits streams and knows which are alive
	limit  int    // as the target says
	ttl    time.Duration
	tally  *tally

	answers atomic.Int64           // so far
	doing   atomic.Pointer[string] // for the progress line
	span    atomic.Pointer[span]   // the same: how long it takes, where that is known

	series [ops]*load.Series // of what is being measured; set while nothing runs
	result result
}

// A result is what a visit measured.
type result struct {
	ops       [ops]*load.Summary // nil for what the scenario does not do
	took      time.Duration
	server    time.Duration // CPU time while measuring
	generator time.Duration
	handled   int64 // answers while measuring

	idle     int64 // bytes of the target before anyone watched
	resident int64 // and the most while measuring
	streams  int64 // that were alive then
	goodput  goodput
	samples  []Sample
	ready    time.Duration
}

// phase says what is being done, for people.
func (v *visit) phase(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	v.doing.Store(&text)
}

// wronglyRefused counts a start that was answered 403 though a slot was free.
func (v *visit) wronglyRefused(user int64, n int64) {
	if v.counts {
		v.tally.add(refused, n, "%s has not used up the limit of %d", v.appendUser(nil, user), v.limit)
	}
}

// record notes the latency of an answer that just came, for n calls.
func (v *visit) record(o op, due time.Time, n int64) {
	if o == opNone || v.series[o] == nil {
		return
	}
	now := time.Now()
	v.series[o].Add(now, now.Sub(due), n)
}

// measure begins to record the kinds of calls in list, for about d. The
// function returned ends that.
func (v *visit) measure(d time.Duration, list ...op) (end func()) {
	begin := time.Now()
	v.span.Store(&span{begin, d})
	step := min(max(d/points, 100*time.Millisecond), 10*time.Second).Round(50 * time.Millisecond)
	for _, o := range list {
		v.series[o] = load.NewSeries(begin, step)
	}
	before, own, answered := v.usage(), ownCPU(), v.answers.Load()
	samples := v.watchTarget(begin)
	return func() {
		v.span.Store(nil)
		v.result.took = time.Since(begin)
		v.result.server = v.usage().cpu - before.cpu
		v.result.generator = ownCPU() - own
		v.result.handled = v.answers.Load() - answered
		v.result.samples = samples()
		for _, s := range v.result.samples {
			v.result.resident = max(v.result.resident, s.Resident)
		}
		for o, s := range v.series {
			if s != nil {
				sum := s.Summary()
				v.result.ops[o], v.series[o] = &sum, nil
			}
		}
	}
}

// usage is the target's, as far as it can be known.
func (v *visit) usage() usage {
	if v.server == nil {
		return usage{}
	}
	return processUsage(v.server.process.PID())
}

// load runs do at the scenario's rate, first without measuring.
func (v *visit) load(ctx context.Context, connections int, do load.Do, list ...op) error {
	p := load.Plan{Rate: v.s.Rate, For: v.s.Warmup, Workers: connections}
	if p.For > 0 {
		v.phase("warming up")
		p.Run(ctx, do)
	}
	p.For, p.Grace = v.s.For, grace
	v.phase("measuring")
	end := v.measure(p.For, list...)
	v.unsent(p.Run(ctx, do))
	end()
	return ctx.Err()
}

func (v *visit) unsent(n int64) {
	if v.ctx.Err() == nil {
		v.tally.add(unsent, n, "the backlog was not worked off %v after the last request was due", grace)
	}
}

// roomy refuses more viewers of one user than the target admits.
func (v *visit) roomy() error {
	if v.counts && v.s.PerUser > int64(v.limit) {
		return SettingError{"per-user", fmt.Sprintf("want up to the limit of %d", v.limit)}
	}
	return nil
}

// check ends a visit: it is an error that the target did not live through it.
func (v *visit) check() error {
	if err := v.ctx.Err(); err != nil {
		return context.Cause(v.ctx)
	}
	if v.server != nil {
		select {
		case <-v.server.process.Done():
			return v.server.failure()
		default:
		}
	}
	return nil
}

// greet asks the target for its limit and TTL.
func (v *visit) greet() error {
	cs, hangUp := v.callers(v.ctx, 1)
	defer hangUp()
	var ok bool
	if v.limit, v.ttl, ok = cs[0].learn(-1); !ok {
		why := "the answers are others"
		for _, f := range v.tally.list() {
			why = f.Kind + ", such as: " + f.Example
		}
		return errors.New("the target does not start and stop a stream as a streamcount server does (" + why +
			"): is the address right, and is it ready?")
	}
	return nil
}
