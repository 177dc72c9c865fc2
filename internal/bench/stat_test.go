package bench

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/bench/load"
)

func TestStat(t *testing.T) {
	assert.Equal(t, Stat{3, 1, 9}, newStat([]float64{9, 1, 3}))
	assert.Equal(t, Stat{2.5, 1, 4}, newStat([]float64{4, 3, 2, 1}))
	assert.Equal(t, Stat{7, 7, 7}, newStat([]float64{7}))
	assert.Equal(t, Stat{}, newStat(nil))
	text, err := json.Marshal(Stat{1.0 / 3, math.Inf(1), 1234567})
	require.NoError(t, err)
	assert.JSONEq(t, `{"median":0.333333,"min":0,"max":1234570}`, string(text))
}

// A machine that becomes slower from run to run does not change a ratio.
func TestRatios(t *testing.T) {
	ours, theirs := []float64{1000, 500, 250}, []float64{500, 250, 125}
	assert.Equal(t, Stat{2, 2, 2}, newStat(ratios(ours, theirs)))
	assert.Equal(t, []float64{4}, ratios([]float64{1, 8, 5}, []float64{0, 2}))
}

// summaryOf returns the summary of n calls in one second with the same latency.
func summaryOf(n int, latency time.Duration) load.Summary {
	begin := time.Now()
	s := load.NewSeries(begin, time.Second)
	for i := range n {
		s.Add(begin.Add(latency+time.Duration(i)*(time.Second-latency)/time.Duration(n-1)), latency, 1)
	}
	return s.Summary()
}

func TestReport(t *testing.T) {
	scenario, err := Find("lifecycle")
	require.NoError(t, err)
	r := newReport(Config{Scenario: scenario, Settings: scenario.Defaults, Peers: []Target{{Name: "redis"}}}, Machine{})
	for run := range 3 {
		ours, theirs := summaryOf(200, 2*time.Millisecond), summaryOf(100*(run+1), time.Millisecond)
		r.results[0] = append(r.results[0], result{
			answers: 1000, targetCPU: time.Second, generatorCPU: 100 * time.Millisecond,
			idleMemory: 50 << 20, peakMemory: 150 << 20, streams: 1 << 20,
		})
		r.results[1] = append(r.results[1], result{answers: 500, targetCPU: time.Second / time.Duration(run+1)})
		r.results[0][run].ops[opStart], r.results[1][run].ops[opStart] = &ours, &theirs
	}
	r.faults[1].add(faultLostStream, 7, "one")
	r.summarize()

	start := r.Targets[0].Calls[0]
	assert.EqualValues(t, 600, start.Count)
	assert.InEpsilon(t, 200, start.Figures["perSecond"].Median, 0.001)
	assert.InEpsilon(t, 2, start.Figures["p99"].Median, 0.001)
	require.Len(t, r.Ratios, 1)
	rate := r.Ratios[0].Figures["perSecond"]
	assert.InEpsilon(t, 1, rate.Median, 0.001)
	assert.InEpsilon(t, 2, rate.Max, 0.001)
	assert.InEpsilon(t, 2, r.Ratios[0].Figures["p50"].Median, 0.001)
	assert.InEpsilon(t, 1000, r.Targets[0].TargetCPU.Median, 0.001)
	assert.InEpsilon(t, 100, r.Targets[0].Memory.PerStream.Median, 0.001)
	assert.Nil(t, r.Targets[1].Memory)
	assert.Empty(t, r.Violations(), "a peer's faults are not the node's")

	assert.Equal(t, []string{"streamcount", "start", "200", "200-200", "2.00", "2.00", "2.00", "2.00", "2.00"}, r.CallTable()[1])
	assert.Equal(t, []string{"redis", "start", "1.00x", "0.667x-2.00x", "2.00x", "2.00x", "1.00x", "0.500x-1.50x"}, r.RatioTable()[1])
	assert.Equal(t, []string{"streamcount", "1000", "100", "150", "100", "-", "none"}, r.CostTable()[1])
	assert.Equal(t, []string{"redis", "1000", "-", "-", "-", "-", "7 lost streams"}, r.CostTable()[2])
	assert.Equal(t, "max", r.Settings["rate"])
	assert.NotContains(t, r.Settings, "viewers")
	_, err = json.Marshal(r)
	require.NoError(t, err)
}

