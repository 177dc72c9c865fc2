package bench

import (
	"context"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

func kinds(list []Fault) []string {
	var names []string
	for _, f := range list {
		names = append(names, f.Kind)
	}
	return names
}

// No scenario reports faults of a correct server.
func TestRun_CorrectServer(t *testing.T) {
	for _, s := range Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			cfg := small(t, s.Name)
			f, server := newFakeServer(t, "none")
			if s.Name == "blackout" { // the scenario waits for the TTL
				f.ttl = 5 * time.Second
			}
			cfg.Server = server
			r, err := Run(t.Context(), cfg)
			require.NoError(t, err)
			assert.Empty(t, r.Targets[0].Faults)
			assert.Empty(t, r.Violations())
			assert.Equal(t, s.Name == "scale", len(r.Targets[0].Calls) == 0)
			assert.Equal(t, s.Name == "scale", r.ScaleTable() != nil)
			for _, c := range r.Targets[0].Calls {
				assert.Positive(t, c.Count, c.Call)
				assert.Positive(t, c.Figures["p50"].Median, c.Call)
				assert.GreaterOrEqual(t, c.Figures["max"].Median, c.Figures["p99"].Median)
			}
			for _, p := range r.Plots() {
				require.NoError(t, xml.Unmarshal(p.SVG, new(struct{})), p.Name)
				assert.NotContains(t, p.Name, " ")
			}
			assert.Nil(t, r.RatioTable())
			assert.Len(t, r.CostTable(), 2)
			if g := r.Targets[0].Goodput; g != nil { // goodput counts a start with its stop once
				for _, c := range r.Targets[0].Calls {
					if c.Call == opNames[opBeforeOverload] {
						assert.Positive(t, g.Before.Median)
					}
				}
			}
		})
	}
}

// Each defect is reported as the right kind of fault.
func TestRun_Defects(t *testing.T) {
	for defect, tc := range map[string]struct {
		scenario, kind string
		harmless       bool
	}{
		"admits":      {"refused", "wrongly admitted", false},
		"admits_race": {"startstorm", "over the limit", false},
		"refuses":     {"lifecycle", "wrongly refused", false},
		"forgets":     {"startstorm", "lost streams", false},
		"drops":       {"mixed", "lost streams", false},
		"keeps":       {"stopstorm", "not ended", false},
		"500":         {"lifecycle", "unexpected status", false},
		"no json":     {"lifecycle", "malformed answers", false},
		"hangs up":    {"lifecycle", "connection errors", false},
		"503":         {"lifecycle", "overload answers", true},
		"degraded":    {"heartbeat", "degraded heartbeats", true},
	} {
		t.Run(defect, func(t *testing.T) {
			cfg := small(t, tc.scenario)
			if defect == "admits_race" {
				defect, cfg.Settings.PerUser = "admits", 6
			}
			_, cfg.Server = newFakeServer(t, defect)
			r, err := Run(t.Context(), cfg)
			require.NoError(t, err)
			assert.Contains(t, kinds(r.Targets[0].Faults), tc.kind)
			for _, f := range r.Targets[0].Faults {
				assert.Positive(t, f.Count)
				assert.NotEmpty(t, f.Example)
			}
			assert.Equal(t, tc.harmless, len(r.Violations()) == 0, "%v", r.Targets[0].Faults)
			assert.Contains(t, strings.Join(r.CostTable()[1], " "), tc.kind)
		})
	}
}

func TestRun_StartStorm_RefusesTheExcess(t *testing.T) {
	cfg := small(t, "startstorm")
	cfg.Settings.PerUser, cfg.Settings.Viewers = 5, 52
	_, cfg.Server = newFakeServer(t, "none")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Empty(t, r.Targets[0].Faults)
	assert.EqualValues(t, 32, r.Targets[0].Calls[0].Count, "3 each of ten users, and 2 of the last")
}

func TestRun_Batches(t *testing.T) {
	longtest.Require(t)
	cfg := small(t, "heartbeat")
	cfg.Settings.Batch, cfg.Settings.Rate = 25, 100
	_, cfg.Server = newFakeServer(t, "none")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Empty(t, r.Targets[0].Faults)
	// 30 requests with 25, 25 and 10 heartbeats in turn.
	assert.InDelta(t, 600, r.Targets[0].Calls[0].Count, 60)
	cfg = small(t, "heartbeat")
	cfg.Settings.Batch = 25
	_, cfg.Server = newFakeServer(t, "drops")
	r, err = Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{"lost streams"}, kinds(r.Targets[0].Faults))
}

