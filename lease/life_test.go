package lease

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/etcdtest"
)

func TestHeartbeat_KeepsAStreamAndSilenceEndsIt(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, TTL: MinTTL})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, TTL: MinTTL})
	began := time.Now()
	silent := mustStart(t, l, "maya", Request{}).Stream
	alive := mustStart(t, l, "maya", Request{}).Stream

	var freed time.Duration
	for beats := 0; time.Since(began) < 2*MinTTL; beats++ {
		sent := time.Now()
		s, err := other.Heartbeat(t.Context(), "maya", alive.ID)
		require.NoError(t, err, "beat %d", beats)
		require.False(t, s.Degraded)
		require.WithinRange(t, s.ExpiresAt, sent.Add(MinTTL*3/4), time.Now().Add(MinTTL))
		if n := keysOf(t, l, "maya"); n == 1 && freed == 0 {
			freed = time.Since(began)
		}
		<-time.After(100 * time.Millisecond)
	}
	require.NotZero(t, freed, "the silent stream's slot came back")
	assert.GreaterOrEqual(t, freed, MinTTL)
	assert.Less(t, freed, MinTTL+2*time.Second)
	t.Logf("a silent stream with a TTL of %v gave its slot back after %v", MinTTL, freed.Round(100*time.Millisecond))

	for _, node := range []*Limiter{l, other} {
		_, err := node.Heartbeat(t.Context(), "maya", silent.ID)
		requireEnded(t, err, ReasonExpired)
	}
	tot, err := other.Totals(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 1, tot.Expired)
}

func TestHeartbeat_OfAnothersStream(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2})
	s := mustStart(t, l, "maya", Request{}).Stream
	mustStart(t, l, "ben", Request{})
	_, err := l.Heartbeat(t.Context(), "ben", s.ID)
	require.ErrorIs(t, err, ErrForeignID)
	_, err = l.Stop(t.Context(), "ben", s.ID)
	require.ErrorIs(t, err, ErrForeignID)
	_, err = l.Heartbeat(t.Context(), "a/b", s.ID)
	require.ErrorIs(t, err, ErrBadUser)
	assert.Equal(t, 1, keysOf(t, l, "maya"))
	assert.Equal(t, 1, keysOf(t, l, "ben"))
}

// A client that goes on beating after its stream was ended keeps nothing alive.
func TestHeartbeat_OfAnEndedStreamRenewsNothing(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 1})
	old := mustStart(t, l, "maya", Request{}).Stream
	mustStart(t, l, "maya", Request{OnLimit: ReplaceOldest})
	for range 20 {
		_, err := l.Heartbeat(t.Context(), "maya", old.ID)
		requireEnded(t, err, ReasonEvicted)
	}
	requireStreamLeases(t, c, 1, l)
}

func TestHeartbeats_AnswersEachBeat(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	var beats []Beat
	for i := range 200 {
		user := fmt.Sprint("user-", i)
		beats = append(beats, Beat{user, mustStart(t, l, user, Request{}).Stream.ID})
	}
	_, err := l.Stop(t.Context(), beats[1].User, beats[1].ID)
	require.NoError(t, err)
	beats[2].ID = "zzz"
	beats[3].ID = beats[4].ID
	beats[5].User = "a/b"
	for i, r := range l.Heartbeats(t.Context(), beats) {
		switch i {
		case 1:
			requireEnded(t, r.Err, ReasonStopped)
		case 2:
			assert.ErrorIs(t, r.Err, ErrBadID)
		case 3:
			assert.ErrorIs(t, r.Err, ErrForeignID)
		case 5:
			assert.ErrorIs(t, r.Err, ErrBadUser)
		default:
			require.NoError(t, r.Err)
			assert.Equal(t, beats[i].ID, r.Stream.ID)
			assert.False(t, r.Stream.Degraded)
		}
	}
}

func TestStop_FreesTheSlotAndRevokesTheLease(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 2})
	other := newLimiter(t, c, Config{Limit: 2})
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{}).Stream
	u, err := other.Stop(t.Context(), "maya", a.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, u.Count)
	for _, node := range []*Limiter{l, other} {
		_, err = node.Stop(t.Context(), "maya", a.ID)
		requireEnded(t, err, ReasonStopped)
		_, err = node.Heartbeat(t.Context(), "maya", a.ID)
		requireEnded(t, err, ReasonStopped)
	}
	u, err = l.Stop(t.Context(), "maya", b.ID)
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	requireStreamLeases(t, c, 0, l, other)
	_, err = l.List(t.Context(), "maya", Linearizable)
	assert.ErrorIs(t, err, ErrNoStreams)
}

