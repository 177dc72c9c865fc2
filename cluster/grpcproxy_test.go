package cluster

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
)

// etcd's gRPC proxy lists itself as the only member, and sends each call to
// another of the members behind it.
func TestGRPCProxy(t *testing.T) {
	t.Parallel()
	cl := etcdtest.StartCluster(t, 3)
	proxy := etcdtest.StartGRPCProxy(t, cl.Endpoints()...)
	cfg := ClientConfig{Endpoints: []string{proxy}}
	c, err := Connect(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	_, c = keep(t, cfg)
	require.NoError(t, Ready(t.Context(), c, "/streamcount"))
	_, err = StreamIDSecret("/streamcount").GetOrCreate(t.Context(), c)
	require.NoError(t, err)
	all, err := Inspect(t.Context(), c, cfg.Endpoints)
	require.NoError(t, err)
	require.NotEmpty(t, all)
	assert.NoError(t, all[0].Err)
	_, err = Describe(t.Context(), c)
	require.NoError(t, err)

	l := follow(t, cfg)
	stream := openRenewals(t, l)
	require.NoError(t, stream.renew(t))
	require.Eventually(t, func() bool { id, _ := l.Leader(); return id != 0 }, soon, time.Millisecond)
	cl.MoveLeader(t, (cl.Leader(t)+1)%3)
	require.Never(t, func() bool { _, address := l.Leader(); return address != "" }, 3*time.Second, 10*time.Millisecond,
		"nothing behind a proxy is the leader for long")
	require.NoError(t, openRenewals(t, l).renew(t))

	stop := register(t, c, "/streamcount", Node{ID: "n1"})
	defer stop()
	require.Eventually(t, func() bool {
		nodes, err := Nodes(t.Context(), c, "/streamcount")
		return err == nil && len(nodes) == 1
	}, soon, time.Millisecond)
}

func TestGRPCProxy_Authentication(t *testing.T) {
	a := startAuth(t, etcdtest.Config{})
	proxy := etcdtest.StartGRPCProxy(t, a.Endpoint())
	cfg := ClientConfig{Endpoints: []string{proxy}, User: "app", PasswordFile: a.file}
	c, err := Connect(t.Context(), cfg)
	require.NoError(t, err)
	defer c.Close()
	put(t, c, appKey, "v")
	a.write(t, "second")
	a.change(t, "second")
	put(t, c, appKey, "w")
	assert.Equal(t, "w", get(t, c, appKey))
	lease, err := c.Grant(t.Context(), 60)
	require.NoError(t, err)
	_, err = c.Put(t.Context(), appKey, "x", clientv3.WithLease(lease.ID))
	require.NoError(t, err)
}
