package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/provisional"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// backdate changes the record of a stream so that it started an age ago.
func backdate(t *testing.T, l *Limiter, s Stream, age time.Duration, others ...*Limiter) {
	t.Helper()
	who := leaseOfID(t, l, s)
	h, err := l.locateInEtcd(t.Context(), s.User, who)
	require.NoError(t, err)
	rec := schema.DecodeRecord(h.Value)
	rec.Started = time.Now().Add(-age).UnixMilli()
	resp, err := l.etcd.KV.Put(t.Context(), etcdop.Put(h.Key, schema.Encode(rec), h.Lease).GetRequestPut())
	require.NoError(t, err)
	for _, node := range append(others, l) {
		require.True(t, node.replica.WaitApplied(t.Context(), resp.Header.Revision))
	}
}

func TestMaxStreamAge(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, MaxStreamAge: time.Hour})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, MaxStreamAge: time.Hour})
	never := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	old, young := mustStart(t, never, "maya", Request{}).Stream, mustStart(t, never, "maya", Request{}).Stream
	backdate(t, never, old, time.Hour+time.Second, l, other)
	backdate(t, never, young, time.Hour-time.Minute, l, other)
	_, err := never.Heartbeat(t.Context(), "maya", old.ID)
	require.NoError(t, err, "a node without a maximum")

	results := l.Heartbeats(t.Context(), []HeartbeatRequest{{"maya", old.ID}, {"maya", young.ID}, {"maya", old.ID}})
	requireEnded(t, results[0].Err, policy.ReasonExpired)
	require.NoError(t, results[1].Err)
	requireEnded(t, results[2].Err, policy.ReasonExpired)
	for _, node := range []*Limiter{l, other, never} {
		requireEndsSoon(t, node, "maya", old.ID, policy.ReasonExpired) // a node that has just renewed it answers from its replica
		_, err = node.Heartbeat(t.Context(), "maya", young.ID)
		require.NoError(t, err)
	}
	assert.Equal(t, 1, keysOf(t, l, "maya"), "its slot is free")
	session := Request{Session: "tv"}
	st := mustStart(t, l, "maya", session).Stream
	backdate(t, l, st, 2*time.Hour)
	again := mustStart(t, l, "maya", session).Stream
	_, err = l.Heartbeat(t.Context(), "maya", again.ID)
	require.NoError(t, err, "a start of the same session resets the age")
}

func TestMaxStreamAge_ClockSkew(t *testing.T) {
	l := &Limiter{cfg: Config{MaxStreamAge: time.Hour}}
	for started, old := range map[int64]bool{
		0: false, -1: false, // not set
		time.Now().Add(time.Hour).UnixMilli():         false, // written by a clock that is ahead
		time.Now().Add(-61 * time.Minute).UnixMilli(): true,
		time.Now().Add(-59 * time.Minute).UnixMilli(): false,
	} {
		assert.Equal(t, old, l.exceedsMaxAge(schema.Encode(schema.Record{Started: started})), "%d", started)
	}
	assert.False(t, l.exceedsMaxAge([]byte("junk")))
	l.cfg.MaxStreamAge = 0
	assert.False(t, l.exceedsMaxAge(schema.Encode(schema.Record{Started: 1})))
}

func TestMaxStreamAge_OfAProvisionalStream(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, Outage: OutageAdmit, MaxStreamAge: time.Hour})
	a := &attempt{user: "maya", record: schema.Record{Nonce: streamid.Nonce{7}, Started: time.Now().Add(-2 * time.Hour).UnixMilli()}}
	a.value = schema.Encode(a.record)
	a.lease.ID = leasepool.NewID()
	p := a.provisionalStream(provisional.FirstSlot)
	require.True(t, l.provisional.Add(p))
	id := l.ids.Sign("maya", p.Entry.StreamID())
	_, err := l.Heartbeat(t.Context(), "maya", id)
	requireEnded(t, err, policy.ReasonExpired)
	_, err = l.Heartbeat(t.Context(), "maya", id)
	requireEnded(t, err, policy.ReasonExpired)
}
