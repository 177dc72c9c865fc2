package etcdtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"streamcount/internal/testing/etcdtest"
)

func TestFaults_CutRequestIsNotApplied(t *testing.T) {
	var f etcdtest.Faults
	c, key := faulty(t, &f), etcdtest.Prefix(t)
	f.CutRequest(etcdtest.Txn, 2)
	for range 2 {
		_, err := c.Txn(t.Context()).Then(clientv3.OpPut(key, "lost")).Commit()
		require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	}
	assert.Zero(t, count(t, key))
	_, err := c.Txn(t.Context()).Then(clientv3.OpPut(key, "v")).Commit()
	require.NoError(t, err, "the cut is over")
	assert.Equal(t, 3, f.Calls(etcdtest.Txn))
}

func TestFaults_CutReplyIsApplied(t *testing.T) {
	var f etcdtest.Faults
	c, key := faulty(t, &f), etcdtest.Prefix(t)
	f.CutReply(etcdtest.Put, 1)
	_, err := c.Put(t.Context(), key, "landed")
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)
	assert.EqualValues(t, 1, count(t, key))
	_, err = c.Put(t.Context(), key, "v")
	require.NoError(t, err)
}

func TestFaults_ReadsAreRepeatedByTheClient(t *testing.T) {
	var f etcdtest.Faults
	c := faulty(t, &f)
	f.CutRequest(etcdtest.Range, 1)
	_, err := c.Get(t.Context(), "k")
	require.NoError(t, err)
	assert.Equal(t, 2, f.Calls(etcdtest.Range))
}

func TestFaults_Hold(t *testing.T) {
	var f etcdtest.Faults
	c, key := faulty(t, &f), etcdtest.Prefix(t)
	release := f.Hold(etcdtest.Put)
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), key, "v")
		done <- err
	}()
	require.Eventually(t, func() bool { return f.Held(etcdtest.Put) == 1 }, time.Minute, time.Millisecond)
	assert.Zero(t, count(t, key))
	release()
	release() // harmless
	require.NoError(t, <-done)
	assert.EqualValues(t, 1, count(t, key))
	assert.Zero(t, f.Held(etcdtest.Put))

	f.Hold(etcdtest.Put)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := c.Put(ctx, key, "v")
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestFaults_HoldReplyAndHeal(t *testing.T) {
	var f etcdtest.Faults
	c, key := faulty(t, &f), etcdtest.Prefix(t)
	f.HoldReply(etcdtest.Put)
	f.CutRequest(etcdtest.Grant, 1)
	done := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), key, "v")
		done <- err
	}()
	require.Eventually(t, func() bool { return f.Held(etcdtest.Put) == 1 }, time.Minute, time.Millisecond)
	assert.EqualValues(t, 1, count(t, key), "held after it was applied")
	f.Heal()
	require.NoError(t, <-done)
	_, err := c.Grant(t.Context(), 10)
	require.NoError(t, err)
}

func TestFaults_KeepAliveStream(t *testing.T) {
	var f etcdtest.Faults
	c := faulty(t, &f)
	lease, err := c.Grant(t.Context(), 60)
	require.NoError(t, err)
	req := &pb.LeaseKeepAliveRequest{ID: int64(lease.ID)}

	f.CutRequest(etcdtest.KeepAlive, 1)
	s := openKeepAlive(t, c)
	require.Equal(t, codes.Unavailable, status.Code(s.Send(req)))
	_, err = s.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err), "the stream has ended: %v", err)

	f.CutReply(etcdtest.KeepAlive, 1)
	s = openKeepAlive(t, c)
	require.NoError(t, s.Send(req))
	_, err = s.Recv()
	require.Equal(t, codes.Unavailable, status.Code(err), "%v", err)

	release := f.HoldReply(etcdtest.KeepAlive)
	s = openKeepAlive(t, c)
	require.NoError(t, s.Send(req))
	got := make(chan error, 1)
	go func() {
		_, err := s.Recv()
		got <- err
	}()
	require.Eventually(t, func() bool { return f.Held(etcdtest.KeepAlive) == 1 },
		time.Minute, time.Millisecond)
	assert.Empty(t, got)
	release()
	require.NoError(t, <-got)
}

func openKeepAlive(t *testing.T, c *clientv3.Client) pb.Lease_LeaseKeepAliveClient {
	t.Helper()
	s, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(t.Context())
	require.NoError(t, err)
	return s
}

func faulty(t *testing.T, f *etcdtest.Faults) *clientv3.Client {
	t.Helper()
	return etcdtest.FaultyClient(t, etcdtest.Endpoints(t), f)
}

// count asks through a client without faults.
func count(t *testing.T, key string) int64 {
	t.Helper()
	resp, err := etcdtest.Client(t).Get(t.Context(), key, clientv3.WithCountOnly())
	require.NoError(t, err)
	return resp.Count
}
