package main

import (
	"fmt"
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

	"streamcount/internal/testing/etcdtest"
)

// With network-attribute, a plan counts the networks of viewers, and with claims their
// labels. A node that starts again computes the same networks.
func TestServe_AttributesOfViewers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := []byte(strings.Repeat("s", 32))
	path := filepath.Join(dir, "secret")
	require.NoError(t, os.WriteFile(path, secret, 0o600))
	args := []string{
		"--data-dir=" + filepath.Join(dir, "data"), "--auth-secret-file=" + path, "--auth-issuer=i", "--auth-audience=a",
		"--auth-plan-claim=plan", "--auth-label-claim=tier=https://x.example/tier", "--network-attribute", "--trusted-proxies=127.0.0.1", "--ttl=10m",
		"--auth-keys-file=" + filepath.Join(dir, "keys.yaml"),
	}
	key, entry := newKey(t, "backend", "all")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "keys.yaml"), []byte("keys:\n"+entry), 0o600))
	p, c := serve(t, args...)
	ask := func(credential, method, path, body, address string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, c.server+path, strings.NewReader(body))
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+credential)
		req.Header.Set("X-Forwarded-For", address)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		reply, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(reply)
	}
	start := func(tier any, address string) (int, string) {
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
			"iss": "i", "aud": "a", "sub": "maya", "plan": "home", "https://x.example/tier": tier, "exp": time.Now().Add(time.Hour).Unix(),
		}).SignedString(secret)
		require.NoError(t, err)
		return ask(token, "POST", "/api/v1/streams/users/maya/start", "{}", address)
	}
	code, body := ask(key, "PUT", "/api/v1/plans/home", `{"limits":[{"name":"place","count":"networks","limit":1},`+
		`{"name":"gold","where":{"labels.tier":"gold"},"limit":1}],"require":["labels.tier"]}`, "203.0.113.1")
	require.Equal(t, 200, code, body)
	for i, step := range []struct {
		tier    any
		address string
		code    int
		body    string
	}{
		{"gold", "203.0.113.7", 200, ""},
		{"gold", "203.0.113.7", 403, `"name":"gold"`},
		{"free", "203.0.113.7", 200, ""},
		{"free", "203.0.113.8", 403, `"name":"place"`},
		{"free", "10.0.0.9, 203.0.113.8", 403, `"name":"place"`},
		{"free", "unknown", 403, `"name":"place"`},
		{nil, "203.0.113.7", 422, "the token has no claim for labels.tier"},
		{[]string{"gold"}, "203.0.113.7", 401, "its https://x.example/tier is a list"},
	} {
		code, body := start(step.tier, step.address)
		require.Equal(t, step.code, code, "%d: %s", i, body)
		assert.Contains(t, body, step.body, fmt.Sprint(i))
	}
	require.Equal(t, 0, p.interrupt(t))
	_, c = serve(t, args...)
	code, body = start("free", "203.0.113.8")
	require.Equal(t, 403, code, body)
	code, body = start("free", "::ffff:203.0.113.7")
	require.Equal(t, 200, code, body)
}

// All shards have the same key of networks, because users may move between them.
func TestServe_NetworkKeyOfShards(t *testing.T) {
	t.Parallel()
	a, b := etcdtest.Start(t, etcdtest.Config{}), etcdtest.Start(t, etcdtest.Config{})
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte(strings.Repeat("s", 32)), 0o600))
	serve(t, "--shard=a="+a.Endpoint(), "--shard=b="+b.Endpoint(), "--auth-secret-file="+secret, "--auth-issuer=i", "--auth-audience=a",
		"--network-attribute")
	key := func(m *etcdtest.Member) string {
		resp, err := m.Client(t).Get(t.Context(), "/streamcount/network-key")
		if err != nil || len(resp.Kvs) == 0 {
			return ""
		}
		return string(resp.Kvs[0].Value)
	}
	require.Eventually(t, func() bool { return key(a) != "" && key(a) == key(b) }, time.Minute, 50*time.Millisecond)
	require.Len(t, key(a), 32)
}