func TestStopQuietest(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, TTL: 8 * time.Second})
	_, err := l.StopQuietest(t.Context(), "maya")
	require.ErrorIs(t, err, ErrNoStreams)
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{}).Stream
	require.Eventually(t, func() bool { // until etcd's whole seconds tell them apart
		_, err := l.Heartbeat(t.Context(), "maya", a.ID)
		u, lerr := l.List(t.Context(), "maya", Bounded)
		return err == nil && lerr == nil && u.Active[0].ExpiresAt.Sub(u.Active[1].ExpiresAt) > 2*time.Second
	}, time.Minute, 100*time.Millisecond)
	u, err := l.StopQuietest(t.Context(), "maya")
	require.NoError(t, err)
	assert.Equal(t, 1, u.Count)
	_, err = l.Heartbeat(t.Context(), "maya", b.ID)
	requireEnded(t, err, ReasonStopped)
	u, err = l.StopQuietest(t.Context(), "maya")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
}

func TestRemove_EndsAll(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 3})
	_, err := l.Remove(t.Context(), "maya")
	require.ErrorIs(t, err, ErrNoStreams)
	var ids []string
	for range 3 {
		ids = append(ids, mustStart(t, l, "maya", Request{}).Stream.ID)
	}
	ben := mustStart(t, l, "maya2", Request{}).Stream
	u, err := l.Remove(t.Context(), "maya")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	for _, id := range ids {
		_, err = l.Heartbeat(t.Context(), "maya", id)
		assert.Nil(t, requireEnded(t, err, ReasonRemoved))
	}
	_, err = l.Heartbeat(t.Context(), "maya2", ben.ID)
	assert.NoError(t, err, "a user whose id begins alike is left alone")
	requireStreamLeases(t, c, 1, l)
}

// After the last client has gone, nothing of anybody is left in etcd.
func TestNothingIsLeftBehind(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 2, TTL: MinTTL})
	began := time.Now()
	mustStart(t, l, "a", Request{})
	s := mustStart(t, l, "b", Request{Session: "x"}).Stream
	mustStart(t, l, "b", Request{Session: "x"})
	mustStart(t, l, "b", Request{OnLimit: ReplaceOldest})
	mustStart(t, l, "b", Request{OnLimit: ReplaceOldest})
	mustStart(t, l, "c", Request{})
	_, err := l.Remove(t.Context(), "c")
	require.NoError(t, err)
	_, err = l.Stop(t.Context(), "b", s.ID)
	requireEnded(t, err, ReasonReplaced)
	require.Eventually(t, func() bool {
		kvs, err := c.Get(context.Background(), "/streamcount/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && kvs.Count == 0
	}, MinTTL+5*time.Second, 50*time.Millisecond)
	requireStreamLeases(t, c, 0, l)
	assert.Less(t, time.Since(began), MinTTL+2*time.Second)
}

// Thousands of streams fall silent at once: etcd revokes at most 1,000 leases a
// second, but a new start does not wait for that.
func TestStart_TakesALapsedSlot(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 2, TTL: MinTTL})
	taken := 0
	for round := range 4 { // etcd may be done before a busy machine lets the test look
		if taken = lapsedSlotsTaken(t, c, l, round); taken > 0 {
			break
		}
	}
	require.Positive(t, taken, "slots whose lease had lapsed but was not yet revoked")
}

func lapsedSlotsTaken(t *testing.T, c *clientv3.Client, l *Limiter, round int) (taken int) {
	t.Helper()
	filler := make(chan struct{}, 64)
	for range 5000 { // so that the leases below wait seconds for their turn
		filler <- struct{}{}
		go func() {
			_, _ = c.Grant(context.Background(), int64(MinTTL/time.Second))
			<-filler
		}()
	}
	for range cap(filler) {
		filler <- struct{}{}
	}
	var users []string
	for i := range 50 {
		users = append(users, fmt.Sprint("user-", round, "-", i))
		mustStart(t, l, users[i], Request{})
		mustStart(t, l, users[i], Request{Session: "silent"})
	}
	last := time.Now()
	for _, u := range users {
		_, err := l.Start(t.Context(), u, Request{})
		require.ErrorIs(t, err, ErrLimit, "nobody has lapsed yet")
	}
	require.Eventually(t, func() bool { return time.Since(last) >= MinTTL+time.Second }, time.Minute, 20*time.Millisecond)
	for _, u := range users {
		s, err := l.read(t.Context(), u)
		if err != nil || len(s.held) < 2 {
			continue // etcd was faster with this one
		}
		st, err := l.Start(t.Context(), u, Request{})
		if assert.NoError(t, err, "both streams of %s have been silent for longer than a TTL", u) {
			taken++
			assert.LessOrEqual(t, st.Count, 2)
		}
	}
	t.Logf("%d of %d users took a slot back before etcd had revoked its lease", taken, len(users))
	return taken
}

