package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/api/apitype"
	"streamcount/internal/testing/etcdtest"
)

// The rights that deploy/etcd/create-user.sh grants are exactly those that a node needs.
func TestServe_LeastRights(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../../deploy/etcd/create-user.sh")
	require.NoError(t, err)
	require.Contains(t, string(script), `grant-permission "$role" readwrite --prefix=true "$prefix/"`, "the same as below")

	m := etcdtest.Start(t, etcdtest.Config{})
	account, _ := etcdAccount(t, m.Client(t), m.Endpoint())
	_, c := serve(t, account...)
	var started apitype.User
	c.json(exitOK, &started, "start", "maya")
	id := started.Stream.ID
	c.run(exitOK, "heartbeat", "maya", id)
	c.run(exitOK, "ls", "maya")
	c.run(exitOK, "plans", "set", "family", "--limit=5")
	c.run(exitOK, "limits", "set", "maya", "--plan=family")
	c.run(exitOK, "limits", "rm", "maya")
	c.run(exitOK, "stop", "maya", id)
	status, stats := get(t, c.server+"/api/v1/stats")
	assert.Equal(t, 200, status)
	assert.Contains(t, stats, `"members":1`)
	status, _ = get(t, c.server+"/readyz")
	assert.Equal(t, 200, status)
	require.Eventually(t, func() bool {
		service, err := clientv3.New(clientv3.Config{
			Endpoints: []string{m.Endpoint()}, Username: "root", Password: "r", DialTimeout: 5 * time.Second,
		})
		if err != nil {
			return false
		}
		defer func() { _ = service.Close() }() // it was used only for reads
		resp, err := service.Get(t.Context(), "/streamcount/nodes/", clientv3.WithPrefix())
		return err == nil && len(resp.Kvs) == 1
	}, time.Minute, 10*time.Millisecond, "the node is listed")

	p := launch(t, nil, append([]string{"serve", "--listen=127.0.0.1:0", "--etcd-prefix=/other"}, account...)...)
	assert.Equal(t, exitError, p.end(t))
	assert.Contains(t, p.errOut.String(), "permission denied")
}

// etcdAccount creates root and the account of deploy/etcd/create-user.sh. It returns the flags
// of a node for it, and the password file.
func etcdAccount(t *testing.T, root *clientv3.Client, endpoints ...string) (flags []string, file string) {
	t.Helper()
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		require.NoError(t, err)
	}
	must(root.UserAdd(ctx, "root", "r"))
	must(root.UserGrantRole(ctx, "root", "root"))
	must(root.RoleAdd(ctx, "streamcount"))
	must(root.RoleGrantPermission(ctx, "streamcount", "/streamcount/", clientv3.GetPrefixRangeEnd("/streamcount/"),
		clientv3.PermissionType(clientv3.PermReadWrite)))
	must(root.UserAdd(ctx, "streamcount", "secret"))
	must(root.UserGrantRole(ctx, "streamcount", "streamcount"))
	must(root.AuthEnable(ctx))
	file = filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("secret\n"), 0o600))
	return []string{
		"--etcd-endpoints=" + strings.Join(endpoints, ","), "--etcd-user=streamcount", "--etcd-password-file=" + file,
	}, file
}
