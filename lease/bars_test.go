package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/provisional"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// otherTab is the request of another session of the edge.
func otherTab(onLimit policy.OnLimit) Request {
	return Request{Session: "tab 2", Join: true, Via: "edge:vod", OnLimit: onLimit}
}

// requireBarOf waits until a session of user has no stream, and checks its bar.
func requireBarOf(t *testing.T, l *Limiter, user, session string, reason policy.Reason) {
	t.Helper()
	var a Attendance
	require.Eventually(t, func() bool {
		var err error
		a, err = l.LookUpSession(t.Context(), user, session, false)
		require.NoError(t, err)
		return a.Stream.User == "" && a.Current
	}, soon, time.Millisecond)
	requireBar(t, a, reason)
}

// A heartbeat by the API keeps a stream of the edge alive as any other. It sets no bar, and
// the stream remains one of the edge.
func TestBars_Heartbeat(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	st := mustStart(t, l, "maya", edge)
	s, err := l.Heartbeat(t.Context(), "maya", st.Stream.ID)
	require.NoError(t, err)
	assert.False(t, s.Degraded)
	awaitAttended(t, l, "maya", true)
	assert.Equal(t, "edge:vod", attend(t, l, "maya").Stream.Via)
	_, err = l.Stop(t.Context(), "maya", st.Stream.ID)
	require.NoError(t, err)
	requireBarOf(t, l, "maya", "tab", policy.ReasonStopped)
	_, err = l.Heartbeat(t.Context(), "maya", st.Stream.ID)
	requireEnded(t, err, policy.ReasonStopped)
	_, err = l.Start(t.Context(), "maya", edge)
	var bar *Bar
	require.ErrorAs(t, err, &bar, "a heartbeat does not lift it")
	_, err = l.Start(t.Context(), "tom", edge)
	require.NoError(t, err, "another user has the same session")
}

// A stream of the edge that the start of its own session replaces has no bar, whether the start
// names it or not. The bar of a session is lifted only by a start of that session.
func TestBars_OwnSession(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	for user, named := range map[string]bool{"named": true, "not named": false} {
		r := Request{Session: "tab"}
		if st := mustStart(t, l, user, edge); named {
			r.Replaces = []string{st.Stream.ID}
		}
		explicit := mustStart(t, l, user, r)
		require.Len(t, explicit.Ended, 1)
		assert.Equal(t, policy.ReasonReplaced, explicit.Ended[0].Reason)
		require.Eventually(t, func() bool { return attend(t, l, user).Stream.ID == explicit.Stream.ID }, soon, time.Millisecond)
		assert.Empty(t, attend(t, l, user).Stream.Via, "the stream is that of its player from now on")
		require.NoError(t, l.Leave(t.Context(), user, "tab"))
		requireBarOf(t, l, user, "tab", "")
	}
	st := mustStart(t, l, "maya", edge)
	mustStart(t, l, "maya", Request{Session: "tv", Replaces: []string{st.Stream.ID}})
	requireBarOf(t, l, "maya", "tab", policy.ReasonReplaced)
	require.NoError(t, l.Leave(t.Context(), "maya", "tv"))
	requireBarOf(t, l, "maya", "tv", "")
	requireBarOf(t, l, "maya", "tab", policy.ReasonReplaced)
	mustStart(t, l, "maya", Request{Session: "tab"})
	awaitAttended(t, l, "maya", true)
	require.NoError(t, l.Leave(t.Context(), "maya", "tab"))
	requireBarOf(t, l, "maya", "tab", "")
}

