package lease

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/userdata"
)

// eraseKV calls before once, with the first transaction that deletes and returns keys.
type eraseKV struct {
	pb.KVClient
	before func()
	called atomic.Bool
}

func (k *eraseKV) Txn(ctx context.Context, t *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	erases := slices.ContainsFunc(t.Success, func(op *pb.RequestOp) bool { return op.GetRequestDeleteRange().GetPrevKv() })
	if erases && k.called.CompareAndSwap(false, true) {
		k.before()
	}
	return k.KVClient.Txn(ctx, t, o...)
}

// An erasure releases the leases of the streams that it has ended to the pool. It does not
// release the lease of a stream that another node has stopped in the meantime, because that
// node may give the lease to another stream.
func TestErase_ReleasesItsOwnLeases(t *testing.T) {
	t.Parallel()
	cfg := Config{Prefix: etcdtest.Prefix(t), Limit: 3, TTL: 10 * time.Minute}
	on := FromClient(etcdtest.Client(t))
	kv := &eraseKV{KVClient: on.KV}
	on.KV = kv
	l, other := runLimiter(t, on, cfg), newLimiter(t, etcdtest.Client(t), cfg)
	stopped, erased := mustStart(t, l, "maya", Request{}).Stream, mustStart(t, l, "maya", Request{}).Stream
	// The replica has the times of the renewals, without which no lease is reused.
	require.Eventually(t, func() bool { return l.replica.WaitOwnWrites(t.Context()) }, soon, time.Millisecond)
	kv.before = func() {
		_, err := other.Stop(t.Context(), "maya", stopped.ID)
		require.NoError(t, err)
	}
	got, err := l.UserData().Erase(t.Context(), "maya", userdata.Options{})
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{Streams: 1}, got)
	require.True(t, kv.called.Load())
	ready, _ := l.pool.IDs()
	assert.Contains(t, ready, leaseOfID(t, l, erased).Lease)
	assert.NotContains(t, ready, leaseOfID(t, l, stopped).Lease)
}
