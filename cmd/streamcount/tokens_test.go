package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/client"
	"streamcount/internal/testing/etcdtest"
	"streamcount/token"
)

// verifyByJWKS verifies a token by the public keys of a node, and returns its key and claims.
func verifyByJWKS(t *testing.T, base, text string) (kid string, claims jwt.MapClaims) {
	t.Helper()
	res, err := http.Get(base + "/.well-known/jwks.json")
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	var set struct{ Keys []token.Key }
	require.NoError(t, json.Unmarshal(b, &set))
	_, err = jwt.ParseWithClaims(text, &claims, func(parsed *jwt.Token) (any, error) {
		kid, _ = parsed.Header["kid"].(string)
		for _, k := range set.Keys {
			if k.ID == kid {
				return k.PublicKey(), nil
			}
		}
		return nil, jwt.ErrTokenUnverifiable
	}, jwt.WithIssuer("https://count.example"), jwt.WithAudience("edge"))
	require.NoError(t, err)
	return kid, claims
}

func TestTokens(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir(), "--ttl=60s", "--token-issuer=https://count.example", "--token-audience=edge")
	sdk, err := client.New(client.Config{Server: c.server, Tokens: []string{"jwt"}})
	require.NoError(t, err)
	s, err := sdk.StartStream(t.Context(), "maya", apitype.Start{Content: &apitype.Content{ID: "film-77"}})
	require.NoError(t, err)
	old, claims := verifyByJWKS(t, c.server, s.Token.JWT)
	assert.Equal(t, "maya", claims["sub"])
	assert.Equal(t, "film-77", claims["cid"])
	assert.NotEqual(t, s.Stream.ID, claims["sid"])

	var keys apitype.TokenKeys
	c.json(exitOK, &keys, "tokens", "rotate")
	require.Len(t, keys.Keys, 2)
	assert.Equal(t, "published", keys.Keys[1].State)
	out, _ := c.run(exitOK, "tokens", "rotate", "--now")
	assert.Contains(t, out, old)
	require.Eventually(t, func() bool {
		h, err := sdk.Heartbeat(t.Context(), "maya", s.Stream.ID)
		require.NoError(t, err)
		kid, _ := verifyByJWKS(t, c.server, h.Token.JWT)
		return kid == keys.Keys[1].KID
	}, time.Minute, 100*time.Millisecond)
	out, _ = c.run(exitOK, "tokens", "keys")
	assert.Regexp(t, `(?m)^`+old+` +ES256 +verifying `, out)
	assert.Regexp(t, `(?m)^`+keys.Keys[1].KID+` +ES256 +signing `, out)
	kid, _ := verifyByJWKS(t, c.server, s.Token.JWT)
	assert.Equal(t, old, kid, "a token from before the rotation")
}

// Two nodes share the keys in etcd: after a rotation through one of them both sign with the new key,
// and each verifies the tokens of the other from before and after it.
func TestTokens_TwoNodes(t *testing.T) {
	t.Parallel()
	etcd := "--etcd-endpoints=" + etcdtest.Start(t, etcdtest.Config{}).Endpoint()
	const issuer, audience = "--token-issuer=https://count.example", "--token-audience=edge"
	_, a := serve(t, etcd, "--ttl=60s", issuer, audience)
	_, b := serve(t, etcd, "--ttl=60s", issuer, audience)
	newToken := func(c cli) string {
		sdk, err := client.New(client.Config{Server: c.server, Tokens: []string{"jwt"}})
		require.NoError(t, err)
		s, err := sdk.StartStream(t.Context(), "maya", apitype.Start{})
		require.NoError(t, err)
		_, err = sdk.StopStream(t.Context(), "maya", s.Stream.ID)
		require.NoError(t, err)
		return s.Token.JWT
	}
	verify := func(c cli, text string) string {
		kid, _ := verifyByJWKS(t, c.server, text)
		return kid
	}
	byA, byB := newToken(a), newToken(b)
	old := verify(b, byA)
	require.Equal(t, old, verify(a, byB), "both sign with one key")

	res, err := http.Post(a.server+"/api/v1/token-keys/rotate", "application/json", strings.NewReader(`{"now":true}`))
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	require.Equal(t, http.StatusOK, res.StatusCode)
	var keys apitype.TokenKeys
	require.NoError(t, json.NewDecoder(res.Body).Decode(&keys))
	require.Len(t, keys.Keys, 2)
	next := keys.Keys[1].KID
	require.NotEqual(t, old, next)
	require.Eventually(t, func() bool { // when a node signs with a key, the other one publishes it
		return verify(b, newToken(a)) == next && verify(a, newToken(b)) == next
	}, time.Minute, 100*time.Millisecond)
	assert.Equal(t, old, verify(b, byA), "a token from before the rotation")
	assert.Equal(t, old, verify(a, byB), "a token from before the rotation")
}

func TestTokens_Files(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	key, err := token.NewKey(token.EdDSA)
	require.NoError(t, err)
	jwk, err := json.Marshal(key)
	require.NoError(t, err)
	_, c := serve(t, "--data-dir="+filepath.Join(dir, "data"), "--ttl=60s", "--token-issuer=https://count.example", "--token-audience=edge",
		"--token-algorithm=EdDSA", "--token-key-file="+write("key.json", string(jwk)), "--token-formats-file="+
			write("formats.yaml", "akamai: {key: 00112233445566778899aabbccddeeff, acl: '/vod/{content}/*'}\n"))
	sdk, err := client.New(client.Config{Server: c.server, Tokens: []string{"jwt", "akamai"}})
	require.NoError(t, err)
	s, err := sdk.StartStream(t.Context(), "maya", apitype.Start{Content: &apitype.Content{ID: "film-77"}})
	require.NoError(t, err)
	kid, _ := verifyByJWKS(t, c.server, s.Token.JWT)
	assert.Equal(t, key.ID, kid)
	assert.Contains(t, s.Token.Akamai, "~acl=/vod/film-77/*~")
	_, errOut := c.run(exitUsage, "tokens", "rotate")
	assert.Contains(t, errOut, "token-key-file")
}
