package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// watch starts to follow events, and waits until the first one is printed.
func (c cli) watch(t *testing.T, args ...string) *proc {
	t.Helper()
	p := launch(t, c.environ, append([]string{"watch"}, args...)...)
	// The event of a start shows that the connection is established.
	require.Eventually(t, func() bool {
		var out bytes.Buffer
		run(t.Context(), []string{"start", "probe", "--session=probe"}, c.environ, &out, &out)
		return strings.Contains(p.out.String(), "probe")
	}, time.Minute, 50*time.Millisecond)
	return p
}

func TestWatch_Events(t *testing.T) {
	t.Parallel()
	node, c := serve(t, "--data-dir="+t.TempDir(), "--limit=1")
	table, lines := c.watch(t), c.watch(t, "--json")
	only := launch(t, c.environ, "watch", "--user=ben", "--json")
	c.run(exitOK, "start", "maya", "--device-name=TV\x1b[2J\u202e", "--content-title=Metropolis", "--session=tab")
	c.run(exitLimit, "start", "maya")
	c.run(exitOK, "start", "maya", "--device-name=Phone", "--session=tab")
	c.run(exitOK, "stop", "maya")
	table.awaitOut(t, "stopped")
	text := table.out.String()
	assert.Regexp(t, `(?m)^TIME +EVENT +STREAMS +USER`, text)
	assert.Regexp(t, `(?m)^\S+ \S+ +start +1/1 +maya +local +TV \[2J\\u202e, Metropolis$`, text)
	assert.Regexp(t, `(?m) refusal +1/1 +maya +- +-$`, text)
	assert.Regexp(t, `(?m) stop +0/1 +maya +local +TV \S+, Metropolis, replaced by Phone$`, text)
	assert.Regexp(t, `(?m) stop +0/1 +maya +local +Phone, stopped$`, text)

	lines.awaitOut(t, "stopped")
	assert.NotContains(t, lines.out.String(), "\x1b")
	cursor := ""
	for line := range strings.Lines(lines.out.String()) {
		var e struct {
			apitype.Event
			Cursor string
		}
		require.NoError(t, json.Unmarshal([]byte(line), &e), line)
		require.NotEmpty(t, e.Cursor)
		if e.Type == apitype.EventRefusal {
			cursor = e.Cursor
			assert.NotEmpty(t, e.Node)
		}
	}
	rest := launch(t, c.environ, "watch", "--after="+cursor)
	rest.awaitOut(t, "stopped")
	assert.NotContains(t, rest.out.String(), "refusal")
	assert.Equal(t, exitOK, rest.interrupt(t))
	assert.Empty(t, only.out.String(), "no events of other users")

	assert.Equal(t, exitOK, node.interrupt(t), "a node does not wait for its followers")
	require.Eventually(t, func() bool { return strings.Contains(table.errOut.String(), "connection lost, reconnecting") },
		time.Minute, time.Millisecond)
	for _, p := range []*proc{table, lines, only} {
		assert.Equal(t, exitOK, p.interrupt(t))
	}
}

func TestWatch_Reconnects(t *testing.T) {
	t.Parallel()
	dir, at := t.TempDir(), closedPort(t)
	node, c := serve(t, "--data-dir="+dir, "--listen="+at)
	p := c.watch(t)
	require.Equal(t, exitOK, node.interrupt(t))
	serve(t, "--data-dir="+dir, "--listen="+at)
	require.Eventually(t, func() bool { return strings.Contains(p.errOut.String(), "reconnected") },
		time.Minute, time.Millisecond)
	c.run(exitOK, "start", "after")
	p.awaitOut(t, "after")
	assert.Equal(t, 1, strings.Count(p.errOut.String(), "connection lost"), &p.errOut)
	assert.Equal(t, exitOK, p.interrupt(t))
}

func TestWatch_BadInput(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	c.run(exitUsage, "watch", "--after=yesterday")
	c.run(exitUsage, "watch", "--user=a\nb")
	c.run(exitUsage, "watch", "maya")
	c.run(exitUsage, "ls", "maya", "--max=3")
}

func TestLs_TopUsersAndTotals(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	for _, user := range []string{"maya", "maya", "mo", "ben"} {
		c.run(exitOK, "start", user)
	}
	out, _ := c.run(exitOK, "ls", "--max=2")
	assert.Regexp(t, `(?m)^USER +STREAMS +LIMIT\nmaya +2 +3\nben +1 +3\n\(and others\)\n$`, out)
	out, _ = c.run(exitOK, "ls", "--prefix=mo")
	assert.Regexp(t, `^USER +STREAMS +LIMIT\nmo +1 +3\n$`, out)

	var s apitype.Stats
	require.Eventually(t, func() bool {
		c.run(exitOK, "start", "ben", "--session=again")
		c.json(exitOK, &s, "ls")
		return len(s.Nodes) == 1 && s.Rates.Starts > 0
	}, time.Minute, 100*time.Millisecond, "%+v", &s)
	assert.Equal(t, s.Node.ID, s.Nodes[0].ID)
	assert.GreaterOrEqual(t, s.Nodes[0].Admitted, int64(5))
	assert.NotEmpty(t, s.Nodes[0].Address)
	require.Len(t, s.Shards[0].Etcd, 1)
	member := s.Shards[0].Etcd[0]
	assert.True(t, member.Leader)
	assert.Positive(t, member.DBSize)
	assert.Empty(t, member.Error)
	assert.GreaterOrEqual(t, s.Latency.Start.Count, int64(5))
}
