package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/bench/launch"
)

// scriptTarget returns a launch.Config that starts a shell script instead of streamcount.
func scriptTarget(t *testing.T, script string) launch.Config {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(exe, []byte("#!/bin/sh\n"+script+"\n"), 0o700)) //nolint:gosec // it must be executable
	return launch.Config{NodeBinary: exe, Env: os.Environ(), Dir: t.TempDir()}
}

func requireEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "the directory is removed")
}

func TestLaunch_TargetFailsToStart(t *testing.T) {
	cfg := small(t, "lifecycle")
	var stderr strings.Builder
	cfg.Launch = scriptTarget(t, "echo one >&2; echo two >&2; exit 3")
	cfg.Launch.Stderr = &stderr
	_, err := Run(t.Context(), cfg)
	require.EqualError(t, err, "run 1 of 1, streamcount: start: the process exited (exit status 3): two")
	assert.Equal(t, "one\ntwo\n", stderr.String())
	requireEmpty(t, cfg.Launch.Dir)

	cfg.Launch.NodeBinary = "/does/not/exist"
	_, err = Run(t.Context(), cfg)
	require.ErrorContains(t, err, "start /does/not/exist")
	requireEmpty(t, cfg.Launch.Dir)
}

// A second node is measured in turn with the first, and compared with it.
func TestRun_Against(t *testing.T) {
	cfg := small(t, "lifecycle")
	cfg.Settings.Runs = 2
	_, ours := newFakeServer(t, "none")
	_, theirs := newFakeServer(t, "none")
	cfg.Launch = scriptTarget(t, "echo serving "+ours+"; exec sleep 60")
	cfg.Against = scriptTarget(t, "echo serving "+theirs+"; exec sleep 60").NodeBinary
	var order []string
	cfg.Progress = &Progress{Write: func(line string) {
		if title := strings.TrimSuffix(line, "\n"); !strings.Contains(title, ": ") {
			order = append(order, title)
		}
	}}
	r, err := Run(t.Context(), cfg)
	require.NoError(t, err)
	assert.Equal(t, []string{"run 1 of 2, streamcount", "run 1 of 2, base", "run 2 of 2, base", "run 2 of 2, streamcount"}, order)
	require.Len(t, r.Targets, 2)
	require.Len(t, r.Ratios, 3)
	assert.Positive(t, r.Ratios[0].Figures["perSecond"].Median)
	require.Len(t, r.RatioTable(), 4)
	assert.Equal(t, "base", r.RatioTable()[1][0])
	requireEmpty(t, cfg.Launch.Dir)
}

// A target that exits during the measurement ends the benchmark. The error has the last
// line that the target wrote to stderr.
func TestLaunch_TargetExits(t *testing.T) {
	cfg := small(t, "lifecycle")
	cfg.Settings.Duration = time.Hour
	f, url := newFakeServer(t, "none")
	cfg.Launch = scriptTarget(t, `for a; do case $a in --data-dir=*) d=${a#*=};; esac; done
echo serving `+url+`
while [ ! -e "${d%/data}/die" ]; do sleep 0.05; done
echo no space >&2; exit 1`)
	go func() {
		for {
			f.mu.Lock()
			started := f.ids
			f.mu.Unlock()
			if started > 50 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		dirs, _ := filepath.Glob(filepath.Join(cfg.Launch.Dir, "*"))
		for _, d := range dirs {
			_ = os.WriteFile(filepath.Join(d, "die"), nil, 0o600)
		}
	}()
	_, err := Run(t.Context(), cfg)
	require.EqualError(t, err, "run 1 of 1, streamcount: the process exited (exit status 1): no space")
	requireEmpty(t, cfg.Launch.Dir)
}
