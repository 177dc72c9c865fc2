package cluster

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc/status"
)

// ways returns the services of one server in process and through gRPC.
func ways(t *testing.T, e *Embedded) map[string]Calls {
	t.Helper()
	c := dial(t, e.ClientConfig())
	return map[string]Calls{
		"inprocess": e.InProcess(),
		"grpc":      {KV: clientv3.RetryKVClient(c), Lease: clientv3.RetryLeaseClient(c), Watch: c.Watcher},
	}
}

func putOp(key, value string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)},
	}}
}

func txnOp(ops ...*pb.RequestOp) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops}}}
}

func puts(n int) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for i := range n {
		ops = append(ops, putOp(fmt.Sprintf("many/%04d", i), "v"))
	}
	return ops
}

func TestInProcess_RefusesAsGRPCDoes(t *testing.T) {
	e, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: t.TempDir(), QuotaBytes: 4 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	calls := ways(t, e)
	c := calls["inprocess"]
	granted, err := c.Lease.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 60})
	require.NoError(t, err)
	for range 3 {
		_, err = c.KV.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
		require.NoError(t, err)
	}
	_, err = c.KV.Compact(t.Context(), &pb.CompactionRequest{Revision: 3})
	require.NoError(t, err)

	txn := func(ops ...*pb.RequestOp) func(Calls) error {
		return func(c Calls) error {
			_, err := c.KV.Txn(t.Context(), &pb.TxnRequest{Success: ops})
			return err
		}
	}
	put := func(r *pb.PutRequest) func(Calls) error {
		return func(c Calls) error { _, err := c.KV.Put(t.Context(), r); return err }
	}
	read := func(rev int64) func(Calls) error {
		return func(c Calls) error {
			_, err := c.KV.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Revision: rev})
			return err
		}
	}
	grant := func(id, ttl int64) func(Calls) error {
		return func(c Calls) error {
			_, err := c.Lease.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: ttl})
			return err
		}
	}
	revoke := func(c Calls) error {
		_, err := c.Lease.LeaseRevoke(t.Context(), &pb.LeaseRevokeRequest{ID: 4711})
		return err
	}
	large := make([]byte, 1600<<10)
	for _, tc := range []struct {
		name string
		do   func(Calls) error
		want error
	}{
		{"same-key-twice", txn(putOp("twice", "a"), putOp("twice", "b")), rpctypes.ErrDuplicateKey},
		{"same-key-in-nested", txn(txnOp(putOp("twice", "a")), txnOp(putOp("twice", "b"))), rpctypes.ErrDuplicateKey},
		{"too-many-ops", txn(puts(e.MaxTxnOps() + 1)...), rpctypes.ErrTooManyOps},
		{"no-key", put(&pb.PutRequest{}), rpctypes.ErrEmptyKey},
		{"no-such-lease", put(&pb.PutRequest{Key: []byte("k"), Lease: 4711}), rpctypes.ErrLeaseNotFound},
		{"too-large", put(&pb.PutRequest{Key: []byte("k"), Value: large}), rpctypes.ErrRequestTooLarge},
		{"compacted", read(1), rpctypes.ErrCompacted},
		{"future", read(1 << 40), rpctypes.ErrFutureRev},
		{"lease-exists", grant(granted.ID, 60), rpctypes.ErrLeaseExist},
		{"ttl", grant(0, 1<<40), rpctypes.ErrLeaseTTLTooLarge},
		{"revoke", revoke, rpctypes.ErrLeaseNotFound},
		{"fill", fillUp, rpctypes.ErrNoSpace},
		{"grant-when-full", grant(0, 60), rpctypes.ErrNoSpace},
		{"txn-when-full", txn(txnOp(putOp("k", "v"))), rpctypes.ErrNoSpace},
	} {
		t.Run(tc.name, func(t *testing.T) {
			local, remote := tc.do(calls["inprocess"]), tc.do(calls["grpc"])
			require.ErrorIs(t, rpctypes.Error(local), tc.want)
			assert.Equal(t, rpctypes.Error(remote), rpctypes.Error(local))
			assert.ErrorIs(t, fmt.Errorf("wrapped: %w", local), remote)
			assert.Equal(t, status.Code(remote), status.Code(local))
		})
	}
	resp, err := c.KV.Range(t.Context(), &pb.RangeRequest{Key: []byte("twice")})
	require.NoError(t, err)
	assert.Zero(t, resp.Count, "nothing of a refused transaction is written")
}

// fillUp writes until it is refused.
func fillUp(c Calls) error {
	for {
		r := &pb.PutRequest{Key: []byte("big"), Value: make([]byte, 512<<10)}
		if _, err := c.KV.Put(context.Background(), r); err != nil {
			return err
		}
	}
}

