package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// At a terminal, the command erases only after a yes.
func TestUsersErase_Terminal(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	c.run(exitOK, "start", "maya")
	const question = "end the streams of maya and erase everything that is stored about them? [y/N] "
	no := atTerminal(t, 100, 24, c.environ, "users", "erase", "maya")
	no.await(t, question)
	no.press(t, "\n")
	no.await(t, "nothing was changed")
	require.Error(t, no.cmd.Wait())
	c.run(exitOK, "ls", "maya")
	yes := atTerminal(t, 100, 24, c.environ, "users", "erase", "maya")
	yes.await(t, question)
	yes.press(t, "y\n")
	assert.Contains(t, yes.end(t), "erased of user maya: 1 streams, 0 cool-downs")
	c.run(exitNotFound, "ls", "maya")
}
