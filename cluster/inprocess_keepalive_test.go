package cluster

import (
	"bytes"
	"context"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func grantLease(t *testing.T, c pb.LeaseClient, ttl int64) int64 {
	t.Helper()
	var resp *pb.LeaseGrantResponse
	require.Eventually(t, func() bool { // on a slow machine etcd may not answer within the timeout of calls
		var err error
		resp, err = c.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: ttl})
		return err == nil
	}, soon, 10*time.Millisecond)
	return resp.ID
}

func TestInProcess_KeepAlivesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t, t.TempDir())
	for name, c := range ways(t, e) {
		t.Run(name, func(t *testing.T) {
			ids := []int64{grantLease(t, c.Lease, 60), 4711, grantLease(t, c.Lease, 90)}
			ttls := map[int64]int64{ids[0]: 60, ids[1]: 0, ids[2]: 90}
			stream, err := c.Lease.LeaseKeepAlive(t.Context())
			require.NoError(t, err)
			const n = 2000 // more than fit into the buffers
			sent := make(chan error, 1)
			go func() {
				r := &pb.LeaseKeepAliveRequest{}
				for i := range n {
					r.ID = ids[i%len(ids)] // may be used again at once
					if err := stream.Send(r); err != nil {
						sent <- err
						return
					}
				}
				sent <- stream.CloseSend()
			}()
			for i := range n {
				resp, err := stream.Recv()
				require.NoError(t, err)
				require.Equal(t, ids[i%len(ids)], resp.ID)
				require.Equal(t, ttls[resp.ID], resp.TTL)
				require.NotZero(t, resp.Header.Revision)
			}
			require.NoError(t, <-sent)
			require.NoError(t, stream.CloseSend(), "twice")
			_, err = stream.Recv()
			require.ErrorIs(t, err, io.EOF, "the end after CloseSend")
			require.Error(t, stream.Send(&pb.LeaseKeepAliveRequest{ID: 1}))
		})
	}
}

func TestInProcess_KeepAliveEndsWithItsContext(t *testing.T) {
	before := goleak.IgnoreCurrent()
	e := startEmbedded(t, t.TempDir())
	lease := e.InProcess().Lease
	ctx, cancel := context.WithCancel(t.Context())
	_, err := lease.LeaseKeepAlive(ctx)
	require.NoError(t, err)
	stream, err := lease.LeaseKeepAlive(ctx)
	require.NoError(t, err)
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err = stream.Recv()
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, codes.Canceled, status.Code(err))
	require.Eventually(t, func() bool {
		return stream.Send(&pb.LeaseKeepAliveRequest{ID: 1}) == io.EOF //nolint:errorlint // as gRPC: io.EOF itself
	}, time.Minute, time.Millisecond)
	_, err = lease.LeaseKeepAlive(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Eventually(t, func() bool { return !running("leaseKeepAlive") }, time.Minute, time.Millisecond,
		"the server has left both streams")

	stream, err = lease.LeaseKeepAlive(t.Context())
	require.NoError(t, err)
	time.AfterFunc(20*time.Millisecond, func() { assert.NoError(t, e.Close()) })
	_, err = stream.Recv()
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrStopped)
	_, err = lease.LeaseKeepAlive(t.Context())
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrStopped)
	goleak.VerifyNone(t, before)
}

// running reports whether a goroutine is in a function of that name.
func running(function string) bool {
	stacks := make([]byte, 4<<20)
	return bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte(function+"("))
}

// A caller that sends and does not receive is blocked until the end of the stream.
func TestInProcess_KeepAliveHoldsBackWhoDoesNotReceive(t *testing.T) {
	before := goleak.IgnoreCurrent()
	e := startEmbedded(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	stream, err := e.InProcess().Lease.LeaseKeepAlive(ctx)
	require.NoError(t, err)
	id := grantLease(t, e.InProcess().Lease, 60)
	ended := make(chan error, 1)
	go func() {
		for {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
				ended <- err
				return
			}
		}
	}()
	s := stream.(*localKeepAlive)
	require.Eventually(t, func() bool {
		return len(s.replies) == cap(s.replies) && len(s.requests) == cap(s.requests)
	}, time.Minute, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, io.EOF)
	require.NoError(t, e.Close())
	goleak.VerifyNone(t, before)
}
