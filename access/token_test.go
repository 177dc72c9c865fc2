package access

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A token that is remembered is not good for longer than it says.
func TestTokens_RememberedUntilTheyExpire(t *testing.T) {
	i := newIssuer(t, "k", "ES256")
	cfg := tokensBy(t, i)
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(t, Config{Tokens: cfg})
		claims, expires := goodClaims(), time.Now().Add(10*time.Second)
		claims["exp"] = expires.Unix()
		token := "Bearer " + i.sign(t, claims, nil)
		for time.Now().Before(expires.Add(cfg.Leeway)) {
			_, err := a.as(token)
			require.NoError(t, err)
			assert.Equal(t, 1, a.viewers.known.Len())
			time.Sleep(time.Second)
		}
		_, err := a.as(token)
		require.ErrorContains(t, err, "it has expired")
	})
}

// Keys that are too weak, of another kind or for another use check no token,
// though others of the set do.
func TestKeyset_LeavesKeysOut(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	good := newIssuer(t, "good", "ES256")
	encrypts, err := jwkset.NewJWKFromKey(good.key.Public(), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: "bad", USE: jwkset.UseEnc},
	})
	require.NoError(t, err)
	shared, err := jwkset.NewJWKFromKey(make([]byte, 32), jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: "bad"}, Marshal: jwkset.JWKMarshalOptions{Private: true},
	})
	require.NoError(t, err)
	set := func(raw ...json.RawMessage) []byte {
		b, err := json.Marshal(map[string]any{"keys": raw})
		require.NoError(t, err)
		return b
	}
	raw := func(key any) json.RawMessage {
		b, err := json.Marshal(key)
		require.NoError(t, err)
		return b
	}
	var goodSet struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal(jwks(t, good), &goodSet))
	for name, bad := range map[string]json.RawMessage{
		"rsa_1024":   firstKey(t, issuer{"bad", jwt.SigningMethodRS256, small}),
		"p384":       firstKey(t, issuer{"bad", jwt.SigningMethodES384, wide}),
		"encryption": raw(encrypts.Marshal()),
		"symmetric":  raw(shared.Marshal()),
		"unknown":    json.RawMessage(`{"kty":"new","kid":"bad"}`),
		"nonsense":   json.RawMessage(`7`),
	} {
		t.Run(name, func(t *testing.T) {
			_, err := readKeyset(set(bad))
			require.ErrorContains(t, err, "the JWKS has no RSA key")
			read, err := readKeyset(set(bad, goodSet.Keys[0]))
			require.NoError(t, err)
			assert.Equal(t, map[string]bool{"good": true}, read.kids)
		})
	}
}

func firstKey(t *testing.T, i issuer) json.RawMessage {
	t.Helper()
	var set struct{ Keys []json.RawMessage }
	require.NoError(t, json.Unmarshal(jwks(t, i), &set))
	return set.Keys[0]
}

// A JWKS with private keys in it, which nobody should publish, still only checks.
func TestKeyset_PrivateKeysOnlyCheck(t *testing.T) {
	i := newIssuer(t, "k", "RS256")
	key, err := jwkset.NewJWKFromKey(i.key, jwkset.JWKOptions{
		Metadata: jwkset.JWKMetadataOptions{KID: "k"}, Marshal: jwkset.JWKMarshalOptions{Private: true},
	})
	require.NoError(t, err)
	b, err := json.Marshal(map[string]any{"keys": []any{key.Marshal()}})
	require.NoError(t, err)
	cfg := tokensBy(t, i)
	cfg.JWKSFile = file(t, b)
	_, err = newAuthenticator(t, Config{Tokens: cfg}).as("Bearer " + i.sign(t, goodClaims(), nil))
	require.NoError(t, err)
}
