package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestTop_Terminal(t *testing.T) {
	t.Parallel()
	p, c := serve(t, "--data-dir="+t.TempDir())
	c.run(exitOK, "start", "maya")
	s := atTerminal(t, 100, 30, c.environ, "top", "--every=200ms")
	s.await(t, "maya")
	s.await(t, "\x1b[?1049h")
	s.press(t, "?")
	s.await(t, "show users, regions, nodes, etcd members or refusals by limit")
	s.press(t, "/ma")
	s.await(t, "user ids that begin with:")
	assert.Equal(t, exitOK, p.interrupt(t))
	s.await(t, "unavailable:")
	s.press(t, "\x03")
	out := s.end(t)
	assert.Contains(t, out, "\x1b[?1049l", "the terminal is restored")
}

// A signal also restores the terminal.
func TestTop_Interrupt(t *testing.T) {
	_, c := serve(t, "--data-dir="+t.TempDir())
	s := atTerminal(t, 80, 24, append(c.environ, "NO_COLOR=1"), "top")
	s.await(t, "USER")
	require.NoError(t, s.cmd.Process.Signal(unix.SIGTERM))
	out := s.end(t)
	assert.Contains(t, out, "\x1b[?1049l")
	assert.NotRegexp(t, `\x1b\[[0-9;]*[349][0-7]m`, out, "no colour")
}

func TestTop_Once(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	c.run(exitOK, "start", "maya")
	out, _ := c.run(exitOK, "top")
	assert.Contains(t, out, "streams 1 ")
	assert.Regexp(t, `(?m)^maya +1 +3 +2$`, out)
	assert.NotContains(t, out, "\x1b")
	var seen struct {
		Stats struct{ Streams int }
		Users struct{ Users []struct{ UserID string } }
	}
	c.json(exitOK, &seen, "top", "--prefix=ma")
	assert.Equal(t, 1, seen.Stats.Streams)
	assert.Equal(t, "maya", seen.Users.Users[0].UserID)
	c.json(exitOK, &seen, "top", "--prefix=x")
	assert.Empty(t, seen.Users.Users)
	_, errOut := c.run(exitUsage, "top", "--every=1ms")
	assert.Contains(t, errOut, "want 200ms or more")
	_, errOut = c.run(exitError, "top", "--server=http://"+closedPort(t))
	assert.Contains(t, errOut, "connection refused by")
	assert.Contains(t, atTerminal(t, 100, 30, c.environ, "top", "--once").end(t), "\x1b[1m1\x1b[0m")
}
