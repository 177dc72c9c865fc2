package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/launch"
	"streamcount/internal/bench/load"
	"streamcount/internal/retry"
)

// scaleScenario returns the scenario scale with defaults derived from base.
func scaleScenario(base Settings) Scenario {
	return Scenario{
		Name: "scale", Short: "Rates, CPU time and memory as the number of live streams grows", run: scale,
		Long: "Streams are started up to 10,000, 100,000, 300,000 and 1,000,000, or up to --viewers, while the viewers of\n" +
			"those already started send heartbeats. At each of these numbers, after one more interval of heartbeats, other\n" +
			"users start and stop --others streams per second for twice --duration, which gives the latencies. Then they start\n" +
			"streams as fast as the node answers, which gives the rate. Then the heartbeats pause, and starts, stops, single\n" +
			"heartbeats and batched heartbeats are made one kind after the other, which gives the CPU time of each.\n" +
			"A step that is not filled within --fill-timeout is measured with the streams that it has, and is the last.",
		Uses: []string{"viewers", "fill-timeout", "duration", "heartbeat", "batch", "others"},
		Defaults: modified(base, func(s *Settings) {
			s.Viewers, s.FillTimeout, s.Duration = 1_000_000, 10*time.Minute, 5*time.Second
			s.Heartbeat, s.Batch, s.OtherStarts = 30*time.Second, 500, 500
		}),
	}
}

// A step is the result at one number of live streams.
type step struct {
	viewers int64              // number of streams that the step was to have
	figures map[string]float64 // by name, see scaleFigures; without those that were not measured
}

// scaleSteps returns the numbers of live streams to measure at, of which the last is n.
func scaleSteps(n int64) []int64 {
	var list []int64
	for _, at := range []int64{10_000, 100_000, 300_000, 1_000_000} {
		if at < n {
			list = append(list, at)
		}
	}
	return append(list, n)
}

// A scaleRun is one run of the scenario.
type scaleRun struct {
	tr         *targetRun
	vs         *viewers
	heartbeats *rotation
	others     *viewers // streams of other users, which are stopped in the step that starts them
	used       int64    // how many of others were started
}

func scale(ctx context.Context, tr *targetRun) error {
	if err := checkScale(tr.settings, tr.ttl); err != nil {
		return err
	}
	vs := tr.viewers(tr.settings.Viewers, 1)
	r := &scaleRun{tr: tr, vs: vs, heartbeats: &rotation{vs: vs, interval: tr.settings.Heartbeat, batch: int64(tr.settings.Batch)}}
	var from int64
	var steps []step
	for _, to := range scaleSteps(vs.count()) {
		s, complete := r.step(ctx, from, to)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if s.streams() == 0 {
			return fmt.Errorf("no stream was started in %v", tr.settings.FillTimeout)
		}
		steps = append(steps, s)
		from = to
		if !complete {
			break
		}
	}
	tr.result = result{steps: steps} // the rest is of the last step only
	tr.setPhase("checking that every stream exists")
	vs.renewAll(ctx)
	vs.verifyCounts(ctx, min(r.heartbeats.end.Load(), maxVerifiedUsers))
	return ctx.Err()
}

// checkScale returns an error if the heartbeats would be late because they pause in the
// phases that measure CPU time. There are at most five times Duration without them.
func checkScale(s Settings, ttl time.Duration) error {
	switch {
	case s.Heartbeat > ttl/3:
		return SettingError{"heartbeat", fmt.Sprintf("want at most a third of the TTL (%v)", ttl)}
	case s.Duration > ttl/15:
		return SettingError{"duration", fmt.Sprintf("want at most a fifteenth of the TTL (%v): heartbeats pause for a multiple of it", ttl)}
	}
	return nil
}

