package etcdtest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
)

func TestStartGRPCProxy(t *testing.T) {
	proxy := etcdtest.StartGRPCProxy(t, etcdtest.Endpoints(t)...)
	c := etcdtest.FaultyClient(t, []string{proxy}, nil)
	key := etcdtest.Prefix(t)
	put, err := c.Put(t.Context(), key, "v")
	require.NoError(t, err)
	assert.Equal(t, "v", get(t, c, key))

	watch := c.Watch(t.Context(), key, clientv3.WithRev(put.Header.Revision))
	assert.Len(t, (<-watch).Events, 1)
	require.NoError(t, c.RequestProgress(t.Context()))
	select {
	case r := <-watch:
		t.Fatal("a progress request was passed on", r)
	case <-time.After(100 * time.Millisecond):
	}

	lease, err := c.Grant(t.Context(), 60)
	require.NoError(t, err)
	_, err = c.KeepAliveOnce(t.Context(), lease.ID)
	require.NoError(t, err)
	_, err = c.Revoke(t.Context(), lease.ID)
	require.NoError(t, err)

	members, err := c.MemberList(t.Context())
	require.NoError(t, err)
	require.Len(t, members.Members, 1)
	assert.Equal(t, "http://"+members.Members[0].ClientURLs[0], proxy)
}
