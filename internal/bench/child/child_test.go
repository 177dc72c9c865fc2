package child

import (
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProcess(t *testing.T) {
	p, err := Start(exec.CommandContext(t.Context(), "sleep", "60"))
	require.NoError(t, err)
	assert.Positive(t, p.PID())
	p.Stop(10 * time.Second)
	<-p.Done()
	require.Error(t, p.Err())

	stubborn, err := Start(exec.CommandContext(t.Context(), "sh", "-c", "trap '' TERM; while :; do sleep 0.01; done"))
	require.NoError(t, err)
	stubborn.Stop(100 * time.Millisecond)
	require.Error(t, stubborn.Err())

	quick, err := Start(exec.CommandContext(t.Context(), "true"))
	require.NoError(t, err)
	<-quick.Done()
	require.NoError(t, quick.Err())
	quick.Stop(0)

	_, err = Start(exec.CommandContext(t.Context(), "/does/not/exist"))
	require.Error(t, err)
}
