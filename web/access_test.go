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
	"streamcount/internal/browser"
)

// keys writes a keys file, and returns its path and a key for each scope.
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

// Where a node asks who calls, the console asks for a key, says when one does not
// do, and keeps it in the tab.
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
	tab.WaitText("dialog", "This node asks who you are.")
	tab.Accessible()
	assert.Equal(t, "key", browser.Eval[string](tab, `document.activeElement.id`))
	useKey(tab, "sck_wrong")
	tab.WaitText("dialog", "The key was refused.")
	useKey(tab, of["read"])
	live(tab)
	held(tab, 1)
	tab.Click(".streams .act button")
	tab.Click(`dialog button[type="submit"]`)
	tab.WaitText("dialog .error", "This credential does not allow that call.")
	tab.Click(`dialog button[type="button"]`)

	tab.Reload()
	live(tab)
	held(tab, 1)
	assert.Equal(t, n.URL+"/#user/maya", browser.Eval[string](tab, `location.href`))
	assert.Equal(t, 0, browser.Eval[int](tab, `Object.keys(localStorage).length`), "the key is in this tab alone")
	other := p.Tab(n.URL)
	other.WaitText("dialog", "This node asks who you are.")

	tab.Click("#forget")
	tab.WaitText("dialog", "This node asks who you are.")
	held(tab, 0)
	useKey(tab, of["operator"])
	live(tab)
	held(tab, 1)
	tab.Click(".streams .act button")
	confirm(tab)
	tab.WaitText("#user", "No streams at the moment.")
}