// step starts the streams of the viewers in [from, to) and measures. It reports whether
// all were started in time.
func (r *scaleRun) step(ctx context.Context, from, to int64) (s step, complete bool) {
	tr, d := r.tr, r.tr.settings.Duration
	s = step{viewers: to, figures: make(map[string]float64)}
	begin, runtimeBefore := tr.usage(), tr.runtimeMetrics(ctx)
	stop := r.heartbeats.start(ctx)
	if complete = r.fill(ctx, s, from, to); s.streams() == 0 {
		stop()
		return s, false
	}
	tr.setPhase("%d streams: waiting for an interval of heartbeats", s.streams())
	_ = retry.Sleep(ctx, r.heartbeats.interval)
	stop()
	tr.setPhase("%d streams: measuring latencies", s.streams())
	r.measureLatencies(ctx, s)
	resident := max(tr.result.peakMemory, tr.usage().Resident)

	n := max(s.streams()/20, 2_000)
	r.others, r.used = tr.viewers(2*n, 1), 0
	r.others.first = r.vs.users()
	tr.setPhase("%d streams: measuring the rate of starts", s.streams())
	stop = r.heartbeats.start(ctx)
	own, before, began := launch.OwnCPU(), tr.usage().CPU, time.Now()
	started := r.startOthers(ctx, n)
	s.set("startsPerSecond", float64(started)/time.Since(began).Seconds())
	if cpu, own := tr.usage().CPU-before, launch.OwnCPU()-own; cpu > 0 {
		s.set("generatorShare", float64(own)/float64(own+cpu))
	}
	stop()

	tr.setPhase("%d streams: measuring CPU time", s.streams())
	paused := time.Now()
	s.set("startCPUMicros", tr.cpuPerCall(func() int64 { return r.startOthers(ctx, n) }))
	s.set("stopCPUMicros", tr.cpuPerCall(func() int64 { return r.stopOthers(ctx) }))
	// Wait until enough heartbeats are due.
	_ = retry.Sleep(ctx, r.heartbeats.interval/2-time.Since(paused))
	due := r.heartbeats.countDue()
	s.set("heartbeatCPUMicros", tr.cpuPerCall(func() int64 { return r.heartbeats.sendDue(ctx, 1, due/2, d, tr.settings.Connections) }))
	s.set("batchedCPUMicros", tr.cpuPerCall(func() int64 {
		return r.heartbeats.sendDue(ctx, int64(tr.settings.Batch), due-due/2, d, batchConnections)
	}))
	s.set("residentBytes", float64(max(resident, tr.usage().Resident)))
	s.setRuntime(tr.runtimeMetrics(ctx), runtimeBefore, tr.usage(), begin)
	return s, complete
}

// batchConnections is the number of connections that send batches while their CPU time
// is measured.
const batchConnections = 4

// fill starts the streams of the viewers in [from, to) as fast as the target answers,
// until all are started or the time is over. It reports whether all were started.
func (r *scaleRun) fill(ctx context.Context, s step, from, to int64) bool {
	tr := r.tr
	cs, closeAll := tr.callers(tr.ctx, tr.settings.Connections)
	defer closeAll()
	inTime, cancel := context.WithTimeout(ctx, tr.settings.FillTimeout)
	defer cancel()
	begin := time.Now()
	var started, tried atomic.Int64
	load.Plan{Count: to - from, Workers: len(cs)}.Run(inTime, func(w int, i int64, _ time.Time) {
		if i%256 == 0 {
			tr.setPhase("starting viewers: %d of %d", from+i, to)
		}
		r.heartbeats.end.Store(from + i) // those that started before take part in the rotation
		tried.Add(1)
		if r.vs.startOne(inTime, cs[w], from+i) {
			started.Add(1)
		}
	})
	took := time.Since(begin).Seconds()
	r.heartbeats.end.Store(from + tried.Load()) // the plan counts up without gaps
	s.set("streams", float64(r.vs.aliveCount()))
	s.set("fillSeconds", took)
	s.set("fillStartsPerSecond", float64(started.Load())/took)
	return tried.Load() == to-from && inTime.Err() == nil
}

