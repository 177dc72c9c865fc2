package lease

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/policy"
)

// signedOutKV is an etcd that rejects the password of this node.
type signedOutKV struct {
	etcdserverpb.KVClient
	out  atomic.Bool
	txns atomic.Int32
}

func (k *signedOutKV) Txn(ctx context.Context, r *etcdserverpb.TxnRequest, o ...grpc.CallOption) (*etcdserverpb.TxnResponse, error) {
	if k.out.Load() {
		k.txns.Add(1)
		return nil, rpctypes.ErrGRPCAuthFailed
	}
	return k.KVClient.Txn(ctx, r, o...)
}

// While etcd rejects the password of a node, a start fails at once. Retries until its
// deadline would keep many requests open.
func TestStart_DoesNotRetryAuthFailure(t *testing.T) {
	on := FromClient(etcdtest.Client(t))
	kv := &signedOutKV{KVClient: on.KV}
	on.KV = kv
	l := runLimiter(t, on, Config{Prefix: etcdtest.Prefix(t), Limit: 1, Timeout: time.Minute})
	kv.out.Store(true)
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	assert.True(t, etcdop.IsAuthFailure(err))
	assert.EqualValues(t, 1, kv.txns.Load())
	kv.out.Store(false)
	mustStart(t, l, "maya", Request{})
}

// A start whose transaction failed has read the user's streams, but not their limit. It is
// not rejected by a limit that has been raised since.
func TestStart_DoesNotRejectByAStaleLimit(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 1})
	other := newLimiter(t, r.direct, Config{Prefix: r.cfg.Prefix, Limit: 1})
	release := r.faults.HoldReply(etcdtest.Watch)
	defer release()
	three := 3
	_, err := other.Rules().SetOverride(t.Context(), "maya", policy.Override{Limit: &three})
	require.NoError(t, err)
	mustStart(t, other, "maya", Request{})
	entries, _, current := r.replica.UserEntries("maya")
	require.True(t, current, "the replica counts as current")
	require.Empty(t, entries)
	st, err := r.Start(t.Context(), "maya", Request{})
	require.NoError(t, err)
	assert.Equal(t, 2, st.Count)
	assert.Equal(t, 3, st.Limit)
}

// A client that reports the same device or content in each start has at most MaxStreams
// streams.
func TestMaxStreams(t *testing.T) {
	t.Parallel()
	for name, plan := range map[string]policy.Plan{
		"devices": {Limit: 1, Count: policy.CountDevices}, "content": {Limit: 1, Count: policy.CountContent},
		"replacing": {Limit: 1, Count: policy.CountDevices, OnLimit: policy.ReplaceOldest},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, MaxStreams: 4, Cooldown: time.Minute})
			_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, plan)
			require.NoError(t, err)
			r := Request{Device: Device{ID: "d"}, Content: Content{ID: "c"}}
			for range 4 {
				_, err := l.Start(t.Context(), "maya", r)
				require.NoError(t, err)
			}
			_, err = l.Start(t.Context(), "maya", r)
			require.ErrorIs(t, err, ErrLimit)
			u, err := l.List(t.Context(), "maya", Linearizable)
			require.NoError(t, err)
			assert.Equal(t, 4, u.Count)
		})
	}
	_, err := New(Etcd{}, Config{MaxStreams: policy.MaxLimit + 1, Secret: make([]byte, 32)})
	require.Error(t, err)
}
