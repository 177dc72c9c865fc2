package web

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/internal/testing/browser"
)

// keys writes a keys file and returns its path and a key for each scope.
func keys(t *testing.T) (path string, of map[string]string) {
	t.Helper()
	path, of = filepath.Join(t.TempDir(), "keys.yaml"), map[string]string{}
	file := "keys:\n"
	for _, scope := range []string{"all", "read", "operator"} {
		key, entry, err := access.NewKey(scope+"-key", scope)
		require.NoError(t, err)
		of[scope] = key
		file += fmt.Sprintf("  - {name: %s, scope: %s, sha256: %q}\n", entry.Name, entry.Scope, entry.SHA256)
	}
	require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
	return path, of
}

func useKey(tab *browser.Tab, key string) {
	tab.Fill("#key", key)
	tab.Click(`dialog button[type="submit"]`)
}

// If a node requires credentials, the console asks for a key, rejects an invalid one, and
// stores the key in the tab.
func TestConsole_Key(t *testing.T) {
	path, of := keys(t)
	n := browser.StartNode(t, "--ttl=10m", "--auth-keys-file="+path)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.URL+users+"maya/start", strings.NewReader(""))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+of["all"])
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)

	p := browser.Open(t)
	tab := p.Tab(n.URL + "/#user/maya")
	tab.WaitText("dialog", "This node requires an API key.")
	tab.Accessible()
	assert.Equal(t, "key", browser.Eval[string](tab, `document.activeElement.id`))
	useKey(tab, "sck_wrong")
	tab.WaitText("dialog", "The key is not valid.")
	useKey(tab, of["read"])
	live(tab)
	waitStreams(tab, 1)
	tab.WaitText(".streams tbody .act", "h_")
	assert.Equal(t, 0, browser.Eval[int](tab, `document.querySelectorAll(".streams .act button").length`),
		"a key of scope read is offered no stop")
	assert.Equal(t, []string{"Filter events"}, browser.Eval[[]string](tab,
		`[...document.querySelectorAll("#user .actions button")].filter((b) => !b.hidden).map((b) => b.textContent)`))

	tab.Reload()
	live(tab)
	waitStreams(tab, 1)
	assert.Equal(t, n.URL+"/#user/maya", browser.Eval[string](tab, `location.href`))
	assert.Equal(t, 0, browser.Eval[int](tab, `Object.keys(localStorage).length`), "the key is stored in this tab only")
	other := p.Tab(n.URL)
	other.WaitText("dialog", "This node requires an API key.")

	tab.Click("#remove-key")
	tab.WaitText("dialog", "This node requires an API key.")
	waitStreams(tab, 0)
	useKey(tab, of["operator"])
	live(tab)
	waitStreams(tab, 1)
	tab.Click(".streams .act button")
	confirm(tab)
	tab.WaitText("#user", "No streams.")
}
