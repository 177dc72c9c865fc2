package bench

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// program is a shell script that is started instead of streamcount.
func program(t *testing.T, script string) Launch {
	t.Helper()
	exe := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(exe, []byte("#!/bin/sh\n"+script+"\n"), 0o700)) //nolint:gosec // it is to be run
	return Launch{Exe: exe, Env: os.Environ(), Dir: t.TempDir()}
}

func empty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "the directory is removed")
}

func TestLaunch_Fails(t *testing.T) {
	cfg := small(t, "lifecycle")
	var said strings.Builder
	cfg.Launch = program(t, "echo one >&2; echo two >&2; exit 3")
	cfg.Launch.Stderr = &said
	_, err := Run(t.Context(), cfg)
	require.EqualError(t, err, "run 1 of 1, streamcount: start: it ended by itself (exit status 3): two")
	assert.Equal(t, "one\ntwo\n", said.String())
	empty(t, cfg.Launch.Dir)

	cfg.Launch.Exe = "/does/not/exist"
	_, err = Run(t.Context(), cfg)
	require.ErrorContains(t, err, "start /does/not/exist")
	empty(t, cfg.Launch.Dir)
}

// A target that dies while it is measured ends the benchmark, with its last
// words.
func TestLaunch_Dies(t *testing.T) {
	cfg := small(t, "lifecycle")
	cfg.Settings.For = time.Hour
	f, url := newFake(t, "none")
	cfg.Launch = program(t, `for a; do case $a in --data-dir=*) d=${a#*=};; esac; done
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
	require.EqualError(t, err, "run 1 of 1, streamcount: it ended by itself (exit status 1): no space")
	empty(t, cfg.Launch.Dir)
}

func TestLaunch_SaysNothing(t *testing.T) {
	l := program(t, "echo waiting >&2; exec sleep 60")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := l.start(ctx, Streamcount, "x", 3, time.Minute)
	require.ErrorContains(t, err, "waiting")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	empty(t, l.Dir)
}

func TestTail(t *testing.T) {
	var said tail
	for range 10 {
		_, _ = said.Write([]byte(strings.Repeat("x", 1000) + "\n")) // it takes everything
	}
	_, _ = said.Write([]byte("the end\n"))
	assert.True(t, strings.HasSuffix(said.String(), "\nthe end"))
	assert.LessOrEqual(t, len(said.String()), stderrEnd)
}
