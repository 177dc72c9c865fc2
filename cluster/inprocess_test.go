package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
)

func putOf(key, value string, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease},
	}}
}

// Both ways of reaching the server refuse the same requests with the same
// errors: the checks that etcd makes at its gRPC door are not gone around.
func TestInProcess_RefusesWhatGRPCRefuses(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	c, err := Dial(t.Context(), ClientConfig{Endpoints: e.Endpoints()})
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close()) }()
	in := e.InProcess()
	defer func() { assert.NoError(t, in.Watch.Close()) }()
	many := &pb.TxnRequest{}
	for range e.MaxTxnOps() + 1 {
		many.Success = append(many.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: []byte("a")},
		}})
	}
	for name, txn := range map[string]*pb.TxnRequest{
		"duplicateKey": {Success: []*pb.RequestOp{putOf("a", "1", 0), putOf("a", "2", 0)}},
		"nestedDuplicateKey": {Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{putOf("a", "1", 0)}}}},
			{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{putOf("a", "2", 0)}}}},
		}},
		"leaseNotFound": {Success: []*pb.RequestOp{putOf("a", "1", 77)}},
		"emptyKey":      {Success: []*pb.RequestOp{putOf("", "1", 0)}},
		"tooManyOps":    many,
	} {
		t.Run(name, func(t *testing.T) {
			_, errGRPC := clientv3.RetryKVClient(c).Txn(t.Context(), txn)
			_, errHere := in.KV.Txn(t.Context(), txn)
			require.Error(t, errGRPC)
			assert.Equal(t, rpctypes.Error(errGRPC), rpctypes.Error(errHere))
		})
	}
	got, err := c.Get(t.Context(), "a")
	require.NoError(t, err)
	assert.Empty(t, got.Kvs)
}

func TestInProcess_LeasesAndWatches(t *testing.T) {
	before := goleak.IgnoreCurrent()
	e := startEmbedded(t, t.TempDir())
	in := e.InProcess()
	ctx, cancel := context.WithCancel(t.Context())
	events := in.Watch.Watch(ctx, "k", clientv3.WithRev(1))
	_, err := in.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 5, TTL: 60})
	require.NoError(t, err)
	_, err = in.KV.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{putOf("k", "v", 5)}})
	require.NoError(t, err)
	keep, err := in.Lease.LeaseKeepAlive(ctx)
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, keep.Send(&pb.LeaseKeepAliveRequest{ID: 5}))
		resp, err := keep.Recv()
		require.NoError(t, err)
		assert.EqualValues(t, 60, resp.TTL)
	}
	_, err = in.Lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 5})
	require.NoError(t, err)
	var seen []*clientv3.Event
	for len(seen) < 2 {
		seen = append(seen, (<-events).Events...)
	}
	assert.True(t, seen[0].IsCreate())
	assert.Equal(t, clientv3.EventTypeDelete, seen[1].Type)
	_, err = in.Lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 5})
	assert.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrLeaseNotFound)
	cancel()
	_, err = keep.Recv()
	require.Error(t, err)
	require.NoError(t, in.Watch.Close())
	require.NoError(t, e.Close())
	goleak.VerifyNone(t, before)
}

// A call is answered at its caller's deadline, and after Close all fail at once.
func TestInProcess_Ends(t *testing.T) {
	e := startEmbedded(t, t.TempDir())
	in := e.InProcess()
	late, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-late.Done()
	_, err := in.KV.Txn(late, &pb.TxnRequest{Success: []*pb.RequestOp{putOf("k", "v", 0)}})
	require.Error(t, err)
	require.NoError(t, in.Watch.Close())
	require.NoError(t, e.Close())
	began := time.Now()
	_, err = in.KV.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{putOf("k", "v", 0)}})
	require.Error(t, err)
	_, err = in.KV.Range(t.Context(), &pb.RangeRequest{Key: []byte("k")})
	require.Error(t, err)
	assert.Less(t, time.Since(began), 2*time.Second)
}
