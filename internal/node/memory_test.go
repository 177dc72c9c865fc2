package node

import (
	"io"
	"log/slog"
	"math"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/config"
)

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 800, 1 << 20: 800, 32 << 20: 800, 64 << 20: 400, 256 << 20: 100, 1 << 30: 70, 1 << 40: 70,
	} {
		assert.Equal(t, want, gcPercent(live), "a live heap of %d MiB", live>>20)
	}
}

// Whatever is live, the collector runs at most when garbage has reached about half of the live
// heap, so it cannot run all the time. Up to half of the budget, the heap stays below the limit.
func TestMemoryBudget_Settings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Uint64Range(64<<20, 1<<45).Draw(t, "budget")
		live := rapid.Uint64Range(0, 2*size).Draw(t, "live")
		b := memoryBudget{size: size, goLimit: size / 5 * 4}
		got := b.settings(live)
		goal := min(float64(live)*(1+float64(got.percent)/100), float64(got.limit))
		if live > size/2 {
			require.Equal(t, gcSettings{fullGCPercent, math.MaxInt64}, got)
			return
		}
		require.LessOrEqual(t, goal, 0.8*float64(size))
		if live > 0 {
			require.GreaterOrEqual(t, goal, 1.5*float64(live), "room for garbage")
		}
	})
}

func TestNewMemoryBudget(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	budget := func(args ...string) (memoryBudget, error) {
		var cfg config.Config
		flags := cfg.Flags()
		require.NoError(t, flags.Parse(args))
		require.NoError(t, cfg.Load(flags, nil))
		return newMemoryBudget(&cfg, log)
	}
	t.Setenv("GOGC", "")
	got, err := budget("--memory", "1000MiB")
	require.NoError(t, err)
	assert.Equal(t, memoryBudget{1000 << 20, "the command line", 800 << 20}, got)

	t.Setenv("GOGC", "100")
	_, err = budget("--memory", "1000MiB")
	require.ErrorContains(t, err, `memory "1000MiB" (from the command line): GOGC in the environment`)
	got, err = budget()
	require.NoError(t, err)
	assert.Zero(t, got)
}

func TestCgroupLimit(t *testing.T) {
	const none = "9223372036854771712\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  uint64
	}{
		"no cgroups": {nil, 0},
		"version 2, a container": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.high": "max\n",
		}, 1000},
		"version 2, a lower soft limit": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/memory.high": "900\n",
		}, 900},
		"version 2, a service in a limited slice": {map[string]string{
			"proc/self/cgroup":                                          "0::/system.slice/streamcount.service\n",
			"sys/fs/cgroup/system.slice/memory.max":                     "500\n",
			"sys/fs/cgroup/system.slice/streamcount.service/memory.max": "max\n",
		}, 500},
		"version 2, a group above the namespace": {map[string]string{
			"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/memory.max": "1000\n",
		}, 1000},
		"version 2 without a limit": {map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n",
		}, 0},
		"version 1, a container that has the path of the host": {map[string]string{
			"proc/self/cgroup":                           "5:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "2000\n",
		}, 2000},
		"version 1, a service": {map[string]string{
			"proc/self/cgroup":                                     "4:memory:/a/b\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":           none,
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes":         "3000\n",
			"sys/fs/cgroup/memory/a/b/memory.limit_in_bytes":       none,
			"sys/fs/cgroup/memory/other/memory.limit_in_bytes":     "1\n",
			"sys/fs/cgroup/memory/a/b/child/memory.limit_in_bytes": "1\n",
		}, 3000},
		"version 1 without a limit": {map[string]string{
			"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": none,
		}, 0},
		"a broken file": {map[string]string{
			"proc/self/cgroup": "4\nmemory\n::\n\n", "sys/fs/cgroup/memory.max": "x\n",
		}, 0},
	} {
		root := fstest.MapFS{}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		assert.Equal(t, c.want, cgroupLimit(root), name)
	}
}
