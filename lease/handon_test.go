package lease

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"streamcount/internal/etcdtest"
)

// leaseOfID is the lease that a stream's id names.
func leaseOfID(t *testing.T, l *Limiter, s Stream) ident {
	t.Helper()
	who, err := l.ids.open(s.User, s.ID)
	require.NoError(t, err)
	return who
}

// A lease goes from a stream that was stopped to another user's, and then to the
// first user's next one in the same slot. Nothing that still comes from a stream
// that had it before touches the one that has it.
func TestHandOn_LateCallsTouchNothing(t *testing.T) {
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
		require.Equal(t, leaseOfID(t, l, last).lease, leaseOfID(t, l, next).lease, "the lease was handed on")
		for _, node := range []*Limiter{l, other} {
			for _, gone := range old {
				_, err := node.Stop(t.Context(), gone.User, gone.ID)
				requireEnded(t, err, ReasonStopped)
				_, err = node.Heartbeat(t.Context(), gone.User, gone.ID)
				requireEnded(t, err, ReasonStopped)
			}
			s, err := node.Heartbeat(t.Context(), user, next.ID)
			require.NoError(t, err)
			assert.False(t, s.Degraded)
		}
		old = append(old, next)
	}
	assert.EqualValues(t, 6, l.pool.book.stats().handedOn)
}

// A stop whose answer never came is carried out later, when its lease may be
// another stream's: that one lives on.
func TestHandOn_AStopThatComesLate(t *testing.T) {
	r := newRig(t, Config{Limit: 3, Timeout: 300 * time.Millisecond})
	other := newLimiter(t, r.honest, Config{Limit: 3})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	release := r.faults.Hold(etcdtest.Txn)
	_, err := r.Stop(t.Context(), "maya", s.ID)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = other.Stop(t.Context(), "maya", s.ID) // the user presses again, on another node
	require.NoError(t, err)
	g := granted{lease: leaseOfID(t, other, s).lease, ttl: testTTL, renewed: time.Now()}
	other.pool.book.mu.Lock()
	other.pool.book.waiting = append(other.pool.book.waiting, g) // as if it had renewed it
	other.pool.book.spent = nil
	other.pool.book.mu.Unlock()
	next := mustStart(t, other, "maya", Request{}).Stream
	require.Equal(t, g.lease, leaseOfID(t, other, next).lease)
	release()
	require.Eventually(t, func() bool { return len(r.cleaner.queue) == 0 }, time.Minute, 10*time.Millisecond)
	mustStart(t, r.Limiter, "eve", Request{}) // the faulty node reaches etcd again
	for range 20 {
		require.Equal(t, 1, keysOf(t, other, "maya"))
		<-time.After(20 * time.Millisecond)
	}
	got, err := other.Heartbeat(t.Context(), "maya", next.ID)
	require.NoError(t, err)
	assert.False(t, got.Degraded)
}

// What this node does not know to be fresh it never hands on.
func TestHandOn_OnlyWhatThisNodeRenewed(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 3})
	other := newLimiter(t, c, Config{Limit: 3})
	s := mustStart(t, other, "maya", Request{}).Stream
	_, err := l.Stop(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	for range 20 {
		next := mustStart(t, l, "ben", Request{}).Stream
		require.NotEqual(t, leaseOfID(t, l, s).lease, leaseOfID(t, l, next).lease)
		_, err := l.Stop(t.Context(), "ben", next.ID)
		require.NoError(t, err)
	}
	requireStreamLeases(t, c, 0, l, other)
}

// deposed answers for leases as a leader does that was voted out and has not
// heard of it: in an older term, and that they have run out.
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

func TestLapsed_IsNotBelievedOfADeposedLeader(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	for behind, admits := range map[uint64]bool{1: false, 0: true} {
		e := Over(c)
		e.Lease = deposed{e.Lease, behind}
		l := runLimiter(t, e, Config{Prefix: prefix, Limit: 1})
		user := map[bool]string{true: "maya", false: "ben"}[admits]
		living := mustStart(t, l, user, Request{}).Stream
		_, err := l.Start(t.Context(), user, Request{})
		if admits {
			require.NoError(t, err, "the leader in office is believed")
			continue
		}
		require.ErrorIs(t, err, ErrUnavailable, "nobody knows; neither refused nor evicted")
		_, err = l.Heartbeat(t.Context(), user, living.ID)
		require.NoError(t, err)
	}
}

// Nodes with another TTL, as in the middle of a change of the configuration: the
// stream's own TTL says how often its lease is renewed, and its lease goes to no
// stream that is told another.
func TestNodesOfDifferentTTL(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	before := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: MinTTL})
	after := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: 10 * MinTTL})
	s := mustStart(t, before, "maya", Request{}).Stream
	for began := time.Now(); time.Since(began) < 2*MinTTL; {
		got, err := after.Heartbeat(t.Context(), "maya", s.ID)
		require.NoError(t, err, "after %v", time.Since(began))
		require.Equal(t, MinTTL, got.TTL)
		<-time.After(200 * time.Millisecond)
	}
	_, err := after.Stop(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	for range 10 {
		next := mustStart(t, after, "ben", Request{}).Stream
		require.NotEqual(t, leaseOfID(t, after, s).lease, leaseOfID(t, after, next).lease)
		require.Equal(t, 10*MinTTL, next.TTL)
		_, err := after.Stop(t.Context(), "ben", next.ID)
		require.NoError(t, err)
	}
}
