package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
)

// Two clients evict each other. The second eviction is refused until the cool-down is over,
// and the refusal names the reason.
func TestCooldown_MutualEvictionEnds(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	cfg := Config{Prefix: prefix, Limit: 1, Cooldown: 10 * time.Second}
	nodes := []*Limiter{newLimiter(t, c, cfg), newLimiter(t, c, cfg)}
	clients := []Request{
		{OnLimit: policy.ReplaceOldest, Device: Device{ID: "tv", Name: "TV"}},
		{OnLimit: policy.ReplaceOldest, Session: "tab", Device: Device{Name: "Phone"}},
	}
	first := mustStart(t, nodes[0], "maya", clients[0]).Stream
	second := mustStart(t, nodes[1], "maya", clients[1])
	require.Len(t, second.Ended, 1)
	assert.Equal(t, first.ID, second.Ended[0].Stream.ID)
	evicted := time.Now()
	by := requireEndsSoon(t, nodes[0], "maya", first.ID, policy.ReasonEvicted)
	assert.Equal(t, "Phone", by.Device.Name, "the ending names the device of the new stream")

	_, err := nodes[0].Start(ctx, "maya", clients[0])
	var full *LimitError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, NoEvictionCooldown, full.NoEviction)
	assert.Positive(t, full.EvictAfter)
	assert.LessOrEqual(t, full.EvictAfter, cfg.Cooldown+3*time.Second)

	other := clients[0]
	other.Session = "new tab" // on the same device
	_, err = nodes[1].Start(ctx, "maya", other)
	require.ErrorAs(t, err, &full)
	assert.Equal(t, NoEvictionCooldown, full.NoEviction)

	settled := 0
	require.Eventually(t, func() bool {
		_, err := nodes[settled%2].Start(ctx, "maya", clients[0])
		if err == nil {
			return true
		}
		require.True(t, errors.Is(err, ErrLimit), "%v", err)
		settled++
		return false
	}, time.Minute, 50*time.Millisecond)
	assert.GreaterOrEqual(t, time.Since(evicted), cfg.Cooldown)
	t.Logf("%d attempts to evict back refused in %v", settled, time.Since(evicted).Round(time.Millisecond))

	_, err = nodes[1].Start(ctx, "maya", clients[1])
	require.ErrorAs(t, err, &full, "now the other client has a cool-down")
	assert.Equal(t, NoEvictionCooldown, full.NoEviction)
	third := clients[1]
	third.Session, third.Device = "another", Device{ID: "car"}
	mustStart(t, nodes[0], "maya", third) // a client that was not evicted has no cool-down
}

func TestCooldown_Allows(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1, Cooldown: time.Minute})
	victim := Request{Session: "tv", OnLimit: policy.ReplaceOldest}
	mustStart(t, l, "maya", victim)
	winner := mustStart(t, l, "maya", Request{Session: "phone", OnLimit: policy.ReplaceOldest}).Stream
	_, err := l.Start(ctx, "maya", victim)
	require.ErrorIs(t, err, ErrLimit)
	named := victim
	named.Replaces = []string{winner.ID}
	back := mustStart(t, l, "maya", named).Stream // the request names the stream
	mustStart(t, l, "maya", victim)               // a start of the same session evicts no stream
	_, err = l.Stop(ctx, "maya", back.ID)
	require.ErrorIs(t, err, ErrEnded)
	mustStart(t, l, "ben", victim) // the cool-down is per user

	_, err = l.Rules().SetPlan(ctx, policy.DefaultPlan, policy.Plan{Limit: 1, OnLimit: policy.Deny})
	require.NoError(t, err)
	_, err = l.Start(ctx, "maya", Request{Session: "car", OnLimit: policy.ReplaceOldest})
	var full *LimitError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, NoEvictionPlan, full.NoEviction)
}

// A start that evicts the maximum number of streams fits into one etcd transaction.
func TestCooldown_MaxEvictions(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: policy.MaxLimit, Cooldown: time.Minute})
	for i := range policy.MaxLimit {
		mustStart(t, l, "maya", Request{Session: string(rune('A' + i)), Device: Device{ID: string(rune('A' + i))}})
	}
	_, err := l.Rules().SetOverride(ctx, "maya", limitOf(1))
	require.NoError(t, err)
	st := mustStart(t, l, "maya", Request{Session: "new", OnLimit: policy.ReplaceOldest})
	assert.Equal(t, []int{1, 1, policy.MaxLimit}, []int{st.Count, st.Limit, len(st.Ended)})
	for i, kept := range map[int]NoEvictionReason{policy.MaxLimit - 1: NoEvictionCooldown, policy.MaxLimit - maxCooldownVictims: NoEvictionCooldown} {
		_, err = l.Start(ctx, "maya", Request{Session: string(rune('A' + i)), OnLimit: policy.ReplaceOldest})
		var full *LimitError
		require.ErrorAs(t, err, &full)
		assert.Equal(t, kept, full.NoEviction)
	}
}

// The lease of the cool-down keys may be gone before they are written. The start succeeds.
func TestCooldown_MissingLease(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1, Cooldown: time.Minute})
	for _, name := range []string{"tv", "phone", "car"} {
		if id := l.cooldownLease.Current(); id != 0 {
			require.NoError(t, l.granter.Revoke(t.Context(), id))
		}
		mustStart(t, l, "maya", Request{Session: name, OnLimit: policy.ReplaceOldest})
	}
	_, err := l.Start(t.Context(), "maya", Request{Session: "phone", OnLimit: policy.ReplaceOldest})
	require.ErrorIs(t, err, ErrLimit)
}

// A response of a deposed leader does not end a cool-down.
func TestCooldown_IsNotOverByADeposedLeader(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	cfg := Config{Prefix: prefix, Limit: 1, Cooldown: time.Minute}
	one := newLimiter(t, c, cfg)
	mustStart(t, one, "maya", Request{Session: "tv"})
	phone := mustStart(t, one, "maya", Request{Session: "phone", OnLimit: policy.ReplaceOldest}).Stream
	e := FromClient(c)
	e.Lease = deposed{e.Lease, 1}
	other := runLimiter(t, e, cfg)
	_, err := other.Start(shortCall(t), "maya", Request{Session: "tv", OnLimit: policy.ReplaceOldest})
	require.Error(t, err, "its session was evicted a moment ago")
	_, err = one.Heartbeat(t.Context(), "maya", phone.ID)
	require.NoError(t, err)
}
