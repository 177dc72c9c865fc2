package shard

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
	"streamcount/lease/bulkend"
	"streamcount/lease/policy"
)

// A write whose outcome is unknown is repeated. The stream has then ended, but this call does
// not count it. While etcd does not answer, the result is not complete.
func TestEndStreams_UnknownOutcomes(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a")
	var faults etcdtest.Faults
	r := faultyNode(t, e, &faults)
	q := bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}}

	first := startOn(t, r, "maya", film("x"))
	faults.CutReply(etcdtest.Txn, 1)
	assert.Equal(t, bulkend.Result{Matched: 1, Users: 1, Complete: true}, endStreams(t, r, q))
	requireReason(t, r, first, policy.ReasonRemoved)

	second := startOn(t, r, "maya", film("x"))
	faults.CutRequest(etcdtest.Txn, 1)
	assert.Equal(t, bulkend.Result{Matched: 1, Users: 1, Ended: 1, Complete: true}, endStreams(t, r, q))
	requireReason(t, r, second, policy.ReasonRemoved)

	startOn(t, r, "maya", film("x"))
	faults.Hold(etcdtest.Txn)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	began := time.Now()
	res, err := r.EndStreams(ctx, q)
	if err == nil { // otherwise the time was not enough to read the replica
		assert.Equal(t, bulkend.Result{Matched: 1, Users: 1}, res)
	} else {
		require.ErrorIs(t, err, lease.ErrUnavailable)
	}
	assert.Less(t, time.Since(began), soon, "the call observes its deadline")
	faults.Heal()
	require.Eventually(t, func() bool {
		res, err := r.EndStreams(t.Context(), q)
		return err == nil && res.Complete
	}, soon, 10*time.Millisecond)
	_, err = r.List(t.Context(), "maya", lease.Linearizable)
	require.ErrorIs(t, err, lease.ErrNoStreams)
}

// faultyNode starts a router on one shard with faults between it and etcd.
func faultyNode(t *testing.T, e etcds, faults *etcdtest.Faults) *Router {
	t.Helper()
	r, err := New(Config{
		Shards: e.shards("a"), TTL: lease.DefaultTTL, Log: slog.New(slog.DiscardHandler),
		Open: func(_ context.Context, s Shard, _ bool) (*Connection, error) {
			l, err := lease.New(lease.FromClient(etcdtest.FaultyClient(t, s.Endpoints, faults)),
				lease.Config{Limit: 3, Secret: []byte(testID), Timeout: 10 * time.Second})
			return &Connection{Limiter: l}, err
		},
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		faults.Heal()
		stop()
		require.NoError(t, <-done)
	})
	select {
	case <-r.Ready():
	case <-time.After(soon):
		require.Fail(t, "not ready")
	}
	return r
}
