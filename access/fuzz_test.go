package access

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzKeysFile checks that a keys file is rejected or accepted as a whole, and that a key which
// is not in it is not accepted.
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
		_, ok := ring.find(keyPrefix + "a key that no file contains")
		require.False(t, ok)
	})
}

// FuzzKeyset checks that only keys which may sign tokens are used, and that all others are
// reported with a reason.
func FuzzKeyset(f *testing.F) {
	f.Add(jwks(f, newIssuer(f, "a", "ES256"), newIssuer(f, "b", "EdDSA"), newIssuer(f, "c", "RS256")))
	f.Add([]byte(`{"keys":[{"kty":"oct","kid":"x","k":"AAAA"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"x","n":"AQAB","e":"AQAB"},{"kty":"EC","crv":"P-256","x":"AA","y":"AA"},null,7]}`))
	f.Add([]byte(`{"one":"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}`))
	f.Add(publicPEM(f, newIssuer(f, "", "ES384").key.Public()))
	f.Fuzz(func(t *testing.T, content []byte) {
		set, err := readKeyset(content)
		if err != nil {
			return
		}
		require.NotEmpty(t, set.keys)
		require.LessOrEqual(t, len(set.keys), maxSetKeys)
		for _, k := range set.keys {
			require.True(t, k.can(cmp.Or(k.alg, algorithmsOf[k.kind][0]), nil), k)
			require.False(t, k.can("HS256", []string{"HS256"}), k)
			require.True(t, set.has(k.kid))
			switch key := k.key.(type) {
			case *rsa.PublicKey:
				require.GreaterOrEqual(t, key.N.BitLen(), minRSABits)
				require.LessOrEqual(t, key.N.BitLen(), maxRSABits)
			case *ecdsa.PublicKey:
				_, err := key.ECDH() // a point of the curve
				require.NoError(t, err)
			case ed25519.PublicKey:
				require.Len(t, key, ed25519.PublicKeySize)
			default:
				t.Fatalf("a key of type %T", key)
			}
		}
		for _, k := range set.unused {
			require.NotEmpty(t, k.reason)
		}
		for _, kid := range []string{"", "a", "x"} {
			for _, alg := range asymmetric {
				require.LessOrEqual(t, len(set.choose(kid, "", alg, asymmetric).keys), maxCandidates)
			}
		}
	})
}
