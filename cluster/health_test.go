package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/version"

	"streamcount/internal/testing/etcdtest"
)

func TestReady_FollowsEtcd(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	require.NoError(t, Ready(t.Context(), c, "/p"))
	m.Stop()
	err := Ready(t.Context(), c, "/p")
	require.Error(t, err)
	assert.Contains(t, []string{"etcd cannot be reached", "etcd did not answer within 2s"}, err.Error())
	m.Restart(t)
	require.Eventually(t, func() bool { return Ready(t.Context(), c, "/p") == nil },
		time.Minute, time.Millisecond)
}

func TestReady_NoQuorum(t *testing.T) {
	t.Parallel()
	cl := etcdtest.StartCluster(t, 3)
	c := cl.Client(t, 2)
	require.NoError(t, Ready(t.Context(), c, "/p"))
	cl.Stop(0)
	cl.Stop(1)
	err := Ready(t.Context(), c, "/p")
	require.Error(t, err)
	assert.Regexp(t, "^etcd (has no leader|did not answer within 2s)", err.Error())
}

func TestReady_HangingEtcd(t *testing.T) {
	t.Parallel()
	var f etcdtest.Faults
	c := etcdtest.FaultyClient(t, etcdtest.Endpoints(t), &f)
	f.Hold(etcdtest.Range)
	err := Ready(t.Context(), c, "/p")
	require.EqualError(t, err, "etcd did not answer within 2s")
	require.ErrorIs(t, err, context.DeadlineExceeded)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Ready(ctx, c, "/p"), context.Canceled)
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	cl := etcdtest.StartCluster(t, 3)
	leader := cl.Leader(t)
	for i := range cl.Members {
		info, err := Describe(t.Context(), cl.Client(t, i))
		require.NoError(t, err)
		assert.Equal(t, Info{
			Leader:  cl.Members[leader].Embed().Config().Name,
			Members: 3,
			Version: version.Version,
		}, info)
	}

	last := (leader + 1) % 3
	c := cl.Client(t, last)
	for i := range cl.Members {
		if i != last {
			cl.Stop(i)
		}
	}
	var info Info
	require.Eventually(t, func() bool {
		var err error
		info, err = Describe(t.Context(), c)
		return err == nil && info.Leader == ""
	}, time.Minute, time.Millisecond)
	assert.Equal(t, 3, info.Members, "known without a quorum")

	cl.Stop(last)
	_, err := Describe(t.Context(), c)
	require.ErrorContains(t, err, "describe etcd")
}
