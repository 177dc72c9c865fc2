package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAuthCheck(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	write("keys.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	published := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"keys":[{"kty":"RSA","kid":"enc-1","use":"enc","n":"AQAB","e":"AQAB"}]}`))
	}))
	defer published.Close()
	good := `issuers:
- {name: tv, issuer: "https://tv.example", jwks: {file: keys.pem}, audience: {values: [streams]}, plan: plan, labels: {tier: tier, kids: kids}, profile: profile, priority: prio, userPrefix: "tv|"}
`
	bad := good + `- {name: web, issuer: "https://web.example", jwks: {url: "` + published.URL + `"}, audience: {values: [streams]}, userPrefix: "web|"}
`
	goodFile, badFile := write("good.yaml", good), write("bad.yaml", bad)
	sign := func(claims jwt.MapClaims) string {
		claims["exp"] = time.Now().Add(time.Hour).Unix()
		token, err := jwt.NewWithClaims(jwt.SigningMethodES256, claims).SignedString(key)
		require.NoError(t, err)
		return token
	}
	token := sign(jwt.MapClaims{"iss": "https://tv.example", "aud": "streams", "sub": "maya", "plan": "family"})
	rich := sign(jwt.MapClaims{"iss": "https://tv.example", "aud": "streams", "sub": "maya", "tier": "gold", "kids": true, "profile": "small", "prio": 7})
	badLabel := sign(jwt.MapClaims{"iss": "https://tv.example", "aud": "streams", "sub": "maya", "tier": []string{"gold"}})
	other := sign(jwt.MapClaims{"iss": "https://tv.example", "aud": "films", "sub": ""})
	for name, c := range map[string]struct {
		args []string
		code int
		out  []string
		err  string
	}{
		"keys":      {[]string{"--auth-file", goodFile}, 0, []string{"(any)", "P-256", "ES256", "used"}, ""},
		"token":     {[]string{"--auth-file", goodFile, "--token-file", write("token", "Bearer "+token+"\n")}, 0, []string{`"tv|maya", plan "family"`, "that of tv"}, ""},
		"labels":    {[]string{"--auth-file", goodFile, "--token-file", write("rich", rich)}, 0, []string{`"tv|maya", profile "small", label kids="true", label tier="gold", priority 7`}, ""},
		"label":     {[]string{"--auth-file", goodFile, "--token-file", write("bad-label", badLabel)}, 1, []string{"rejected: its tier is a list"}, "the token is rejected: its tier is a list, not text, but it is the label tier"},
		"one label": {[]string{"--auth-jwks-file", filepath.Join(dir, "keys.pem"), "--auth-issuer=https://tv.example", "--auth-audience=streams", "--auth-label-claim=tier=tier", "--token-file", write("rich", rich)}, 0, []string{`"maya", label tier="gold"`}, ""},
		"rejected":  {[]string{"--auth-file", goodFile, "--token-file", write("other", other)}, 1, []string{"rejected: it is for another audience", "rejected: its sub is empty"}, "the token is rejected: it is for another audience"},
		"no token":  {[]string{"--auth-file", goodFile, "--token-file", write("rubbish", "opaque")}, 1, []string{"rejected: it is not a JWT"}, "the token is rejected"},
		"api key":   {[]string{"--auth-file", goodFile, "--token-file", write("key", "sck_abc")}, 1, []string{"rejected: it is an API key"}, "the token is rejected"},
		"long":      {[]string{"--auth-file", goodFile, "--token-file", write("long", sign(jwt.MapClaims{"iss": "https://tv.example", "x": strings.Repeat("x", 8<<10)}))}, 1, []string{"rejected: it is longer than 8192 bytes"}, "the token is rejected"},
		"unusable":  {[]string{"--auth-file", badFile}, 1, []string{"enc-1", "not used: it"}, "issuer web: the JWKS has no key that can check tokens"},
		"one":       {[]string{"--auth-jwks-file", filepath.Join(dir, "keys.pem"), "--auth-issuer=https://tv.example", "--auth-audience=streams", "--token-file", write("token", token)}, 0, []string{`"maya"`}, ""},
		"both":      {[]string{"--auth-file", goodFile, "--auth-issuer=x"}, 2, nil, "configures a single issuer"},
		"nothing":   {nil, 2, nil, "no credentials are configured"},
		"wrong":     {[]string{"--auth-file", write("wrong.yaml", "issuers: 7")}, 2, nil, "issuers: want a list, this is a number"},
		"no file":   {[]string{"--auth-file", goodFile, "--token-file", "/none"}, 2, nil, "token file"},
		"key files": {[]string{"--auth-keys-file", write("k.yaml", "keys: 7"), "--auth-file", goodFile}, 2, nil, "not a keys file"},
	} {
		t.Run(name, func(t *testing.T) {
			p := launch(t, nil, append([]string{"auth", "check"}, c.args...)...)
			assert.Equal(t, c.code, p.end(t), p.errOut.String())
			for _, want := range c.out {
				assert.Contains(t, p.out.String(), want)
			}
			assert.Contains(t, p.errOut.String(), c.err)
		})
	}
	p := launch(t, []string{"STREAMCOUNT_AUTH_FILE=" + badFile}, "auth", "check", "--json")
	assert.Equal(t, 1, p.end(t))
	var report struct {
		Issuers []struct {
			Name, Error string
			Keys        []struct{ Kid, Reason string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(p.out.String()), &report), p.out.String())
	assert.Equal(t, "it is for encryption (use is enc)", report.Issuers[1].Keys[0].Reason)
}

// With an auth file, user ids have the prefix of the issuer, a rejected token gets the
// reason, and an edit of the file revokes accepted tokens.
func TestServe_AuthFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keys.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	path := filepath.Join(dir, "auth.yaml")
	write := func(audience string) {
		content := `issuers: [{name: tv, issuer: "https://tv.example", jwks: {file: keys.pem}, audience: {values: [` + audience + `]}, userPrefix: "tv|"}]`
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	write("streams")
	_, c := serve(t, "--data-dir="+filepath.Join(dir, "data"), "--auth-file="+path)
	token := func(sub any) string {
		text, err := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
			"iss": "https://tv.example", "aud": "streams", "sub": sub, "exp": time.Now().Add(time.Hour).Unix(),
		}).SignedString(key)
		require.NoError(t, err)
		return text
	}
	ask := func(method, target, token string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, c.server+target, nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}
	const streams = "/api/v1/streams/users/tv%7C42"
	code, body := ask("POST", streams+"/start", token(42))
	assert.Equal(t, 200, code, body)
	code, body = ask("POST", streams+"/start", token(true))
	assert.Equal(t, 401, code)
	assert.Contains(t, body, "its sub is true or false, not text")
	code, _ = ask("GET", "/api/v1/streams/users/42", token(42))
	assert.Equal(t, 404, code, "the user without the prefix is a different user")
	accepted := token(42)
	code, _ = ask("GET", streams, accepted)
	assert.Equal(t, 200, code)
	write("films")
	require.Eventually(t, func() bool {
		code, body := ask("GET", streams, accepted)
		return code == 401 && assert.Contains(t, body, "another audience")
	}, time.Minute, 50*time.Millisecond)
}
