package access

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A keys file is refused whole or read whole, and lets in no key that it does not
// name.
func FuzzKeysFile(f *testing.F) {
	_, entry, err := NewKey("ops", "operator")
	require.NoError(f, err)
	f.Add(keysYAML(entry))
	f.Add([]byte("keys: []"))
	f.Add([]byte("keys:\n- {name: a, scope: service, sha256: '00'}"))
	f.Add([]byte("keys: &a [*a]"))
	f.Fuzz(func(t *testing.T, content []byte) {
		ring, err := readKeys(content)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.LessOrEqual(t, len(ring), maxKeys)
		for _, k := range ring {
			require.Contains(t, []Kind{Service, Operator, Reader}, k.caller.Kind)
			require.NotEmpty(t, k.caller.Name)
		}
		_, ok := ring.find(keyPrefix + "nobody has this one, whatever a file says")
		require.False(t, ok)
	})
}

// Of a set of keys only those are taken that tokens may be signed with.
func FuzzKeyset(f *testing.F) {
	f.Add(jwks(f, newIssuer(f, "a", "ES256"), newIssuer(f, "b", "EdDSA"), newIssuer(f, "c", "RS256")))
	f.Add([]byte(`{"keys":[{"kty":"oct","kid":"x","k":"AAAA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"x","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},null,7]}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		set, err := readKeyset(content)
		if err != nil {
			return
		}
		require.NotEmpty(t, set.kids)
		require.LessOrEqual(t, len(set.kids), maxSetKeys)
		require.NotNil(t, set.keys)
	})
}
