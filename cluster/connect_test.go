package cluster

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"streamcount/internal/testing/etcdtest"
)

type connected struct {
	c   *clientv3.Client
	err error
}

func connectAsync(ctx context.Context, cfg ClientConfig) <-chan connected {
	done := make(chan connected, 1)
	go func() {
		c, err := Connect(ctx, cfg)
		done <- connected{c, err}
	}()
	return done
}

func TestConnect_BeforeEtcdIsUp(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	m.Stop()
	core, logs := observer.New(zap.DebugLevel)
	done := connectAsync(t.Context(), ClientConfig{
		Endpoints: []string{m.Endpoint()}, CallTimeout: 200 * time.Millisecond, Log: zap.New(core),
	})
	require.Eventually(t, func() bool { return logs.Len() == 1 }, time.Minute, time.Millisecond)
	assert.Equal(t, zap.WarnLevel, logs.All()[0].Level)
	assert.Contains(t, logs.All()[0].Message, "retrying")
	assert.Contains(t, logs.All()[0].ContextMap()["error"], "refused", "the reason")
	select {
	case r := <-done:
		t.Fatal("gave up", r.err)
	case <-time.After(time.Second): // several attempts
	}
	m.Restart(t)
	r := <-done
	require.NoError(t, r.err)
	put(t, r.c, "k", "v")
	_ = r.c.Close()
	require.Equal(t, 2, logs.Len(), "one line when it starts to fail, one when it succeeds")
	assert.Equal(t, zap.InfoLevel, logs.All()[1].Level)
}

func TestConnect_SaysNothingWhenAllIsWell(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	c, err := Connect(t.Context(), ClientConfig{Endpoints: etcdtest.Endpoints(t), Log: zap.New(core)})
	require.NoError(t, err)
	_ = c.Close()
	assert.Empty(t, logs.All())
}

func TestConnect_NeedsAQuorum(t *testing.T) {
	t.Parallel()
	cl := etcdtest.StartCluster(t, 3)
	cl.Stop(0)
	cl.Stop(1)
	cfg := ClientConfig{Endpoints: cl.Endpoints(), CallTimeout: 500 * time.Millisecond}
	done := connectAsync(t.Context(), cfg)
	select {
	case r := <-done:
		t.Fatal("connected without a quorum", r.err)
	case <-time.After(2 * time.Second):
	}
	cl.Restart(t, 0, 1)
	r := <-done
	require.NoError(t, r.err)
	_ = r.c.Close()
}

func TestConnect_ContextEnds(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	cfg := ClientConfig{Endpoints: []string{"http://127.0.0.1:1"}, CallTimeout: 200 * time.Millisecond}
	_, err := Connect(ctx, cfg)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "http://127.0.0.1:1")
	require.ErrorContains(t, err, "refused", "the reason of the last attempt")
}

func TestConnect_Authentication(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	enableAuth(t, m.Client(t))
	file := func(password string) string {
		path := filepath.Join(t.TempDir(), "password")
		require.NoError(t, os.WriteFile(path, []byte(password), 0o600))
		return path
	}
	right, wrong := file("app-secret\n"), file("guess")
	eps := []string{m.Endpoint()}
	for name, tc := range map[string]struct {
		cfg  ClientConfig
		want string // "" connects
	}{
		"right":          {ClientConfig{User: "app", PasswordFile: right}, ""},
		"wrong-password": {ClientConfig{User: "app", PasswordFile: wrong}, "does not accept user"},
		"unknown-user":   {ClientConfig{User: "nobody", PasswordFile: right}, "does not accept user"},
		"no-user":        {ClientConfig{}, "configure a user and a password file"},
		"no-rights":      {ClientConfig{User: "app", PasswordFile: right, Prefix: "/other"}, "grant its role"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			tc.cfg.Endpoints = eps
			c, err := Connect(ctx, tc.cfg)
			require.NoError(t, ctx.Err(), "at once: %v", err)
			if tc.want != "" {
				require.ErrorContains(t, err, tc.want)
				assert.NotContains(t, err.Error(), "app-secret")
				return
			}
			require.NoError(t, err)
			defer c.Close()
			checkRights(t, c)
		})
	}
}

// checkRights does all that this package does, as a user with rights on the
// prefix alone.
func checkRights(t *testing.T, c *clientv3.Client) {
	t.Helper()
	require.NoError(t, Ready(t.Context(), c, "/streamcount"))
	require.ErrorContains(t, Ready(t.Context(), c, "/other"), "does not let this node read its keys")
	_, err := StreamIDSecret("/streamcount").GetOrCreate(t.Context(), c)
	require.NoError(t, err)
	_, err = StreamIDSecret("/other").GetOrCreate(t.Context(), c)
	require.ErrorContains(t, err, "/other/secret")
	info, err := Describe(t.Context(), c)
	require.NoError(t, err)
	assert.Equal(t, 1, info.Members)
	stop := register(t, c, "/streamcount", Node{ID: "n1"})
	require.Eventually(t, func() bool {
		nodes, err := Nodes(t.Context(), c, "/streamcount")
		return err == nil && len(nodes) == 1
	}, time.Minute, time.Millisecond)
	stop()
	nodes, err := Nodes(t.Context(), c, "/streamcount")
	require.NoError(t, err)
	assert.Empty(t, nodes)
}

// A client with a user that is started before etcd waits for it as well.
func TestConnect_AuthenticationBeforeEtcdIsUp(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	enableAuth(t, m.Client(t))
	m.Stop()
	path := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(path, []byte("app-secret"), 0o600))
	cfg := ClientConfig{Endpoints: []string{m.Endpoint()}, User: "app", PasswordFile: path}
	done := connectAsync(t.Context(), cfg)
	select {
	case r := <-done:
		t.Fatal("gave up", r.err)
	case <-time.After(500 * time.Millisecond):
	}
	m.Restart(t)
	r := <-done
	require.NoError(t, r.err)
	_ = r.c.Close()
}

// enableAuth makes user app with rights on /streamcount.
func enableAuth(t *testing.T, c *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	_, err := c.UserAdd(ctx, "root", "root-secret")
	require.NoError(t, err)
	_, err = c.UserGrantRole(ctx, "root", "root")
	require.NoError(t, err)
	_, err = c.RoleAdd(ctx, "app")
	require.NoError(t, err)
	from, to := "/streamcount/", clientv3.GetPrefixRangeEnd("/streamcount/")
	_, err = c.RoleGrantPermission(ctx, "app", from, to, clientv3.PermissionType(clientv3.PermReadWrite))
	require.NoError(t, err)
	_, err = c.UserAdd(ctx, "app", "app-secret")
	require.NoError(t, err)
	_, err = c.UserGrantRole(ctx, "app", "app")
	require.NoError(t, err)
	_, err = c.AuthEnable(ctx)
	require.NoError(t, err)
}