func TestInProcess_MaxTxnOps(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t, t.TempDir())
	assert.Equal(t, 2048, e.MaxTxnOps())
	for name, c := range ways(t, e) {
		_, err := c.KV.Txn(t.Context(), &pb.TxnRequest{Success: puts(e.MaxTxnOps())})
		require.NoError(t, err, name)
	}
}

// The server writes the id it chose into the request: a request that is made
// again must not ask for the id of the lease it made before.
func TestInProcess_GrantLeavesTheRequestAlone(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	r := &pb.LeaseGrantRequest{TTL: 60}
	first, err := e.InProcess().Lease.LeaseGrant(t.Context(), r)
	require.NoError(t, err)
	assert.Zero(t, r.ID)
	second, err := e.InProcess().Lease.LeaseGrant(t.Context(), r)
	require.NoError(t, err)
	assert.NotEqual(t, first.ID, second.ID)
	list, err := e.InProcess().Lease.LeaseLeases(t.Context(), &pb.LeaseLeasesRequest{})
	require.NoError(t, err)
	assert.Len(t, list.Leases, 2)
	ttl, err := e.InProcess().Lease.LeaseTimeToLive(t.Context(), &pb.LeaseTimeToLiveRequest{ID: first.ID})
	require.NoError(t, err)
	assert.EqualValues(t, 60, ttl.GrantedTTL)
}

// Reads that are under way when the store closes must not bring the process
// down.
func TestInProcess_CloseUnderLoad(t *testing.T) {
	before := goleak.IgnoreCurrent()
	e := startEmbedded(t, t.TempDir())
	c := e.InProcess()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var begun atomic.Int64
	var callers sync.WaitGroup
	until := func(do func(i int) error) {
		callers.Go(func() {
			for i := 0; ; i++ {
				if err := do(i); err != nil {
					assert.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrStopped)
					return
				}
				begun.Add(1)
			}
		})
	}
	for n := range 8 {
		key := fmt.Appendf(nil, "k%d", n)
		until(func(i int) error {
			_, err := c.KV.Range(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Serializable: i%2 == 0})
			return err
		})
		until(func(int) error {
			_, err := c.KV.Put(ctx, &pb.PutRequest{Key: key, Value: bytes.Repeat([]byte("v"), 100)})
			return err
		})
		until(func(int) error {
			_, err := c.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
			return err
		})
		events := c.Watch.Watch(ctx, string(key), clientv3.WithPrevKV())
		callers.Go(func() {
			for range events { // until closed
			}
		})
	}
	require.Eventually(t, func() bool { return begun.Load() > 500 }, time.Minute, time.Millisecond)
	began := time.Now()
	require.NoError(t, e.Close())
	callers.Wait()
	assert.Less(t, time.Since(began), soon)
	_, open := <-c.Watch.Watch(ctx, "k")
	assert.False(t, open, "no watch after Close")
	goleak.VerifyNone(t, before)
}

func TestInProcess_TheServerDies(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t, t.TempDir())
	c := e.InProcess()
	stream, err := c.Lease.LeaseKeepAlive(t.Context())
	require.NoError(t, err)
	events := c.Watch.Watch(t.Context(), "k")
	e.etcd.Server.HardStop()
	_, err = stream.Recv()
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrStopped)
	for range events { // until closed
	}
	require.ErrorContains(t, <-e.Err(), "embedded etcd")
	_, err = c.KV.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), Serializable: true})
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrStopped)
}

func TestInProcess_Watch(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t, t.TempDir())
	for name, c := range ways(t, e) {
		t.Run(name, func(t *testing.T) {
			key := "watched/" + name
			ctx, cancel := context.WithCancel(t.Context())
			events := c.Watch.Watch(clientv3.WithRequireLeader(ctx), key, clientv3.WithPrevKV(), clientv3.WithCreatedNotify())
			require.True(t, (<-events).Created)
			var rev int64
			for _, value := range []string{"a", "b"} {
				resp, err := c.KV.Put(t.Context(), &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
				require.NoError(t, err)
				rev = resp.Header.Revision
			}
			first, second := <-events, <-events
			assert.Equal(t, "a", string(first.Events[0].Kv.Value))
			assert.Equal(t, "b", string(second.Events[0].Kv.Value))
			assert.Equal(t, "a", string(second.Events[0].PrevKv.Value))
			assert.Equal(t, rev, second.Header.Revision)
			cancel()
			for range events { // until closed
			}

			_, err := c.KV.Compact(t.Context(), &pb.CompactionRequest{Revision: rev})
			require.NoError(t, err)
			old := <-c.Watch.Watch(t.Context(), key, clientv3.WithRev(1))
			require.ErrorIs(t, old.Err(), rpctypes.ErrCompacted)
			assert.Equal(t, rev, old.CompactRevision)
		})
	}
}
