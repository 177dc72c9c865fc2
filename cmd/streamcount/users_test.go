package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

func TestUsers_ExportAndErase(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	for _, args := range [][]string{{"users", "export", "maya"}, {"users", "erase", "maya", "--yes"}} {
		_, errOut := c.run(exitNotFound, args...)
		assert.Contains(t, errOut, "User not found")
	}
	c.run(exitOK, "start", "maya", "--device-name=TV", "--session=tab")
	c.run(exitOK, "start", "maya")
	c.run(exitOK, "limits", "set", "maya", "--limit=5")
	out, _ := c.run(exitOK, "users", "export", "maya")
	var d apitype.UserData
	require.NoError(t, json.Unmarshal([]byte(out), &d), out)
	assert.Equal(t, "maya", d.UserID)
	require.Len(t, d.Streams, 2)
	assert.Equal(t, "tab", d.Streams[0].Session)
	assert.Equal(t, "TV", d.Streams[0].Device.Name)
	assert.NotEmpty(t, d.Streams[0].ID)
	assert.Equal(t, map[string]any{"limit": 5.0}, d.Override)

	_, errOut := c.run(exitUsage, "users", "erase", "maya")
	assert.Contains(t, errOut, "not a terminal: pass --yes to erase")
	out, _ = c.run(exitOK, "users", "erase", "maya", "--yes")
	assert.Equal(t, "erased of user maya: 2 streams, the limit or plan, 0 cool-downs\n", out)
	c.run(exitNotFound, "limits", "get", "maya")
	c.run(exitNotFound, "ls", "maya")
	c.run(exitNotFound, "users", "erase", "maya", "--yes")

	c.run(exitOK, "start", "maya")
	var erased apitype.ErasedData
	c.json(exitOK, &erased, "users", "erase", "maya", "--yes")
	assert.Equal(t, apitype.ErasedData{UserID: "maya", Streams: 1}, erased)
	for _, args := range [][]string{{"users", "export"}, {"users", "erase", "--yes"}, {"users", "erase", "a\nb", "--yes"}, {"users", "export", "a", "b"}} {
		c.run(exitUsage, args...)
	}
}
