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

// "keys new" prints an entry that serve can load, even if YAML would not read the name as a
// string.
func TestKeysNew_PrintsAnEntry(t *testing.T) {
	scopes := map[string]access.Kind{
		"all": access.Service, "operator": access.Operator, "read": access.Reader, "metrics": access.Scraper,
		"edge": access.Edge,
	}
	for scope, kind := range scopes {
		assert.Equal(t, access.Caller{Kind: kind, Name: "a"}, callerOfNewKey(t, "a", scope))
	}
	for _, name := range []string{"backend", "123", "1e3", "null", "no", "-", "@x", ".5", "2026-11-24", "me@example.com"} {
		assert.Equal(t, access.Caller{Kind: access.Operator, Name: name}, callerOfNewKey(t, name, "operator"))
	}
}

// callerOfNewKey returns the caller that a new key identifies.
func callerOfNewKey(t *testing.T, name, scope string) access.Caller {
	t.Helper()
	key, entry := newKey(t, name, scope)
	path := filepath.Join(t.TempDir(), "keys.yaml")
	require.NoError(t, os.WriteFile(path, []byte("keys:\n"+entry), 0o600))
	who, err := access.New(access.Config{KeysFile: path})
	require.NoError(t, err, entry)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	require.NoError(t, err)
	r.Header.Set("Authorization", "Bearer "+key)
	caller, err := who.Authenticate(r)
	require.NoError(t, err, entry)
	return caller
}
