package etcdtest_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"streamcount/internal/testing/etcdtest"
)

func TestMain(m *testing.M) {
	code := etcdtest.Main(m)
	// Members of a cluster leave idle HTTP connections to each other behind.
	idle := []goleak.Option{
		goleak.IgnoreAnyFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreAnyFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http.(*connReader).backgroundRead"),
	}
	if err := goleak.Find(idle...); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func TestClient_SharesOneServer(t *testing.T) {
	key := etcdtest.Prefix(t)
	_, err := etcdtest.Client(t).Put(t.Context(), key, "v")
	require.NoError(t, err)
	assert.Equal(t, "v", get(t, etcdtest.Client(t), key))
	assert.Equal(t, etcdtest.Endpoints(t), etcdtest.Endpoints(t))
}

func TestClient_ClosedWithItsTest(t *testing.T) {
	var c *clientv3.Client
	t.Run("inner", func(t *testing.T) { c = etcdtest.Client(t) })
	require.ErrorIs(t, c.Ctx().Err(), context.Canceled)
}

func TestPrefix_UniqueAndPlain(t *testing.T) {
	t.Run("odd name/é|*", func(t *testing.T) {
		a, b := etcdtest.Prefix(t), etcdtest.Prefix(t)
		assert.NotEqual(t, a, b)
		assert.Regexp(t, `^/test/[A-Za-z0-9_-]+/\d+$`, a)
	})
}

func TestStart_RestartKeepsDataAndEndpoint(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c, ep := m.Client(t), m.Endpoint()
	put, err := c.Put(t.Context(), "k", "v")
	require.NoError(t, err)

	// The open watch must not hold up Stop.
	watch := c.Watch(t.Context(), "k", clientv3.WithRev(put.Header.Revision+1))
	began := time.Now()
	m.Stop()
	assert.Less(t, time.Since(began), time.Minute)
	assert.Nil(t, m.Embed())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err = c.Get(ctx, "k")
	require.Error(t, err, "a stopped server answers")

	m.Restart(t)
	assert.Equal(t, ep, m.Endpoint())
	assert.Equal(t, "v", get(t, c, "k"))
	_, err = c.Put(t.Context(), "k", "w")
	require.NoError(t, err)
	assert.Equal(t, "w", string((<-watch).Events[0].Kv.Value))

	members, err := c.MemberList(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{ep}, members.Members[0].ClientURLs, "what is advertised can be dialled")
}

func TestStart_Config(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{MaxTxnOps: 2, QuotaBytes: 1 << 20})
	c := m.Client(t)
	put := clientv3.OpPut
	_, err := c.Txn(t.Context()).Then(put("a", ""), put("b", ""), put("c", "")).Commit()
	require.ErrorIs(t, err, rpctypes.ErrTooManyOps)

	value := string(make([]byte, 512<<10))
	require.Eventually(t, func() bool {
		_, err = c.Put(t.Context(), "big", value)
		return err != nil
	}, time.Minute, time.Millisecond)
	require.ErrorIs(t, err, rpctypes.ErrNoSpace)
}

func TestCluster_SurvivesItsLeader(t *testing.T) {
	t.Parallel()
	cl := etcdtest.StartCluster(t, 3)
	c := cl.Client(t)
	old := cl.Leader(t)
	cl.Stop(old)
	leader := cl.Leader(t)
	assert.NotEqual(t, old, leader)
	_, err := cl.Client(t, leader).Put(t.Context(), "k", "v")
	require.NoError(t, err)

	cl.Restart(t, old)
	assert.Equal(t, "v", get(t, cl.Client(t, old), "k"))
	assert.Equal(t, "v", get(t, c, "k"))

	cl.Stop(0)
	cl.Stop(1)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err = cl.Client(t, 2).Put(ctx, "k", "w")
	require.Error(t, err, "no quorum")
	cl.Restart(t, 0, 1)
	cl.Leader(t)
	_, err = cl.Client(t, 2).Put(t.Context(), "k", "x")
	require.NoError(t, err)
}

func get(t *testing.T, c *clientv3.Client, key string) string {
	t.Helper()
	resp, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1, "key %s", key)
	return string(resp.Kvs[0].Value)
}
