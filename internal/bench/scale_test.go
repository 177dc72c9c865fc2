package bench

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/bench/launch"
	"streamcount/internal/testing/longtest"
)

func TestScaleSteps(t *testing.T) {
	assert.Equal(t, []int64{10_000, 100_000, 300_000, 1_000_000}, scaleSteps(1_000_000))
	assert.Equal(t, []int64{10_000, 50_000}, scaleSteps(50_000))
	assert.Equal(t, []int64{500}, scaleSteps(500))
}

func TestScale(t *testing.T) {
	cfg := small(t, "scale")
	_, cfg.Server = newFakeServer(t, "none")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Empty(t, r.Targets[0].Faults)
	require.Len(t, r.Targets[0].Steps, 1)
	figures := r.Targets[0].Steps[0].Figures
	assert.InDelta(t, 60, figures["streams"].Median, 0)
	for _, name := range []string{"fillSeconds", "fillStartsPerSecond", "startsPerSecond", "startP50Millis", "stopP99Millis", "heartbeatP50Millis", "batchedP99Millis"} {
		assert.Positive(t, figures[name].Median, name)
	}
	assert.NotContains(t, figures, "startCPUMicros", "a running node's CPU time is unknown")
	_, err = json.Marshal(r)
	require.NoError(t, err)
}

// The second step adds to the streams of the first.
func TestScale_Steps(t *testing.T) {
	longtest.Require(t)
	cfg := small(t, "scale")
	cfg.Settings.Viewers, cfg.Settings.Heartbeat = 10_100, 5*time.Second
	_, cfg.Server = newFakeServer(t, "none")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Empty(t, r.Targets[0].Faults)
	require.Len(t, r.Targets[0].Steps, 2)
	assert.InDelta(t, 10_000, r.Targets[0].Steps[0].Figures["streams"].Median, 0)
	assert.InDelta(t, 10_100, r.Targets[0].Steps[1].Figures["streams"].Median, 0)
}

// A step that is not filled in time is measured with the streams that it has.
func TestScale_FillTimeout(t *testing.T) {
	cfg := small(t, "scale")
	cfg.Settings.Viewers, cfg.Settings.FillTimeout = 20_000, 50*time.Millisecond
	_, cfg.Server = newFakeServer(t, "none")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Empty(t, r.Targets[0].Faults)
	require.Len(t, r.Targets[0].Steps, 1, "it is the last step")
	assert.EqualValues(t, 10_000, r.Targets[0].Steps[0].Viewers)
	assert.Less(t, r.Targets[0].Steps[0].Figures["streams"].Median, 10_000.0)
	assert.Positive(t, r.Targets[0].Steps[0].Figures["startsPerSecond"].Median)

	_, cfg.Server = newFakeServer(t, "none")
	cfg.Settings.FillTimeout = time.Nanosecond
	_, err = Run(t.Context(), cfg)
	require.ErrorContains(t, err, "no stream was started in 1ns")
}

// A viewer whose stream is gone is found although the heartbeats are sent by several
// connections.
func TestScale_LostStreams(t *testing.T) {
	cfg := small(t, "scale")
	_, cfg.Server = newFakeServer(t, "drops")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Contains(t, kinds(r.Violations()), "lost streams")
}

func TestCheckScale(t *testing.T) {
	s := scaleScenario(Settings{}).Defaults
	require.NoError(t, checkScale(s, 90*time.Second))
	require.ErrorContains(t, checkScale(s, 60*time.Second), "--heartbeat: want at most a third of the TTL (1m0s)")
	s.Duration = 7 * time.Second
	require.ErrorContains(t, checkScale(s, 90*time.Second), "--duration: want at most a fifteenth of the TTL")
}

