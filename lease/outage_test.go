package lease

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"streamcount/internal/testing/etcdsim"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/breaker"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

const soon = time.Minute

func awaitBreaker(t *testing.T, open bool, nodes ...*Limiter) {
	t.Helper()
	for _, l := range nodes {
		require.Eventually(t, func() bool { return l.breaker.IsOpen() == open }, soon, time.Millisecond, "open: %v", open)
	}
}

// While etcd does not answer, the breaker opens: calls fail at once, and heartbeats are
// degraded. The node continues when etcd answers again.
func TestBreaker_DeadEtcd(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	l := newLimiter(t, m.Client(t), Config{Limit: 3, Timeout: 10 * time.Second})
	st := mustStart(t, l, "maya", Request{})
	m.Stop()
	awaitBreaker(t, true, l)
	requireBreakerOpen := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, breaker.ErrOpen)
	}
	_, err := l.Start(t.Context(), "maya", Request{})
	requireBreakerOpen(err)
	_, err = l.List(t.Context(), "maya", Linearizable)
	requireBreakerOpen(err)
	_, err = l.Stop(t.Context(), "ben", l.ids.Sign("ben", streamid.ID{Lease: 7}))
	requireBreakerOpen(err)
	_, err = l.Heartbeat(t.Context(), "maya", st.Stream.ID)
	require.NoError(t, err)

	m.Restart(t)
	awaitBreaker(t, false, l)
	require.Eventually(t, func() bool {
		s, err := l.Heartbeat(t.Context(), "maya", st.Stream.ID)
		return err == nil && !s.Degraded
	}, soon, time.Millisecond)
	_, err = l.Start(t.Context(), "maya", Request{})
	require.NoError(t, err)
}

// While etcd does not answer, two nodes admit starts by their replicas. When it answers
// again, as many streams continue as the limit allows, and the others are evicted.
func TestOutage_Admit(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	cfg := Config{Limit: 3, Outage: OutageAdmit, Timeout: 10 * time.Second}
	one, two := newLimiter(t, m.Client(t), cfg), newLimiter(t, m.Client(t), cfg)
	nodes := []*Limiter{one, two}
	film := Content{ID: "film-77"}
	kept := mustStart(t, one, "maya", Request{Content: film})
	require.Eventually(t, func() bool {
		u, err := two.List(t.Context(), "maya", Bounded)
		return err == nil && u.Count == 1
	}, soon, time.Millisecond)
	m.Stop()
	awaitBreaker(t, true, nodes...)
	require.Eventually(t, func() bool {
		s, err := two.Heartbeat(t.Context(), "maya", kept.Stream.ID)
		require.NoError(t, err)
		want := kept.Stream
		want.ExpiresAt, want.TTL, want.Degraded = time.Time{}, s.TTL, true
		return s.Degraded && assert.Equal(t, want, s, "the stream as this node saw it last")
	}, soon, time.Millisecond)

	ids := map[string]*Limiter{}
	for _, l := range nodes {
		for want := 2; want <= 3; want++ {
			st := mustStart(t, l, "maya", Request{Content: film})
			assert.True(t, st.Stream.Degraded)
			assert.Equal(t, want, st.Count)
			ids[st.Stream.ID] = l
		}
		_, err := l.Start(t.Context(), "maya", Request{})
		var full *LimitError
		require.ErrorAs(t, err, &full, "each node counts what it has admitted")
		assert.Len(t, full.Active, 3)
	}
	stopped := mustStart(t, one, "ben", Request{})
	again, err := one.Start(t.Context(), "ben", Request{Session: "s"})
	require.NoError(t, err)
	moved, err := one.Start(t.Context(), "ben", Request{Session: "s"})
	require.NoError(t, err)
	_, err = one.Stop(t.Context(), "ben", stopped.Stream.ID)
	require.NoError(t, err)
	for id, l := range ids {
		s, err := l.Heartbeat(t.Context(), "maya", id)
		require.NoError(t, err)
		assert.True(t, s.Degraded)
		assert.Equal(t, film, s.Content)
	}

	m.Restart(t)
	awaitBreaker(t, false, nodes...)
	for _, l := range nodes {
		require.Eventually(t, func() bool { return len(l.provisional.All()) == 0 }, soon, time.Millisecond)
	}
	u, err := one.List(t.Context(), "maya", Linearizable)
	require.NoError(t, err)
	assert.Equal(t, 3, u.Count, "never more than the limit in etcd")
	alive, over := 0, 0
	for id, l := range ids {
		_, err := l.Heartbeat(t.Context(), "maya", id)
		var ended *EndedError
		switch {
		case err == nil:
			alive++
		case errors.As(err, &ended) && ended.Reason == policy.ReasonEvicted:
			over++
		default:
			require.NoError(t, err)
		}
	}
	assert.Equal(t, []int{2, 2}, []int{alive, over})
	require.Eventually(t, func() bool { // on a slow machine the first renewals may be late
		s, err := one.Heartbeat(t.Context(), "maya", kept.Stream.ID)
		require.NoError(t, err, "an earlier stream is not affected")
		return !s.Degraded
	}, soon, time.Millisecond)

	u, err = two.List(t.Context(), "ben", Linearizable)
	require.NoError(t, err)
	require.Len(t, u.Active, 1, "the one that took over")
	assert.Equal(t, moved.Stream.ID, u.Active[0].ID)
	assert.NotEqual(t, again.Stream.ID, moved.Stream.ID)
	_, err = two.Stop(t.Context(), "ben", moved.Stream.ID)
	require.NoError(t, err, "it is an ordinary stream")
}

