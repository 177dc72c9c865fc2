package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/lease/streamid"
)

// auditLines returns the lines of an audit file, and checks their times and messages.
func auditLines(t *testing.T, path string) (out []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range bytes.Lines(b) {
		var m map[string]any
		require.NoError(t, json.Unmarshal(line, &m), "%s", line)
		require.NotEmpty(t, m["time"])
		require.Equal(t, "audit", m["msg"])
		out = append(out, m)
	}
	return out
}

// The audit file contains every stop with its caller and address at any log level, and is
// complete when the node has stopped.
func TestServe_AuditFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	keysFile, key := keyFiles(t, "all", "operator")
	node, c := serve(t, "--data-dir="+filepath.Join(dir, "data"), "--auth-keys-file="+keysFile, "--audit-file="+path, "--log-level=error")
	all, operator := c.with(key["all"]), c.with(key["operator"])
	var handles []any
	start := func() string {
		var u apitype.User
		all.json(exitOK, &u, "start", "maya", "--device-name=TV\u202e")
		handles = append(handles, streamid.Handle(u.Stream.ID))
		return u.Stream.ID
	}
	all.run(exitOK, "stop", "maya", start())
	operator.run(exitOK, "stop", "maya", start())
	c.run(exitOK, "stop", "maya", start()) // with only the id
	start()
	operator.run(exitOK, "stop", "maya") // without an id
	start()
	operator.run(exitOK, "stop", "maya", "--all")
	operator.run(exitOK, "limits", "set", "maya", "--limit=1")
	for range 100 {
		resp, err := http.Post(c.server+"/api/v1/streams/users/maya/start", "", nil)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
	}
	require.Equal(t, exitOK, node.interrupt(t))
	var stops []any
	by := map[any]int{}
	for _, l := range auditLines(t, path) {
		by[fmt.Sprint(l["what"], " by ", l["caller"])]++
		assert.Equal(t, "127.0.0.1", l["client"])
		if l["what"] == "stop" {
			stops = append(stops, l["stream"])
		}
	}
	assert.Equal(t, map[any]int{
		"stop by service all-key": 1, "stop by operator operator-key": 2, "stop by anonymous": 1,
		"remove by operator operator-key": 1, "set limit by operator operator-key": 1, "deny by anonymous": 1,
	}, by)
	assert.Equal(t, handles[:4], stops)
	assert.NotContains(t, node.errOut.String(), "audit")
}