func TestRotation_Take(t *testing.T) {
	tr := &targetRun{ttl: time.Minute, faults: &faultCounter{}}
	vs := tr.viewers(100, 1)
	ro := &rotation{vs: vs, interval: 10 * time.Second, batch: 500}
	assert.Empty(t, ro.take(nil, 3, 0), "nobody takes part")
	ago := []time.Duration{30 * time.Second, 20 * time.Second, 11 * time.Second, 2 * time.Second}
	for k, age := range ago {
		vs.setStarted(int64(k), []byte("id"), time.Now().Add(-age))
	}
	vs.state[1].Store(noStream)
	ro.end.Store(int64(len(ago)))
	assert.EqualValues(t, 2, ro.countDue())
	assert.InDelta(t, 0.5, ro.rate(), 1e-9, "a quarter more than 0.4 per second, because the first viewer is late")
	assert.Equal(t, []int64{0, 2}, ro.take(nil, 10, ro.interval), "those that are due and have a stream")
	assert.Empty(t, ro.take(nil, 10, ro.interval), "the turn of a viewer that is not due")
	assert.InDelta(t, 0.4, ro.rate(), 1e-9)
	assert.Equal(t, []int64{3, 0, 2}, ro.take(nil, 3, 0), "the turns begin again")
	assert.EqualValues(t, 1, ro.size())
	ro.end.Store(100)
	assert.EqualValues(t, 5, ro.size(), "few viewers send small batches")
	assert.Len(t, ro.take(nil, 10, 0), 3, "each viewer at most once")
}

func TestStep_SetRuntime(t *testing.T) {
	before := map[string]float64{
		"go_cpu_classes_gc_total_cpu_seconds_total": 1, "go_cpu_classes_idle_cpu_seconds_total": 10, "go_cpu_classes_total_cpu_seconds_total": 20,
	}
	after := map[string]float64{
		"go_cpu_classes_gc_total_cpu_seconds_total": 3, "go_cpu_classes_idle_cpu_seconds_total": 40, "go_cpu_classes_total_cpu_seconds_total": 58,
		"go_gc_heap_live_bytes": 1000,
	}
	begin := launch.Usage{CPU: time.Second}
	s := step{figures: map[string]float64{"streams": 10}}
	s.setRuntime(after, before, launch.Usage{CPU: 9 * time.Second}, begin)
	assert.Equal(t, map[string]float64{"streams": 10, "gcShare": 0.25, "liveBytes": 1000, "liveBytesPerStream": 100}, s.figures)

	s = step{figures: map[string]float64{}}
	s.setRuntime(after, before, launch.Usage{CPU: 9 * time.Second, ChildrenCPU: 6 * time.Second}, begin)
	assert.Equal(t, map[string]float64{"gcShare": 0.0625}, s.figures, "most of the CPU time is that of child processes, whose memory is not in the heap")

	s = step{figures: map[string]float64{}}
	s.setRuntime(nil, nil, launch.Usage{CPU: 9 * time.Second}, begin)
	assert.Empty(t, s.figures, "the target does not report them")
}

func TestScaleTable(t *testing.T) {
	scenario, err := Find("scale")
	require.NoError(t, err)
	cfg := Config{Scenario: scenario, Settings: scenario.Defaults, Against: "old"}
	cfg.Settings.Viewers = 100_000
	r := newReport(cfg, Machine{})
	stepOf := func(viewers int64, perSecond float64, more ...float64) step {
		s := step{viewers, map[string]float64{"startsPerSecond": perSecond}}
		for _, x := range more {
			s.figures["gcShare"] = x
		}
		return s
	}
	r.results = [][]result{
		{{steps: []step{stepOf(10_000, 900, 0.05), stepOf(100_000, 600)}}, {steps: []step{stepOf(10_000, 800, 0.03)}}},
		{{steps: []step{stepOf(10_000, 300)}}, {steps: []step{stepOf(10_000, 400)}}},
	}
	r.summarize()
	assert.Equal(t, [][]string{
		{"STREAMS", "FIGURE", "STREAMCOUNT", "BASE", "STREAMCOUNT / BASE"},
		{"10000", "starts/s", "850 (800-900)", "350 (300-400)", "2.50x (2.00x-3.00x)"},
		{"10000", "garbage collector, % of CPU", "4.00 (3.00-5.00)", "-", "-"},
		{"100000", "starts/s", "600", "-", "-"},
	}, r.ScaleTable())
	assert.Nil(t, r.CallTable())
	require.Len(t, r.StepRatios, 1)
	assert.Nil(t, (&Report{}).ScaleTable())
	assert.Equal(t, []map[string]float64{{"startsPerSecond": 600}, nil}, r.Targets[0].Steps[1].Runs)
}
