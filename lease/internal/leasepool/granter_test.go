package leasepool

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// leaseTable is an etcd that grants each id once. It is shared by several nodes.
type leaseTable struct {
	pb.LeaseClient
	granted map[int64]bool
	lost    bool // the next response
	revoked []int64
}

func (e *leaseTable) LeaseGrant(_ context.Context, in *pb.LeaseGrantRequest, _ ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
	if e.granted[in.ID] {
		return nil, rpctypes.ErrGRPCLeaseExist
	}
	e.granted[in.ID] = true
	if e.lost {
		e.lost = false
		return nil, context.DeadlineExceeded
	}
	return &pb.LeaseGrantResponse{ID: in.ID, TTL: in.TTL}, nil
}

func (e *leaseTable) LeaseRevoke(_ context.Context, in *pb.LeaseRevokeRequest, _ ...grpc.CallOption) (*pb.LeaseRevokeResponse, error) {
	e.revoked = append(e.revoked, in.ID)
	return &pb.LeaseRevokeResponse{}, nil
}

// A node whose ids are in use takes others, and revokes only a lease whose grant was not
// answered.
func TestGranter_IDs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	etcd := &leaseTable{granted: map[int64]bool{}}
	cleaner := NewCleaner(time.Minute, slog.New(slog.DiscardHandler))
	first, second := NewGranter(etcd, time.Second, cleaner), NewGranter(etcd, time.Second, cleaner)
	assert.NotEqual(t, first.lastID.Load(), second.lastID.Load())
	second.lastID.Store(first.lastID.Load())
	owners := map[int64]*Granter{}
	for _, g := range []*Granter{first, first, second, first, second, second, first} {
		l, err := g.Grant(ctx, time.Minute)
		require.NoError(t, err)
		require.Positive(t, l.ID)
		require.NotContains(t, owners, l.ID, "one lease of two nodes")
		owners[l.ID] = g
	}
	etcd.lost = true
	_, err := first.Grant(ctx, time.Minute)
	require.Error(t, err)
	cancel()
	require.NoError(t, cleaner.Run(ctx)) // the last attempts
	assert.Equal(t, []int64{first.lastID.Load()}, etcd.revoked)
}
