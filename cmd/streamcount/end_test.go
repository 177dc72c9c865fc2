package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"streamcount/api/apitype"
)

func TestEnd(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir(), "--region=eu")
	for i := range 3 {
		c.run(exitOK, "start", fmt.Sprint("user-", i), "--content-id=film-77")
	}
	c.run(exitOK, "start", "user-0", "--content-id=film-78")
	out, _ := c.run(exitOK, "end", "--where=content.id=film-77", "--where=region=eu,us", "--dry-run")
	assert.Contains(t, out, "matched: 3 streams of 3 users; nothing was ended\n")
	assert.Contains(t, out, "  user user-0, region eu, content film-77\n")
	out, _ = c.run(exitOK, "end", "--where=content.id!=film-77,film-78", "--yes")
	assert.Equal(t, "matched: 0 streams of 0 users; nothing was ended\n", out)

	_, errOut := c.run(exitUsage, "end", "--where=content.id=film-77")
	assert.Contains(t, errOut, "not a terminal: pass --yes to end the streams")
	var ended apitype.EndedStreams
	c.json(exitOK, &ended, "end", "--where=content.id=film-77", "--max=1", "--yes")
	assert.Equal(t, apitype.EndedStreams{Matched: 3, Ended: 1, Users: 3}, ended)
	out, _ = c.run(exitOK, "end", "--where=content.id=film-77", "--where=labels.tier!=paid", "--max=2", "--yes")
	assert.Equal(t, "ended 2 of 2 streams of 2 users\n", out)
	out, _ = c.run(exitOK, "ls", "user-0")
	assert.Contains(t, out, "film-78")
	c.run(exitNotFound, "ls", "user-1")

	for _, where := range []string{"content.id", "=x", "!=x"} {
		c.run(exitUsage, "end", "--where="+where, "--dry-run")
	}
	c.run(exitUsage, "end", "--dry-run")
	c.run(exitUsage, "end", "--where=region=eu", "--where=region!=us", "--dry-run")
	c.run(exitUsage, "end", "--where=region=eu", "--max=-1", "--dry-run")
	_, errOut = c.run(exitUsage, "end", "--where=regoin=eu", "--dry-run")
	assert.Contains(t, errOut, "region?")
}
