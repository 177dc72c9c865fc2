package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var now = time.Date(2026, 5, 4, 20, 15, 0, 700e6, time.UTC)

func newTestKey(t require.TestingT, a Algorithm) Key {
	var k Key
	var err error
	if a == HS256 {
		k, err = NewSecret([]byte("an example of a secret of 32 bytes"))
	} else {
		k, err = NewKey(a)
	}
	require.NoError(t, err)
	return k
}

// verifyingKey returns the key of k for verification, as a verifier has it: from its JWK.
func verifyingKey(t require.TestingT, k Key) any {
	if k.Algorithm == HS256 {
		return k.private
	}
	b, err := json.Marshal(k.Public())
	require.NoError(t, err)
	var j struct{ Kty, Crv, X, Y, D, K string }
	require.NoError(t, json.Unmarshal(b, &j))
	require.Empty(t, j.D+j.K)
	x, err := base64.RawURLEncoding.DecodeString(j.X)
	require.NoError(t, err)
	y, err := base64.RawURLEncoding.DecodeString(j.Y)
	require.NoError(t, err)
	if j.Kty == "OKP" {
		return ed25519.PublicKey(x)
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	require.NoError(t, err)
	return public
}

// decodeJWT verifies a token with the primitives of the standard library, and returns its header
// and claims.
func decodeJWT(t require.TestingT, text string, key any) (header, claims map[string]any) {
	parts := strings.Split(text, ".")
	require.Len(t, parts, 3)
	raw := make([][]byte, 3)
	for i, p := range parts {
		var err error
		raw[i], err = base64.RawURLEncoding.DecodeString(p)
		require.NoError(t, err)
	}
	input := []byte(parts[0] + "." + parts[1])
	switch key := key.(type) {
	case ed25519.PublicKey:
		require.True(t, ed25519.Verify(key, input, raw[2]))
	case *ecdsa.PublicKey:
		require.Len(t, raw[2], 64)
		sum := sha256.Sum256(input)
		require.True(t, ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:])))
	}
	require.NoError(t, json.Unmarshal(raw[0], &header))
	require.NoError(t, json.Unmarshal(raw[1], &claims))
	return header, claims
}

func TestIssuer_Claims(t *testing.T) {
	for _, a := range []Algorithm{ES256, EdDSA, HS256} {
		t.Run(string(a), func(t *testing.T) {
			k, ring := newTestKey(t, a), &Ring{}
			ring.SetFile([]Key{k})
			i := New(Config{Issuer: "https://count.example", Audience: "edge", Life: 50 * time.Second}, ring)
			p := Playback{User: "maya", Stream: "h_1", Content: "film-77", Start: true, LeaseEnd: now.Add(time.Minute)}
			text, err := i.JWT(p, now)
			require.NoError(t, err)
			header, claims := decodeJWT(t, text, verifyingKey(t, k))
			assert.Equal(t, map[string]any{"alg": string(a), "typ": "JWT", "kid": k.ID}, header)
			assert.Len(t, claims["jti"], 26)
			delete(claims, "jti")
			iat := float64(now.Unix())
			assert.Equal(t, map[string]any{"iss": "https://count.example", "aud": []any{"edge"}, "sub": "maya", "sid": "h_1",
				"cid": "film-77", "iat": iat, "exp": iat + 50}, claims)

			again, err := i.JWT(Playback{User: "maya", Stream: "h_1", LeaseEnd: now.Add(time.Minute)}, now)
			require.NoError(t, err)
			_, claims = decodeJWT(t, again, verifyingKey(t, k))
			assert.NotContains(t, claims, "jti", "only at the start")
			assert.NotContains(t, claims, "cid")
		})
	}
}

func TestIssuer_NoKey(t *testing.T) {
	_, err := New(Config{Life: time.Minute}, &Ring{}).JWT(Playback{User: "maya"}, now)
	require.ErrorIs(t, err, ErrNoKey)
}

// A token never outlives its lease by more than the grace, nor the configured life.
func TestIssuer_Expiry(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := time.Duration(rapid.Int64Range(int64(10*time.Second), int64(time.Hour)).Draw(t, "life"))
		left := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "left"))
		i := New(Config{Life: life}, &Ring{})
		end := i.Expiry(Playback{LeaseEnd: now.Add(left)}, now)
		assert.False(t, end.After(now.Add(life)))
		assert.False(t, end.After(now.Add(left+Grace)))
		assert.True(t, end.After(now.Add(min(life, left+Grace)-time.Second)))
		assert.Zero(t, end.Nanosecond())
	})
}

func TestRing(t *testing.T) {
	old, current, next, secret := newTestKey(t, ES256), newTestKey(t, EdDSA), newTestKey(t, ES256), newTestKey(t, HS256)
	r := &Ring{}
	r.Set([]Entry{
		{Key: old, From: now.Add(-time.Hour), Until: now.Add(time.Minute)},
		{Key: current, From: now.Add(-time.Minute)},
		{Key: next, From: now.Add(time.Hour)},
		{Key: secret, From: now.Add(-2 * time.Hour)},
	})
	for at, want := range map[time.Duration]string{0: current.ID, time.Hour: next.ID, -2 * time.Minute: old.ID} {
		k, ok := r.Signing(now.Add(at))
		assert.True(t, ok)
		assert.Equal(t, want, k.ID, "%v", at)
	}
	_, ok := r.Signing(now.Add(-3 * time.Hour))
	assert.False(t, ok, "no key has begun")

	doc, etag, err := r.JWKS(now)
	require.NoError(t, err)
	assert.Equal(t, []string{old.ID, current.ID, next.ID}, kids(t, doc))
	later, otherTag, err := r.JWKS(now.Add(time.Minute))
	require.NoError(t, err)
	assert.Equal(t, []string{current.ID, next.ID}, kids(t, later))
	assert.NotEqual(t, etag, otherTag)
	_, sameTag, err := r.JWKS(now.Add(time.Second))
	require.NoError(t, err)
	assert.Equal(t, etag, sameTag)
	empty, _, err := (&Ring{}).JWKS(now)
	require.NoError(t, err)
	assert.JSONEq(t, `{"keys":[]}`, string(empty))
}

// kids returns the ids of a JWKS, which must not have members of private keys.
func kids(t *testing.T, document []byte) []string {
	t.Helper()
	var set struct{ Keys []map[string]string }
	require.NoError(t, json.Unmarshal(document, &set))
	var out []string
	for _, k := range set.Keys {
		out = append(out, k["kid"])
		assert.NotContains(t, k, "d")
		assert.NotContains(t, k, "k")
		assert.Equal(t, "sig", k["use"])
		assert.NotEmpty(t, k["alg"])
	}
	return out
}