// measureLatencies has other users start and stop streams, and some of the viewers send
// single heartbeats, while the others send batched ones.
func (r *scaleRun) measureLatencies(ctx context.Context, s step) {
	tr := r.tr
	d := 2 * tr.settings.Duration
	end := tr.measure(d, opOthersStart, opOthersStop, opHeartbeat, opBatched)
	stop := r.heartbeats.start(ctx)
	var flows sync.WaitGroup
	flows.Go(func() { tr.runOtherUsers(ctx, r.vs.users(), d) })
	flows.Go(func() {
		// At most a quarter of the usual rate, so that the interval of the viewers remains about the same.
		rate := min(float64(r.heartbeats.end.Load())/r.heartbeats.interval.Seconds()/4, max(tr.settings.OtherStarts, 1))
		r.heartbeats.sendSingles(ctx, rate, d, max(tr.settings.Connections/4, 1))
	})
	flows.Wait()
	stop()
	end()
	for o, name := range map[op]string{opOthersStart: "start", opOthersStop: "stop", opHeartbeat: "heartbeat", opBatched: "batched"} {
		if sum := tr.result.ops[o]; sum != nil && sum.Count > 0 {
			s.set(name+"P50Millis", millis(sum.Quantile(50)))
			s.set(name+"P99Millis", millis(sum.Quantile(99)))
		}
	}
}

// startOthers starts up to n streams of other users as fast as the target answers, for
// at most the duration in the settings. It returns how many were started.
func (r *scaleRun) startOthers(ctx context.Context, n int64) int64 {
	cs, closeAll := r.tr.callers(r.tr.ctx, r.tr.settings.Connections)
	defer closeAll()
	var started, tried atomic.Int64
	load.Plan{Count: n, Duration: r.tr.settings.Duration, Workers: len(cs)}.Run(ctx, func(w int, i int64, _ time.Time) {
		tried.Add(1)
		if r.others.startOne(ctx, cs[w], r.used+i) {
			started.Add(1)
		}
	})
	r.used += tried.Load()
	return started.Load()
}

// stopOthers stops the streams that startOthers has started, and returns how many it has
// stopped.
func (r *scaleRun) stopOthers(ctx context.Context) int64 {
	if r.used == 0 { // the context has ended
		return 0
	}
	cs, closeAll := r.tr.callers(r.tr.ctx, r.tr.settings.Connections)
	defer closeAll()
	var stopped atomic.Int64
	load.Plan{Count: r.used, Workers: len(cs)}.Run(ctx, func(w int, k int64, _ time.Time) {
		if r.others.acquire(ctx, k) && r.others.stopOne(cs[w], k) {
			stopped.Add(1)
		}
	})
	return stopped.Load()
}

// cpuPerCall returns the CPU time of the target while do runs, divided by the number of
// calls that do returns, in microseconds. It is 0 if the run did not start the target.
func (tr *targetRun) cpuPerCall(do func() int64) float64 {
	before := tr.usage().CPU
	n := do()
	return micros(tr.usage().CPU-before, n)
}

// runtimeMetrics returns the metrics of the target's Go runtime, or none if the run did
// not start it.
func (tr *targetRun) runtimeMetrics(ctx context.Context) map[string]float64 {
	if tr.server == nil {
		return nil
	}
	return tr.server.Runtime(ctx)
}

func (s step) streams() int64 { return int64(s.figures["streams"]) }

// set sets a figure, unless it is 0, which means that it was not measured.
func (s step) set(name string, value float64) {
	if value > 0 {
		s.figures[name] = value
	}
}

// setRuntime sets the figures of the garbage collector from the runtime's metrics and
// the usage at the beginning and the end of the step. Runtimes that do not report them,
// and the memory of targets with child processes, are left out.
func (s step) setRuntime(after, before map[string]float64, end, begin launch.Usage) {
	grown := func(class string) float64 {
		name := "go_cpu_classes_" + class + "_cpu_seconds_total"
		return after[name] - before[name]
	}
	if busy, cpu := grown("total")-grown("idle"), end.CPU-begin.CPU; busy > 0 && cpu > 0 {
		ofRuntime := 1 - float64(end.ChildrenCPU-begin.ChildrenCPU)/float64(cpu)
		s.set("gcShare", grown("gc_total")/busy*ofRuntime)
	}
	if end.ChildrenCPU > 0 {
		return
	}
	s.set("liveBytes", after["go_gc_heap_live_bytes"])
	s.set("liveBytesPerStream", after["go_gc_heap_live_bytes"]/float64(max(s.streams(), 1)))
}