// An eviction bars the session of a stream of the edge, whatever evicts it. The stream of a
// player, which receives the reason with its next heartbeat, has no bar.
func TestBars_Evictions(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1, Cooldown: time.Hour})
	_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, policy.Plan{Limit: 1, OnLimit: policy.ReplaceOldest})
	require.NoError(t, err)
	explicit := Request{Session: "tab 2", OnLimit: policy.ReplaceOldest}
	for user, requests := range map[string][2]Request{
		"edge by player": {edge, explicit},
		"edge by edge":   {edge, otherTab(policy.ReplaceOldest)},
		"player by edge": {{Session: "tab"}, otherTab(policy.ReplaceOldest)},
	} {
		first := mustStart(t, l, user, requests[0])
		second := mustStart(t, l, user, requests[1])
		require.Len(t, second.Ended, 1, user)
		assert.Equal(t, policy.ReasonEvicted, second.Ended[0].Reason)
		want := policy.ReasonEvicted
		if requests[0].Via == "" {
			want = ""
		}
		requireBarOf(t, l, user, "tab", want)
		_, err := l.Heartbeat(t.Context(), user, first.Stream.ID)
		requireEnded(t, err, policy.ReasonEvicted)
		again := requests[0]
		again.OnLimit = policy.ReplaceOldest
		_, err = l.Start(t.Context(), user, again)
		if want != "" {
			var bar *Bar
			require.ErrorAs(t, err, &bar, user)
			continue
		}
		rejected := &LimitError{}
		require.ErrorAs(t, err, &rejected, user)
		assert.Equal(t, NoEvictionCooldown, rejected.NoEviction, "the cool-down applies to the player")
	}
	mustStart(t, l, "denied", Request{Session: "tv"})
	_, err = l.Start(t.Context(), "denied", otherTab(policy.Deny))
	require.ErrorIs(t, err, ErrLimit)
	requireBarOf(t, l, "denied", "tab 2", "")
}

// A lowered limit ends no stream and sets no bar. The session keeps its slot and may change its
// content; once it has ended, its next start meets the limit.
func TestBars_LoweredLimit(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2})
	mustStart(t, l, "maya", edge)
	mustStart(t, l, "maya", otherTab(policy.Deny))
	_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, policy.Plan{Limit: 0})
	require.NoError(t, err)
	awaitAttended(t, l, "maya", true)
	assert.Equal(t, "film", attend(t, l, "maya").Stream.Content.ID)
	joined := mustStart(t, l, "maya", edge)
	assert.True(t, joined.Joined)
	moved := edge
	moved.Join, moved.Content.ID = false, "another film"
	assert.Len(t, mustStart(t, l, "maya", moved).Ended, 1)
	require.Eventually(t, func() bool { return attend(t, l, "maya").Stream.Content.ID == "another film" }, soon, time.Millisecond)
	require.NoError(t, l.Leave(t.Context(), "maya", "tab"))
	requireBarOf(t, l, "maya", "tab", "")
	_, err = l.Start(t.Context(), "maya", edge)
	require.ErrorIs(t, err, ErrLimit)
}

// A stream of the edge that reaches the maximum age ends as by an expiry: its next request
// starts another one.
func TestBars_MaxStreamAge(t *testing.T) {
	t.Parallel()
	c, cfg := etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1, MaxStreamAge: time.Hour}
	l, starter := newLimiter(t, c, cfg), newLimiter(t, c, cfg)
	st := mustStart(t, starter, "maya", edge)
	backdate(t, starter, st.Stream, time.Hour+time.Second, l)
	a := attend(t, l, "maya") // l has never renewed it, so Attend waits for the renewal
	assert.Nil(t, a.Bar)
	require.Empty(t, a.Stream.User)
	_, err := l.Heartbeat(t.Context(), "maya", st.Stream.ID)
	requireEnded(t, err, policy.ReasonExpired)
	requireBarOf(t, l, "maya", "tab", "")
	assert.NotEqual(t, st.Stream.ID, mustStart(t, l, "maya", edge).Stream.ID)
}

// A stop of a stream of the edge that a node has admitted without etcd bars its session there.
func TestBars_OfAProvisionalStream(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1, Outage: OutageAdmit})
	for user, via := range map[string]string{"edge": "edge:vod", "player": ""} {
		a := &attempt{user: user, req: Request{Session: "tab", Via: via}}
		a.record = schema.Record{Nonce: streamid.Nonce{7}, Started: time.Now().UnixMilli(), Session: "tab", Via: via}
		a.value = schema.Encode(a.record)
		a.lease.ID = leasepool.NewID()
		p := a.provisionalStream(provisional.FirstSlot)
		p.Entry.Nonce[1] = byte(len(via)) // one for each user
		require.True(t, l.provisional.Add(p))
		_, err := l.Stop(t.Context(), user, l.ids.Sign(user, p.Entry.StreamID()))
		require.NoError(t, err)
		want := policy.ReasonStopped
		if via == "" {
			want = ""
		}
		requireBarOf(t, l, user, "tab", want)
	}
}
