package launch

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

func TestStart_NoAddress(t *testing.T) {
	exe := filepath.Join(t.TempDir(), "program")
	require.NoError(t, os.WriteFile(exe, []byte("#!/bin/sh\necho waiting >&2; exec sleep 60\n"), 0o700)) //nolint:gosec // it must be executable
	cfg := Config{NodeBinary: exe, Env: os.Environ(), Dir: t.TempDir()}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := cfg.Start(ctx, Spec{Token: "x", Limit: 3, TTL: time.Minute})
	require.ErrorContains(t, err, "waiting")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	left, err := os.ReadDir(cfg.Dir)
	require.NoError(t, err)
	assert.Empty(t, left, "the directory is removed")
}

func TestTail(t *testing.T) {
	var stderr tailBuffer
	for range 10 {
		_, _ = stderr.Write([]byte(strings.Repeat("x", 1000) + "\n")) // it does not fail
	}
	_, _ = stderr.Write([]byte("the end\n"))
	assert.True(t, strings.HasSuffix(stderr.String(), "\nthe end"))
	assert.LessOrEqual(t, len(stderr.String()), stderrTailSize)
}

// The usage of this process, which has no children, is that of its own counters.
func TestUsage(t *testing.T) {
	u := processUsage(os.Getpid())
	if u == (Usage{}) {
		t.Skip("this system has no /proc")
	}
	assert.Greater(t, u.Resident, int64(1<<20))
	assert.Positive(t, u.Descriptors)
	assert.LessOrEqual(t, u.CPU, OwnCPU())
	assert.Zero(t, processUsage(-5))
}
