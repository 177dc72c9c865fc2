package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
)

// brokenLists rejects lists of plans, which follow those of streams.
type brokenLists struct {
	pb.KVClient
	left atomic.Int32
}

func (b *brokenLists) Range(ctx context.Context, r *pb.RangeRequest, o ...grpc.CallOption) (*pb.RangeResponse, error) {
	if bytes.Contains(r.Key, []byte("/plans/")) && b.left.Add(-1) >= 0 {
		return nil, errors.New("cut off")
	}
	return b.KVClient.Range(ctx, r, o...)
}

// The pool of a node has the lease of a stopped stream. After a restore of etcd from an
// earlier backup the stream exists again. The node must neither renew its lease nor use the
// lease for another stream.
func TestRestore_PooledLeaseDoesNotRenewEndedStream(t *testing.T) {
	t.Parallel()
	e := etcdtest.StartWithBackup(t)
	on := FromClient(e.Client(t))
	lists := &brokenLists{KVClient: on.KV}
	on.KV = lists
	l := runLimiter(t, on, Config{Limit: 3, TTL: 10 * time.Minute})
	stopped, living := mustStart(t, l, "maya", Request{}).Stream, mustStart(t, l, "ben", Request{}).Stream
	e.Backup(t)
	require.Eventually(t, l.replica.Current, time.Minute, 10*time.Millisecond)
	_, err := l.Stop(t.Context(), "maya", stopped.ID)
	require.NoError(t, err)
	lease := leaseOfID(t, l, stopped).Lease
	pooled := func() bool {
		ready, _ := l.pool.IDs()
		return slices.Contains(ready, lease)
	}
	require.True(t, pooled(), "its lease is in the pool")
	require.Eventually(t, func() bool { s, _, _ := l.replica.UserEntries("maya"); return len(s) == 0 }, time.Minute, time.Millisecond)

	lists.left.Store(math.MaxInt32)
	e.Restore(t)
	require.Eventually(t, func() bool { return lists.left.Load() < math.MaxInt32 }, time.Minute, time.Millisecond)
	require.False(t, l.replica.Current())
	for i := range 5 { // before the node has detected the restore
		var st Started
		require.Eventually(t, func() bool {
			st, err = l.Start(t.Context(), fmt.Sprint("user-", i), Request{})
			return err == nil
		}, time.Minute, 10*time.Millisecond)
		require.NotEqual(t, lease, leaseOfID(t, l, st.Stream).Lease)
	}
	require.True(t, pooled())
	lists.left.Store(1) // the results of the failed list are kept
	require.Eventually(t, l.replica.Current, time.Minute, time.Millisecond)
	assert.Negative(t, lists.left.Load())
	assert.False(t, pooled())
	require.Eventually(t, func() bool { return keysOf(t, l, "maya") == 0 }, time.Minute, 10*time.Millisecond,
		"the slot is free again long before the TTL")
	_, err = l.Heartbeat(t.Context(), "maya", stopped.ID)
	requireEnded(t, err, policy.ReasonStopped)
	_, err = l.Heartbeat(t.Context(), "ben", living.ID)
	require.NoError(t, err, "a viewer who continues keeps the stream")
	assert.Equal(t, 1, keysOf(t, l, "ben"))
}
