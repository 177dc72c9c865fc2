package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestTop_AtATerminal(t *testing.T) {
	p, c := serve(t, "--data-dir="+t.TempDir())
	c.run(exitOK, "start", "maya")
	s := atTerminal(t, 100, 30, c.environ, "top", "--every=200ms")
	s.await(t, "maya")
	s.await(t, "\x1b[?1049h")
	s.press(t, "?")
	s.await(t, "show users, regions, nodes or etcd members")
	s.press(t, "/ma")
	s.await(t, "users that begin with:")
	assert.Equal(t, exitOK, p.interrupt(t))
	s.await(t, "no news:")
	s.press(t, "\x03")
	out := s.end(t)
	assert.Contains(t, out, "\x1b[?1049l", "the terminal is as it was")
}

// Whoever ends it from outside gets the terminal back as well.
func TestTop_EndsWhenTold(t *testing.T) {
	_, c := serve(t, "--data-dir="+t.TempDir())
	s := atTerminal(t, 80, 24, append(c.environ, "NO_COLOR=1"), "top")
	s.await(t, "USER")
	require.NoError(t, s.cmd.Process.Signal(unix.SIGTERM))
	out := s.end(t)
	assert.Contains(t, out, "\x1b[?1049l")
	assert.NotRegexp(t, `\x1b\[[0-9;]*[349][0-7]m`, out, "no colour")
}

func TestTop_Once(t *testing.T) {
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
	assert.Contains(t, errOut, "is it running?")
	assert.Contains(t, atTerminal(t, 100, 30, c.environ, "top", "--once").end(t), "\x1b[1m1\x1b[0m")
}
