package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/schema"
	"streamcount/lease/migration"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
	"streamcount/lease/streamid"
)

// A second migration to the same etcd imports a user again, even if the first migration was
// interrupted before it removed its marks. In one migration a user is imported only once.
func TestImport_OncePerMigration(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Limit: 3, Prefix: etcdtest.Prefix(t)})
	exported := func(n byte, lease int64) migration.State {
		return migration.State{Streams: []migration.Stream{{Name: "000", Lease: lease, Value: recordOn(streamid.Nonce{n}, "", "")}}}
	}
	held := func() streamid.Nonce {
		s, err := l.readUser(t.Context(), "maya")
		require.NoError(t, err)
		require.Len(t, s.entries, 1)
		return s.entries[0].Nonce
	}
	first, err := l.PutRouting(t.Context(), []byte("first"), &RoutingRecord{}, false)
	require.NoError(t, err)
	require.NoError(t, l.Import(t.Context(), "maya", exported(1, leasepool.NewID()), first.Revision))
	assert.Equal(t, streamid.Nonce{1}, held())
	require.NoError(t, l.Import(t.Context(), "maya", exported(2, leasepool.NewID()), first.Revision))
	assert.Equal(t, streamid.Nonce{1}, held(), "a second import in the same migration changes nothing")

	second, err := l.PutRouting(t.Context(), []byte("second"), first, false)
	require.NoError(t, err)
	require.ErrorIs(t, l.Import(t.Context(), "maya", exported(3, leasepool.NewID()), first.Revision), ErrRouting)
	_, err = l.Export(t.Context(), "maya", second.Revision)
	require.NoError(t, err)
	require.NoError(t, l.FinishExport(t.Context(), "maya"))
	require.NoError(t, l.Import(t.Context(), "maya", exported(4, leasepool.NewID()), second.Revision))
	assert.Equal(t, streamid.Nonce{4}, held(), "the import of the second migration")
}

// An override that ends has a new lease for the remaining time on the other cluster, and none
// on this one. It is not imported after its end.
func TestImport_OverrideThatEnds(t *testing.T) {
	t.Parallel()
	ctx, old, c := t.Context(), etcdtest.Start(t, etcdtest.Config{}), etcdtest.Client(t)
	from := newLimiter(t, old.Client(t), Config{Limit: 3})
	to := newLimiter(t, c, Config{Limit: 3, Prefix: etcdtest.Prefix(t)})
	o := policy.Override{Limits: map[string]int{"tv": 2}, Until: ahead(time.Hour)}
	setOverride(t, from, "maya", o)
	lease := leaseOfOverride(t, old.Client(t), from, "maya")
	routed, err := from.PutRouting(ctx, []byte("a map"), &RoutingRecord{}, false)
	require.NoError(t, err)
	state, err := from.Export(ctx, "maya", routed.Revision)
	require.NoError(t, err)
	requireLeaseEnds(t, old.Client(t), lease)
	again, err := from.Export(ctx, "maya", routed.Revision)
	require.NoError(t, err)
	assert.Equal(t, state, again)

	arrived, err := to.PutRouting(ctx, []byte("a map"), &RoutingRecord{}, false)
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, to.Import(ctx, "maya", state, arrived.Revision))
		got, err := to.Rules().Override(ctx, "maya")
		require.NoError(t, err)
		assert.Equal(t, o, got)
	}
	left, err := c.TimeToLive(ctx, leaseOfOverride(t, c, to, "maya"))
	require.NoError(t, err)
	assert.InDelta(t, time.Until(o.Until).Seconds(), float64(left.TTL), 60)
	_, err = to.Rules().Apply(ctx, rules.Set{Users: map[string]*policy.Override{"maya": nil}}, rules.Options{RoutingRevision: arrived.Revision})
	require.NoError(t, err)
	requireLeaseEnds(t, c, left.ID)

	state.Override = schema.EncodeOverride(policy.Override{Plan: "gold", Until: ahead(-time.Second)})
	state.Streams = []migration.Stream{{Name: "000", Lease: leasepool.NewID(), Value: recordOn(streamid.Nonce{1}, "", "")}}
	require.NoError(t, to.Import(ctx, "tom", state, arrived.Revision))
	assert.Equal(t, 1, keysOf(t, to, "tom"))
	_, err = to.Rules().Override(ctx, "tom")
	require.ErrorIs(t, err, rules.ErrNoOverride)
}

// A stop on a stale replica detects that the user has moved. Otherwise it would be answered
// 410 while the stream lives.
func TestStop_DetectsThatTheUserMoved(t *testing.T) {
	t.Parallel()
	l := newFaultyLimiter(t, Config{Limit: 3})
	st := mustStart(t, l.Limiter, "maya", Request{})
	who, err := l.ids.Parse("maya", st.Stream.ID)
	require.NoError(t, err)
	h, err := l.locate(t.Context(), "maya", who)
	require.NoError(t, err)
	defer l.faults.HoldReply(etcdtest.Watch)()
	other := newLimiter(t, l.direct, Config{Limit: 3, Prefix: l.cfg.Prefix})
	key, err := other.PutRouting(t.Context(), []byte("another"), &RoutingRecord{}, false)
	require.NoError(t, err)
	_, err = other.Export(t.Context(), "maya", key.Revision)
	require.NoError(t, err)
	require.Zero(t, l.Routing().Revision, "the replica is stale")
	_, err = l.tryStop(t.Context(), "maya", h)
	require.ErrorIs(t, err, ErrEnded)
	assert.Equal(t, key.Revision, l.Routing().Revision)
}

// A stop ends its stream even if the replica does not contain that the user has migrated
// to another etcd and back.
func TestStop_AfterAMigrationAndBack(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Limit: 3, Prefix: etcdtest.Prefix(t)})
	st := mustStart(t, l, "maya", Request{})
	who, err := l.ids.Parse("maya", st.Stream.ID)
	require.NoError(t, err)
	before, err := l.locate(t.Context(), "maya", who)
	require.NoError(t, err)
	key, err := l.PutRouting(t.Context(), []byte("a map"), &RoutingRecord{}, false)
	require.NoError(t, err)
	state, err := l.Export(t.Context(), "maya", key.Revision)
	require.NoError(t, err)
	require.NoError(t, l.Import(t.Context(), "maya", state, key.Revision))
	u, err := l.tryStop(t.Context(), "maya", before)
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	assert.Zero(t, keysOf(t, l, "maya"))
}
