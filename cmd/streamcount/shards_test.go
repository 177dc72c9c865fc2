package main

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/etcdtest"
	"streamcount/shard"
)

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	resp, err := http.Get(url) //nolint:noctx // a test's own server
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }() // it has been read
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(text)
}

// A service without shards gets a second and a third etcd, and loses the first one, while its
// nodes run.
func TestShards_PlanMoveStatus(t *testing.T) {
	t.Parallel()
	a, b, c := etcdtest.Start(t, etcdtest.Config{}), etcdtest.Start(t, etcdtest.Config{}), etcdtest.Start(t, etcdtest.Config{})
	flag := func(name string, m *etcdtest.Member) string { return name + "=" + m.Endpoint() }
	auditPath := filepath.Join(t.TempDir(), "audit.log")
	_, one := serve(t, "--etcd-endpoints="+a.Endpoint(), "--log-level=warn", "--audit-file="+auditPath)
	_, two := serve(t, "--etcd-endpoints="+a.Endpoint(), "--log-level=warn")
	ids := map[string]string{}
	for i := range 30 {
		user := fmt.Sprint("user-", i)
		var st apitype.User
		one.json(exitOK, &st, "start", user)
		ids[user] = st.Stream.ID
	}
	one.run(exitOK, "plans", "set", "family", "--limit=5")
	one.run(exitOK, "limits", "set", "user-3", "--limit=1")

	admin := cli{t: t}
	known := "--etcd-endpoints=" + a.Endpoint()
	out, _ := admin.run(exitOK, "shards", "status", known)
	assert.Contains(t, out, "epoch 0: users are on default")
	assert.Regexp(t, `default +30 +30 +0 `, out)
	to := []string{"--to=" + flag("default", a), "--to=" + flag("b", b)}
	out, _ = admin.run(exitOK, append([]string{"shards", "plan", known}, to...)...)
	assert.Regexp(t, `default +b +\d+ +\d+`, out)
	assert.Contains(t, out, "default (stay)")
	_, text := admin.run(exitUsage, "shards", "move", known, "--to="+flag("a", a), "--to="+flag("b", b))
	assert.Contains(t, text, "same address")

	for _, step := range []struct {
		known string
		to    []string
		want  string
	}{
		{known, to, "users are on default, b (epoch 3)"},
		{"--shard=" + flag("b", b), []string{"--to=" + flag("b", b), "--to=" + flag("c", c)}, "users are on b, c (epoch 5)"},
	} {
		out, _ = admin.run(exitOK, append([]string{"shards", "move", step.known}, step.to...)...)
		assert.Contains(t, out, step.want)
		for user, id := range ids {
			for _, node := range []cli{one, two} {
				node.run(exitOK, "heartbeat", user, id)
			}
		}
		out, _ = two.run(exitOK, "plans", "ls")
		assert.Contains(t, out, "family")
		two.run(exitLimit, "start", "user-3")
	}
	out, _ = admin.run(exitOK, "shards", "status", "--shard="+flag("c", c))
	assert.NotContains(t, out, "default")
	require.Eventually(t, func() bool {
		var moves []string
		for _, l := range auditLines(t, auditPath) {
			if l["what"] == "move shards" {
				moves = append(moves, fmt.Sprint(l["caller"]))
			}
		}
		return len(moves) >= 1 && !slices.ContainsFunc(moves, func(by string) bool { return by != commandActor() })
	}, time.Minute, 50*time.Millisecond, "nodes record who moves users")

	// An unavailable shard affects only its users.
	c.Stop()
	m := shard.Map{Shards: []shard.Shard{{Name: "b"}, {Name: "c"}}}
	for user, id := range ids {
		if m.Shard(user) == "b" {
			one.run(exitOK, "heartbeat", user, id)
			if user != "user-3" {
				one.run(exitOK, "start", user)
			}
		}
	}
	var unlucky string
	for user := range ids {
		if m.Shard(user) == "c" {
			unlucky = user
		}
	}
	require.NotEmpty(t, unlucky)
	one.run(exitOK, "heartbeat", unlucky, ids[unlucky]) // the stream continues
	began := time.Now()
	resp, err := http.Post(one.server+"/api/v1/streams/users/"+unlucky+"/start", "", nil) //nolint:noctx // a test's own server
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
	t.Log("503 after", time.Since(began))
	status, _ := get(t, one.server+"/readyz")
	assert.Equal(t, 200, status)
	status, body := get(t, one.server+"/api/v1/stats")
	assert.Equal(t, 200, status)
	assert.Contains(t, body, `"error":"etcd is unavailable`)
}