func TestShort(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0.000", 0.12345: "0.123", 0.9999: "1.00", 1.234: "1.23", 9.999: "10.0", 12.34: "12.3", 99.99: "100", 12345.6: "12346",
	} {
		assert.Equal(t, want, threeDigits(x))
	}
}

func TestMachine(t *testing.T) {
	m, err := inspectMachine(t.TempDir())
	require.NoError(t, err)
	assert.Positive(t, m.Cores)
	assert.Positive(t, m.FsyncMillis)
	assert.Contains(t, m.String(), "cores")
	_, err = inspectMachine("/does/not/exist")
	assert.ErrorContains(t, err, "directory for temporary data")
}

func TestConfig_Check(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"--runs: want 1 to 100":            func(c *Config) { c.Settings.Runs = 0 },
		"--connections: want 1":            func(c *Config) { c.Settings.Connections = 0 },
		"--batch: want 1 to 1000":          func(c *Config) { c.Settings.Batch = 1001 },
		"--switch: want a share":           func(c *Config) { c.Settings.SwitchShare = 2 },
		"--ttl: want whole seconds":        func(c *Config) { c.Settings.TTL = time.Second },
		"--duration: want more than 0":     func(c *Config) { c.Settings.Duration = 0 },
		"--viewers: want at least as many": func(c *Config) { c.Settings.Viewers = 3 },
		"--heartbeat: want at most half":   func(c *Config) { c.Settings.Heartbeat = time.Hour },
		"--server: ":                       func(c *Config) { c.Server = "example.com" },
		"--against: ":                      func(c *Config) { c.Against, c.Server = "/bin/true", "http://h:1" },
		"--restart: ":                      func(c *Config) { c.Settings.Restart, c.Server = true, "http://h:1" },
		"--peer: etcd enforces no limit":   func(c *Config) { c.Scenario.needsLimit, c.Peers = true, []Target{{Name: "etcd"}} },
	} {
		cfg := small(t, "soak")
		require.NoError(t, cfg.Check())
		change(&cfg)
		_, err := Run(t.Context(), cfg)
		var bad SettingError
		require.ErrorAs(t, err, &bad, want)
		assert.Contains(t, err.Error(), want)
	}
	_, err := Find("nothing")
	require.Error(t, err)
}

func TestGoodput(t *testing.T) {
	assert.Nil(t, newGoodput([]result{{}, {}}), "goodput was not measured")
	r := &Report{Targets: []TargetReport{{Name: "redis"}, {Name: "streamcount", Goodput: newGoodput([]result{
		{goodput: goodput{before: 2000, under: 1700, after: 1400}},
		{goodput: goodput{before: 1000, under: 500, after: 1000}},
		{goodput: goodput{before: 1000}},
	})}}}
	assert.Equal(t, []string{"streamcount", "1000", "500", "1000", "50%", "0%-100%"}, r.GoodputTable()[1])
	assert.Len(t, r.GoodputTable(), 2)
	assert.Nil(t, (&Report{Targets: r.Targets[:1]}).GoodputTable())
	assert.Zero(t, goodput{under: 1}.share(), "there is no peak rate")
	assert.True(t, goodput{before: 1000, under: 799, after: 1000}.collapsed())
	assert.False(t, goodput{before: 1000, under: 800, after: 1000}.collapsed())
	assert.True(t, goodput{before: 1000, under: 900, after: 1400}.collapsed(), "the rate afterwards counts towards the peak")
	assert.True(t, goodput{before: 1000, under: 900, after: 499}.collapsed(), "the target does not recover")
	assert.False(t, goodput{before: 1000, under: 900, after: 500}.collapsed())
}
