package child

import (
	"bytes"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStartApart(t *testing.T) {
	all := runtime.NumCPU()
	cmd := exec.CommandContext(t.Context(), "grep", "Cpus_allowed_list", "/proc/self/status")
	var said bytes.Buffer
	cmd.Stdout = &said
	p, err := StartApart(cmd)
	require.NoError(t, err)
	<-p.Done()
	require.NoError(t, p.Err())
	theirs := halves().theirs
	if all < 2 {
		t.Skip("there is but one processor: nothing to share out")
	}
	assert.Equal(t, all/2, theirs.Count())
	first, _, _ := strings.Cut(strings.Fields(said.String())[1], "-")
	cpu, err := strconv.Atoi(strings.Split(first, ",")[0])
	require.NoError(t, err)
	assert.True(t, theirs.IsSet(cpu), said.String())
	assert.Equal(t, all-all/2, runtime.GOMAXPROCS(0))
}
