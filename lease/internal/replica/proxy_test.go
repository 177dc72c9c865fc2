package replica

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

// A replica never claims a revision whose changes it has not applied, also if etcd's gRPC
// proxy merges its watch with others.
func TestGRPCProxy_WatchesFromAnyRevision(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	proxy := etcdtest.StartGRPCProxy(t, m.Endpoint())
	k := schema.Keys{Prefix: "/t"}
	var views []*Replica
	for i := range 8 { // the proxy adds them to existing watches
		_, err := c.Put(t.Context(), k.Slot("maya", i), string(recordValue(streamid.Nonce{byte(i)}, "")))
		require.NoError(t, err)
		views = append(views, runReplica(t, etcdtest.FaultyClient(t, []string{proxy}, nil), "/t"))
	}
	for _, v := range views {
		requireCurrent(t, v)
	}
	resp, err := c.Compact(t.Context(), views[0].applied.Load())
	require.NoError(t, err, resp)
	for i := range 100 {
		_, err := c.Put(t.Context(), k.Slot("ben", i%60), string(recordValue(streamid.Nonce{byte(i), 1}, "")))
		require.NoError(t, err)
	}
	now, err := c.Delete(t.Context(), k.Slot("maya", 0))
	require.NoError(t, err)
	for i, v := range views {
		require.True(t, v.WaitApplied(t.Context(), now.Header.Revision), "view %d", i)
		for user, want := range map[string]int{"maya": 7, "ben": 60} {
			entries, _, _ := v.UserEntries(user)
			assert.Len(t, entries, want, "view %d: %s", i, user)
		}
	}
}
