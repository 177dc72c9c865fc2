package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

// Two clients that each evict the other at once: the second eviction is refused,
// and says why, until the cool-down is over.
func TestCooldown_PingPongSettles(t *testing.T) {
	ctx := t.Context()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	cfg := Config{Prefix: prefix, Limit: 1, Cooldown: 3 * time.Second}
	nodes := []*Limiter{newLimiter(t, c, cfg), newLimiter(t, c, cfg)}
	clients := []Request{
		{OnLimit: ReplaceOldest, Device: Device{ID: "tv", Name: "TV"}},
		{OnLimit: ReplaceOldest, Session: "tab", Device: Device{Name: "Phone"}},
	}
	first := mustStart(t, nodes[0], "maya", clients[0]).Stream
	second := mustStart(t, nodes[1], "maya", clients[1])
	require.Len(t, second.Ended, 1)
	assert.Equal(t, first.ID, second.Ended[0].Stream.ID)
	evicted := time.Now()
	by := requireEndsSoon(t, nodes[0], "maya", first.ID, ReasonEvicted)
	assert.Equal(t, "Phone", by.Device.Name, "the victim learns who took its place")

	_, err := nodes[0].Start(ctx, "maya", clients[0])
	var full *LimitError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, KeptCooling, full.Kept)
	assert.Positive(t, full.EvictAfter)
	assert.LessOrEqual(t, full.EvictAfter, cfg.Cooldown+3*time.Second)

	other := clients[0]
	other.Session = "new tab" // on the same device
	_, err = nodes[1].Start(ctx, "maya", other)
	require.ErrorAs(t, err, &full)
	assert.Equal(t, KeptCooling, full.Kept)

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
	require.ErrorAs(t, err, &full, "and now the other one waits")
	assert.Equal(t, KeptCooling, full.Kept)
	third := clients[1]
	third.Session, third.Device = "another", Device{ID: "car"}
	mustStart(t, nodes[0], "maya", third) // who was not evicted may
}

func TestCooldown_Allows(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1, Cooldown: time.Minute})
	victim := Request{Session: "tv", OnLimit: ReplaceOldest}
	mustStart(t, l, "maya", victim)
	winner := mustStart(t, l, "maya", Request{Session: "phone", OnLimit: ReplaceOldest}).Stream
	_, err := l.Start(ctx, "maya", victim)
	require.ErrorIs(t, err, ErrLimit)
	named := victim
	named.Replaces = winner.ID
	back := mustStart(t, l, "maya", named).Stream // the viewer chose which
	mustStart(t, l, "maya", victim)               // its own session goes on
	_, err = l.Stop(ctx, "maya", back.ID)
	require.ErrorIs(t, err, ErrEnded)
	mustStart(t, l, "ben", victim) // somebody else's cool-down

	_, err = l.SetPlan(ctx, DefaultPlan, Plan{Limit: 1, OnLimit: Deny})
	require.NoError(t, err)
	_, err = l.Start(ctx, "maya", Request{Session: "car", OnLimit: ReplaceOldest})
	var full *LimitError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, KeptByPlan, full.Kept)
}

// To end as many streams as there can be leaves room in etcd's transaction.
func TestCooldown_OfVeryMany(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: MaxLimit, Cooldown: time.Minute})
	for i := range MaxLimit {
		mustStart(t, l, "maya", Request{Session: string(rune('A' + i)), Device: Device{ID: string(rune('A' + i))}})
	}
	_, err := l.SetOverride(ctx, "maya", limitOf(1))
	require.NoError(t, err)
	st := mustStart(t, l, "maya", Request{Session: "new", OnLimit: ReplaceOldest})
	assert.Equal(t, []int{1, 1, MaxLimit}, []int{st.Count, st.Limit, len(st.Ended)})
	for i, kept := range map[int]Kept{MaxLimit - 1: KeptCooling, MaxLimit - maxCooled: KeptCooling} {
		_, err = l.Start(ctx, "maya", Request{Session: string(rune('A' + i)), OnLimit: ReplaceOldest})
		var full *LimitError
		require.ErrorAs(t, err, &full)
		assert.Equal(t, kept, full.Kept)
	}
}

// The lease of the marks may be gone before they are written. The start goes on.
func TestCooldown_ALeaseThatIsGone(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1, Cooldown: time.Minute})
	for _, name := range []string{"tv", "phone", "car"} {
		if id, _ := l.cooling.current(); id != 0 {
			require.NoError(t, l.revoke(t.Context(), id))
		}
		mustStart(t, l, "maya", Request{Session: name, OnLimit: ReplaceOldest})
	}
	_, err := l.Start(t.Context(), "maya", Request{Session: "phone", OnLimit: ReplaceOldest})
	require.ErrorIs(t, err, ErrLimit)
}

// That a cool-down is over is not believed of a leader that was deposed.
func TestCooldown_IsNotOverByADeposedLeader(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	cfg := Config{Prefix: prefix, Limit: 1, Cooldown: time.Minute}
	one := newLimiter(t, c, cfg)
	mustStart(t, one, "maya", Request{Session: "tv"})
	phone := mustStart(t, one, "maya", Request{Session: "phone", OnLimit: ReplaceOldest}).Stream
	e := Over(c)
	e.Lease = deposed{e.Lease, 1}
	other := runLimiter(t, e, cfg)
	_, err := other.Start(t.Context(), "maya", Request{Session: "tv", OnLimit: ReplaceOldest})
	require.Error(t, err, "it was evicted a moment ago, and may not evict in turn")
	_, err = one.Heartbeat(t.Context(), "maya", phone.ID)
	require.NoError(t, err)
}
