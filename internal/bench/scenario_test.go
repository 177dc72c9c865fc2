package bench

import (
	"context"
	"encoding/xml"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func kinds(list []Fault) []string {
	var names []string
	for _, f := range list {
		names = append(names, f.Kind)
	}
	return names
}

// An honest server is found to be one, in every scenario.
func TestRun_Honest(t *testing.T) {
	for _, s := range Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			cfg := small(t, s.Name)
			_, cfg.Server = newFake(t, "none")
			r, err := Run(t.Context(), cfg)
			require.NoError(t, err)
			assert.Empty(t, r.Targets[0].Faults)
			assert.Empty(t, r.Violations())
			require.NotEmpty(t, r.Targets[0].Calls)
			for _, c := range r.Targets[0].Calls {
				assert.Positive(t, c.Count, c.Call)
				assert.Positive(t, c.Figures["p50"].Median, c.Call)
				assert.GreaterOrEqual(t, c.Figures["max"].Median, c.Figures["p99"].Median)
			}
			for _, p := range r.Plots() {
				require.NoError(t, xml.Unmarshal(p.SVG, new(struct{})), p.Name)
				assert.NotContains(t, p.Name, " ")
			}
			assert.Nil(t, r.Compared())
			assert.Len(t, r.Costs(), 2)
			if g := r.Targets[0].Goodput; g != nil { // a start and its stop are one
				for _, c := range r.Targets[0].Calls {
					if c.Call == opNames[opPeak] {
						assert.InEpsilon(t, c.Figures["perSecond"].Median, g.Before.Median, 0.45)
					}
				}
			}
		})
	}
}

// Each sin is seen, and called by its name.
func TestRun_Sins(t *testing.T) {
	for sin, tc := range map[string]struct {
		scenario, kind string
		harmless       bool
	}{
		"admits":      {"refused", "wrongly admitted", false},
		"admits_race": {"kickoff", "over the limit", false},
		"refuses":     {"lifecycle", "wrongly refused", false},
		"forgets":     {"kickoff", "lost streams", false},
		"drops":       {"mixed", "lost streams", false},
		"keeps":       {"whistle", "not ended", false},
		"500":         {"lifecycle", "unexpected status", false},
		"no json":     {"lifecycle", "malformed answers", false},
		"hangs up":    {"lifecycle", "connection errors", false},
		"503":         {"lifecycle", "overload answers", true},
		"degraded":    {"heartbeat", "degraded heartbeats", true},
	} {
		t.Run(sin, func(t *testing.T) {
			cfg := small(t, tc.scenario)
			if sin == "admits_race" {
				sin, cfg.Settings.PerUser = "admits", 6
			}
			_, cfg.Server = newFake(t, sin)
			r, err := Run(t.Context(), cfg)
			require.NoError(t, err)
			assert.Contains(t, kinds(r.Targets[0].Faults), tc.kind)
			for _, f := range r.Targets[0].Faults {
				assert.Positive(t, f.Count)
				assert.NotEmpty(t, f.Example)
			}
			assert.Equal(t, tc.harmless, len(r.Violations()) == 0, "%v", r.Targets[0].Faults)
			assert.Contains(t, strings.Join(r.Costs()[1], " "), tc.kind)
		})
	}
}

func TestRun_Kickoff_RefusesTheExcess(t *testing.T) {
	cfg := small(t, "kickoff")
	cfg.Settings.PerUser, cfg.Settings.Viewers = 5, 52
	_, cfg.Server = newFake(t, "none")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Empty(t, r.Targets[0].Faults)
	assert.EqualValues(t, 32, r.Targets[0].Calls[0].Count, "3 each of ten users, and 2 of the last")
}

