package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/lease/streamid"
)

// keyFiles creates a keys file for a node with one key per scope, and a key file per key for
// clients.
func keyFiles(t *testing.T, scopes ...string) (keysFile string, of map[string]string) {
	t.Helper()
	dir, of, content := t.TempDir(), map[string]string{}, "keys:\n"
	for _, scope := range scopes {
		key, entry := newKey(t, scope+"-key", scope)
		of[scope] = filepath.Join(dir, scope)
		require.NoError(t, os.WriteFile(of[scope], []byte(key), 0o600))
		content += entry
	}
	keysFile = filepath.Join(dir, "keys.yaml")
	require.NoError(t, os.WriteFile(keysFile, []byte(content), 0o600))
	return keysFile, of
}

// with returns c with the key in a file.
func (c cli) with(keyFile string) cli {
	return cli{c.t, append([]string{"STREAMCOUNT_KEY_FILE=" + keyFile}, c.environ...), c.server}
}

// With a key of scope read, commands list streams with handles. No command accepts a handle.
func TestReadKey_ShowsHandles(t *testing.T) {
	keysFile, key := keyFiles(t, "all", "read", "metrics")
	_, c := serve(t, "--data-dir="+t.TempDir(), "--auth-keys-file="+keysFile)
	all, read, metrics := c.with(key["all"]), c.with(key["read"]), c.with(key["metrics"])
	watching := launch(t, read.environ, "watch", "--json")
	var started apitype.User
	all.json(exitOK, &started, "start", "maya", "--device-name=TV")
	id := started.Stream.ID
	handle := streamid.Handle(id)

	out, _ := read.run(exitOK, "ls", "maya")
	assert.Contains(t, out, handle)
	assert.NotContains(t, out, id)
	out, _ = all.run(exitOK, "ls", "maya")
	assert.Contains(t, out, id)
	out, _ = read.run(exitOK, "top", "--once")
	assert.Contains(t, out, "maya")
	all.run(exitOK, "start", "ben", "--session=one")
	watching.awaitOut(t, "ben")
	assert.NotContains(t, watching.out.String(), id)
	assert.Contains(t, watching.out.String(), `"handle":"h_`)
	words, _ := read.complete("stop", "maya", "")
	assert.Empty(t, strings.Join(words, ""))
	words, _ = all.complete("stop", "maya", "")
	assert.Contains(t, strings.Join(words, "\n"), id)

	_, stderr := all.run(exitUsage, "stop", "maya", handle)
	assert.Contains(t, stderr, "handle")
	_, stderr = c.run(exitUsage, "stop", "maya", handle)
	assert.Contains(t, stderr, "handle")
	metrics.run(exitError, "ls", "maya")
	metrics.run(exitError, "ls")
	for as, status := range map[string]int{"metrics": 200, "read": 200} {
		text, err := os.ReadFile(key[as])
		require.NoError(t, err)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.server+"/metrics", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+string(text))
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, status, resp.StatusCode, as)
	}
}
