package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
)

// What "keys new" prints is an entry that serve reads, also where YAML would take
// the name for something else than text.
func TestKeysNew_PrintsAnEntry(t *testing.T) {
	for _, name := range []string{"backend", "123", "1e3", "null", "no", "-", "@x", ".5", "2026-11-24", "me@example.com"} {
		key, entry := newKey(t, name, "operator")
		path := filepath.Join(t.TempDir(), "keys.yaml")
		require.NoError(t, os.WriteFile(path, []byte("keys:\n"+entry), 0o600))
		who, err := access.New(access.Config{KeysFile: path})
		require.NoError(t, err, entry)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+key)
		caller, err := who.Authenticate(r)
		require.NoError(t, err, entry)
		assert.Equal(t, access.Caller{Kind: access.Operator, Name: name}, caller)
	}
}