// A stream that ends because its heartbeats were late is no lost stream, but a fault.
func TestViewers_LateHeartbeat(t *testing.T) {
	_, url := newFakeServer(t, "none")
	tr := &targetRun{ctx: t.Context(), settings: Settings{Connections: 1}, enforcesLimit: true, faults: &faultCounter{}, userPrefix: "x"}
	tr.ttl, tr.limit = 100*time.Second, 3
	vs := tr.viewers(3, 1)
	for k := range vs.count() {
		vs.setStarted(k, []byte("id"), time.Now().Add(time.Duration(-k)*40*time.Second))
		require.True(t, vs.tryAcquire(k))
		assert.False(t, vs.tryAcquire(k), "a busy viewer cannot be acquired")
		vs.recordEnd(k, url)
	}
	assert.EqualValues(t, 2, tr.faults.counts[faultLostStream].Load(), "0 and 40 s old")
	assert.EqualValues(t, 1, tr.faults.counts[faultLateHeartbeat].Load(), "80 s old, of a TTL of 100 s")
	assert.Zero(t, vs.aliveCount())
	assert.False(t, vs.acquire(t.Context(), 1))
}

func TestRun_Interrupted(t *testing.T) {
	cfg := small(t, "lifecycle")
	cfg.Settings.Duration = time.Hour
	_, cfg.Server = newFakeServer(t, "none")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	_, err := Run(ctx, cfg) // it would take an hour
	require.ErrorIs(t, err, context.Canceled)
}

func TestRun_NotAStreamcountServer(t *testing.T) {
	cfg := small(t, "lifecycle")
	f, url := newFakeServer(t, "none")
	f.limit = 0
	cfg.Server = url
	_, err := Run(t.Context(), cfg)
	assert.ErrorContains(t, err, "does not start and stop a stream as a streamcount server does")
}

func TestProgress(t *testing.T) {
	lines := make(chan string, 100)
	p := &Progress{Write: func(s string) { lines <- s }, Terminal: true}
	tr := &targetRun{faults: &faultCounter{}}
	tr.faults.add(faultLostStream, 2, "x")
	tr.setPhase("starting viewers: %d of %d", 1, 2)
	stop := p.follow("run 1 of 1, redis", tr)
	assert.Equal(t, "\r\x1b[Krun 1 of 1, redis: starting viewers: 1 of 2, 0 answers/s, 2 faults", <-lines)
	stop()
	for len(lines) > 0 {
		<-lines
	}
	p.clear()
	assert.Equal(t, "\r\x1b[K", <-lines, "the line is cleared")
	p.Terminal = false
	p.follow("run 2 of 2, redis", tr)()
	assert.Equal(t, "run 2 of 2, redis\n", <-lines)
	assert.Regexp(t, `^run 2 of 2, redis: done after \S+, 0 answers, 2 faults\n$`, <-lines)
}

func TestProgress_RemainingTime(t *testing.T) {
	begin := time.Now()
	s := &period{begin, 20 * time.Second}
	assert.Equal(t, " 0%, 20s left", s.progress(begin))
	assert.Equal(t, " 45%, 11s left", s.progress(begin.Add(9*time.Second)))
	assert.Equal(t, " 100%, 0s left", s.progress(begin.Add(time.Minute)), "the rest of the time is spent waiting for answers")
	assert.Empty(t, (&period{begin, 0}).progress(begin))
	assert.Empty(t, (*period)(nil).progress(begin))
}

func TestProgress_FitsTheTerminal(t *testing.T) {
	var line string
	p := &Progress{Write: func(s string) { line = s }, Terminal: true, Width: 20}
	p.printLine(strings.Repeat("x", 90))
	assert.Equal(t, "\r\x1b[K"+strings.Repeat("x", 19), line)
	p.Width = 0
	p.printLine(strings.Repeat("x", 300))
	assert.Len(t, line, 4+99)
}