func TestRun_Batches(t *testing.T) {
	cfg := small(t, "heartbeat")
	cfg.Settings.Batch, cfg.Settings.Rate = 25, 100
	_, cfg.Server = newFake(t, "none")
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Empty(t, r.Targets[0].Faults)
	// 30 requests of 25, 25 and 10 heartbeats in turn.
	assert.InDelta(t, 600, r.Targets[0].Calls[0].Count, 60)
	cfg = small(t, "heartbeat")
	cfg.Settings.Batch = 25
	_, cfg.Server = newFake(t, "drops")
	r, err = Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{"lost streams"}, kinds(r.Targets[0].Faults))
}

// Viewers that the generator could not keep alive are not the server's loss,
// but the run is no good.
func TestViewers_Late(t *testing.T) {
	_, url := newFake(t, "none")
	v := &visit{ctx: t.Context(), s: Settings{Connections: 1}, counts: true, tally: &tally{}, space: "x"}
	v.ttl, v.limit = 100*time.Second, 3
	vs := v.viewers(3, 1)
	for k := range vs.count() {
		vs.begun(k, []byte("id"), time.Now().Add(time.Duration(-k)*40*time.Second))
		require.True(t, vs.hold(k))
		assert.False(t, vs.hold(k), "by one at a time")
		vs.ended(k, url)
	}
	assert.EqualValues(t, 2, v.tally.counts[lost].Load(), "0 and 40 s old")
	assert.EqualValues(t, 1, v.tally.counts[late].Load(), "80 s old, of a TTL of 100 s")
	assert.Zero(t, vs.alive())
	assert.False(t, vs.wait(t.Context(), 1))
}

func TestRun_Interrupted(t *testing.T) {
	cfg := small(t, "lifecycle")
	cfg.Settings.For = time.Hour
	_, cfg.Server = newFake(t, "none")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	begin := time.Now()
	_, err := Run(ctx, cfg)
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, time.Since(begin), 10*time.Second)
}

func TestRun_NotAStreamcountServer(t *testing.T) {
	cfg := small(t, "lifecycle")
	f, url := newFake(t, "none")
	f.limit = 0
	cfg.Server = url
	_, err := Run(t.Context(), cfg)
	assert.ErrorContains(t, err, "does not start and stop a stream as a streamcount server does")
}

func TestProgress(t *testing.T) {
	lines := make(chan string, 100)
	p := &Progress{Write: func(s string) { lines <- s }, Terminal: true}
	v := &visit{tally: &tally{}}
	v.tally.add(lost, 2, "x")
	v.phase("starting viewers: %d of %d", 1, 2)
	stop := p.follow("run 1 of 1, redis", v)
	assert.Equal(t, "\r\x1b[Krun 1 of 1, redis: starting viewers: 1 of 2, 0 answers/s, 2 faults", <-lines)
	stop()
	for len(lines) > 0 {
		<-lines
	}
	p.stop()
	assert.Equal(t, "\r\x1b[K", <-lines, "nothing is left on the terminal")
	p.Terminal = false
	p.follow("run 2 of 2, redis", v)()
	assert.Equal(t, "run 2 of 2, redis\n", <-lines)
	assert.Regexp(t, `^run 2 of 2, redis: done after \S+, 0 answers, 2 faults\n$`, <-lines)
}

func TestProgress_KnowsHowLong(t *testing.T) {
	begin := time.Now()
	s := &span{begin, 20 * time.Second}
	assert.Equal(t, " 0%, 20s left", s.progress(begin))
	assert.Equal(t, " 45%, 11s left", s.progress(begin.Add(9*time.Second)))
	assert.Equal(t, " 100%, 0s left", s.progress(begin.Add(time.Minute)), "the rest is waiting for answers")
	assert.Empty(t, (&span{begin, 0}).progress(begin))
	assert.Empty(t, (*span)(nil).progress(begin))
}

func TestProgress_FitsTheTerminal(t *testing.T) {
	var line string
	p := &Progress{Write: func(s string) { line = s }, Terminal: true, Width: 20}
	p.show(strings.Repeat("x", 90))
	assert.Equal(t, "\r\x1b[K"+strings.Repeat("x", 19), line)
	p.Width = 0
	p.show(strings.Repeat("x", 300))
	assert.Len(t, line, 4+99)
}