// A node that has never read etcd admits no stream.
func TestOutage_EmptyReplicaAdmitsNoStream(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	l, err := New(FromClient(m.Client(t)), Config{Limit: 3, Outage: OutageAdmit, Secret: testSecret})
	require.NoError(t, err)
	m.Stop()
	go func() { _ = l.breaker.Run(t.Context()) }()
	awaitBreaker(t, true, l)
	_, err = l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, breaker.ErrOpen)
}

// lostGrant loses the response to the first grant of a lease.
type lostGrant struct {
	pb.LeaseClient
	id atomic.Int64
}

func (g *lostGrant) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest, opts ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
	resp, err := g.LeaseClient.LeaseGrant(ctx, r, opts...)
	if g.id.CompareAndSwap(r.ID, 0) {
		return nil, status.Error(codes.Unavailable, "the connection broke")
	}
	return resp, err
}

// If etcd has granted the lease of a provisional stream without answering, the TTL of the
// stream began with that grant, and not with the attempt that finds the lease.
func TestOutage_GrantIsNotAnswered(t *testing.T) {
	t.Parallel()
	etcdsim.Bubble(t, func(t *testing.T) {
		t.Helper()
		etcd := etcdsim.New()
		link := &etcdsim.Link{Etcd: etcd}
		g := &lostGrant{LeaseClient: link.Lease()}
		l := runLimiter(t, Etcd{KV: link.KV(), Lease: g, Watch: link.Watcher()},
			Config{Prefix: "/p", Limit: 1, Timeout: 3 * time.Second, Outage: OutageAdmit})
		link.Cut(true)
		awaitBreaker(t, true, l)
		st := mustStart(t, l, "maya", Request{}).Stream
		require.True(t, st.Degraded)
		lease := l.provisional.All()[0].Entry.Lease
		g.id.Store(lease)
		link.Cut(false)
		require.Eventually(t, func() bool { return len(l.provisional.All()) == 0 && l.replica.Current() }, soon, time.Millisecond)
		st, err := l.Heartbeat(t.Context(), "maya", st.ID)
		require.NoError(t, err)
		require.False(t, st.Degraded)
		assert.Zero(t, g.id.Load(), "the response to a grant was lost")
		assert.False(t, st.ExpiresAt.After(etcd.LastRenewal(lease).Add(st.TTL)), "it expires %v before the time in the answer",
			st.ExpiresAt.Sub(etcd.LastRenewal(lease).Add(st.TTL)))
	})
}
