package lease

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/longtest"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// leaseOfID is the lease that a stream's id names.
func leaseOfID(t *testing.T, l *Limiter, s Stream) streamid.ID {
	t.Helper()
	who, err := l.ids.Parse(s.User, s.ID)
	require.NoError(t, err)
	return who
}

// The lease of a stopped stream is reused for a stream of another user, and then for the
// first user's next stream in the same slot. Late calls for the previous streams do not
// affect the current one.
func TestLeaseReuse_LateCallsDoNotAffectTheNewStream(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	user, old := "maya", []Stream{mustStart(t, l, "maya", Request{}).Stream}
	for range 6 {
		last := old[len(old)-1]
		_, err := l.Stop(t.Context(), last.User, last.ID)
		require.NoError(t, err)
		if user == "maya" {
			user = "ben"
		} else {
			user = "maya"
		}
		next := mustStart(t, l, user, Request{}).Stream
		require.Equal(t, leaseOfID(t, l, last).Lease, leaseOfID(t, l, next).Lease, "the lease was reused")
		for _, node := range []*Limiter{l, other} {
			for _, gone := range old {
				_, err := node.Stop(t.Context(), gone.User, gone.ID)
				requireEnded(t, err, policy.ReasonStopped)
				_, err = node.Heartbeat(t.Context(), gone.User, gone.ID)
				requireEnded(t, err, policy.ReasonStopped)
			}
			s, err := node.Heartbeat(t.Context(), user, next.ID)
			require.NoError(t, err)
			assert.False(t, s.Degraded)
		}
		old = append(old, next)
	}
	assert.EqualValues(t, 6, l.pool.Moves().Reused)
}

// A stop without a response is repeated later, when another stream may have its lease.
// The repetition does not end that stream.
func TestLeaseReuse_RepeatedStop(t *testing.T) {
	r := newFaultyLimiter(t, Config{Limit: 3})
	other := newLimiter(t, r.direct, Config{Limit: 3})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	mustStart(t, other, "ben", Request{})                // so that it has granted a lease of its TTL
	_, err := other.Heartbeat(t.Context(), "maya", s.ID) // so that it may reuse the lease
	require.NoError(t, err)
	release := r.faults.Hold(etcdtest.Txn)
	_, err = r.Stop(shortCall(t), "maya", s.ID)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = other.Stop(t.Context(), "maya", s.ID) // the user repeats the stop on another node
	require.NoError(t, err)
	next := mustStart(t, other, "maya", Request{}).Stream
	require.Equal(t, leaseOfID(t, other, s).Lease, leaseOfID(t, other, next).Lease)
	release()
	require.Eventually(t, func() bool { return r.cleaner.Queued() == 0 }, time.Minute, 10*time.Millisecond)
	mustStart(t, r.Limiter, "eve", Request{}) // the faulty node reaches etcd again
	for range 20 {
		require.Equal(t, 1, keysOf(t, other, "maya"))
		<-time.After(20 * time.Millisecond)
	}
	got, err := other.Heartbeat(t.Context(), "maya", next.ID)
	require.NoError(t, err)
	assert.False(t, got.Degraded)
}

// A node does not reuse a lease that it has not renewed itself.
func TestLeaseReuse_OnlyLeasesRenewedByThisNode(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 3})
	other := newLimiter(t, c, Config{Limit: 3})
	s := mustStart(t, other, "maya", Request{}).Stream
	_, err := l.Stop(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	for range 20 {
		next := mustStart(t, l, "ben", Request{}).Stream
		require.NotEqual(t, leaseOfID(t, l, s).Lease, leaseOfID(t, l, next).Lease)
		_, err := l.Stop(t.Context(), "ben", next.ID)
		require.NoError(t, err)
	}
	requireStreamLeases(t, c, 0, l, other)
}

// deposed responds as a leader that has been replaced and has not observed it: in an older
// term, and that the leases have expired.
type deposed struct {
	pb.LeaseClient
	behind uint64 // terms
}

func (d deposed) LeaseTimeToLive(
	ctx context.Context, r *pb.LeaseTimeToLiveRequest, o ...grpc.CallOption,
) (*pb.LeaseTimeToLiveResponse, error) {
	resp, err := d.LeaseClient.LeaseTimeToLive(ctx, r, o...)
	if err == nil {
		resp.TTL = -3
		resp.Header.RaftTerm -= d.behind
	}
	return resp, err
}

func TestLeaseStatus_IgnoresADeposedLeader(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	for behind, admits := range map[uint64]bool{1: false, 0: true} {
		e := FromClient(c)
		e.Lease = deposed{e.Lease, behind}
		l := runLimiter(t, e, Config{Prefix: prefix, Limit: 1})
		user := map[bool]string{true: "maya", false: "ben"}[admits]
		living := mustStart(t, l, user, Request{}).Stream
		ctx := t.Context()
		if !admits {
			ctx = shortCall(t)
		}
		_, err := l.Start(ctx, user, Request{})
		if admits {
			require.NoError(t, err, "the status from the current leader counts")
			continue
		}
		require.ErrorIs(t, err, ErrUnavailable, "the status is unknown: the start is neither refused nor does it evict")
		_, err = l.Heartbeat(t.Context(), user, living.ID)
		require.NoError(t, err)
	}
}

// Nodes with different TTLs, as during a change of the configuration: a lease is renewed
// at the interval of the TTL of its stream, and is not reused for a stream with another
// TTL.
func TestNodesOfDifferentTTL(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	before := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: MinTTL})
	after := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: 10 * MinTTL})
	s := mustStart(t, before, "maya", Request{}).Stream
	for began := time.Now(); time.Since(began) < 2*MinTTL; {
		got, err := after.Heartbeat(t.Context(), "maya", s.ID)
		require.NoError(t, err, "after %v", time.Since(began))
		if !got.Degraded { // as on a slow machine: it has the TTL of the node
			require.Equal(t, MinTTL, got.TTL)
		}
		<-time.After(200 * time.Millisecond)
	}
	_, err := after.Stop(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	for range 10 {
		next := mustStart(t, after, "ben", Request{}).Stream
		require.NotEqual(t, leaseOfID(t, after, s).Lease, leaseOfID(t, after, next).Lease)
		require.Equal(t, 10*MinTTL, next.TTL)
		_, err := after.Stop(t.Context(), "ben", next.ID)
		require.NoError(t, err)
	}
}