func TestTotals(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	eu := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, Region: "eu"})
	us := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, Region: "us"})
	for i := range 30 {
		mustStart(t, eu, fmt.Sprint("user-", i), Request{})
	}
	mustStart(t, us, "user-1", Request{})
	_, err := eu.Start(t.Context(), "user-1", Request{})
	require.ErrorIs(t, err, ErrLimit)
	now, err := us.read(t.Context(), "user-1")
	require.NoError(t, err)
	require.True(t, eu.view.reach(t.Context(), now.rev))
	got, err := eu.Totals(t.Context())
	require.NoError(t, err)
	assert.Positive(t, got.Revision)
	got.Revision = 0
	assert.Equal(t, Totals{
		Streams: 31, Users: 30, UsersAtLimit: 1, ByRegion: map[string]int{"eu": 30, "us": 1},
		Admitted: 30, Refused: 1,
	}, got)
}

// A late heartbeat whose renewal hangs is answered soon, and does not hold up
// the others of its batch.
func TestHeartbeats_ALateOneHoldsNobodyUp(t *testing.T) {
	r := newRig(t, Config{Limit: 3, TTL: MinTTL})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	renewed := s.ExpiresAt.Add(-s.TTL)
	require.Eventually(t, func() bool { return time.Since(renewed) > MinTTL*7/8 }, 2*MinTTL, time.Millisecond)
	release := r.faults.Hold(etcdtest.KeepAlive)
	defer release()
	began := time.Now()
	got := r.Heartbeats(t.Context(), []Beat{{"maya", s.ID}})[0]
	require.NoError(t, got.Err)
	assert.True(t, got.Stream.Degraded)
	assert.Less(t, time.Since(began), 2*renewStall)
}

// A node that did not renew a stream for long only knows that itself. Where
// another node did, the stream is not late, however many late ones there are.
func TestHeartbeat_BackFromAnotherNode(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: MinTTL})
	there := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: MinTTL})
	s := mustStart(t, here, "maya", Request{}).Stream
	renewed := s.ExpiresAt.Add(-s.TTL)
	awaitUnrested(t, s)
	require.Eventually(t, func() bool { return time.Since(renewed) > MinTTL/2 }, MinTTL, time.Millisecond)
	elsewhere, err := there.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	require.False(t, elsewhere.Degraded)
	for range cap(here.late) { // all who really are late
		here.late <- struct{}{}
	}
	require.Eventually(t, func() bool { return time.Since(renewed) > MinTTL*7/8 }, MinTTL, time.Millisecond)
	got, err := here.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	assert.False(t, got.Degraded)
}

// A lease that has run out, and that this node never renewed, holds a shared
// stream up once; then etcd is asked about it.
func TestHeartbeat_ALapsedLeaseOfAnotherNode(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	s := mustStart(t, newLimiter(t, m.Client(t), Config{Limit: 3}), "maya", Request{}).Stream
	f := &etcdtest.Faults{}
	e := Over(etcdtest.FaultyClient(t, []string{m.Endpoint()}, f))
	e.Lease = deposed{e.Lease, 0} // says that every lease has run out
	l := runLimiter(t, e, Config{Limit: 3})
	t.Cleanup(f.Heal)
	require.Eventually(t, func() bool { at, _ := l.view.user("maya"); return len(at.held) == 1 }, time.Minute, time.Millisecond)
	before := f.Calls(etcdtest.KeepAlive)
	defer f.Hold(etcdtest.KeepAlive)()
	began := time.Now()
	got, err := l.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	assert.True(t, got.Degraded)
	assert.Less(t, time.Since(began), 4*renewStall)
	assert.LessOrEqual(t, f.Calls(etcdtest.KeepAlive)-before, 2, "one on a shared stream, one on its own")
}
