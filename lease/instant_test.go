package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// What has no monotonic reading moves with the wall clock: after a step back by
// an hour a lease would look fresh for an hour, and its stream would lapse under
// heartbeats that are answered.
func TestRenewals_AreKeptByTheMonotonicClock(t *testing.T) {
	now := time.Now()
	require.Contains(t, now.String(), " m=", "this is how a monotonic reading shows")
	var s live
	assert.True(t, s.renewedAt().IsZero(), "never")
	s.renew(now)
	assert.Contains(t, s.renewedAt().String(), " m=")
	assert.WithinDuration(t, now, s.renewedAt(), 0)

	v := testView(Etcd{}, "/p")
	assert.False(t, v.current())
	v.heard.Store(int64(instantOf(now.Add(-viewStale / 2))))
	assert.True(t, v.current())
	assert.Contains(t, instant(v.heard.Load()).time().String(), " m=")
	v.heard.Store(int64(instantOf(now.Add(-viewStale))))
	assert.False(t, v.current())
}

// A start that was never answered must not inherit the freshness of the stream
// that had its lease before: its lease would be handed on, and then revoked
// under the next stream.
func TestView_AHintIsForItsStreamAlone(t *testing.T) {
	v := testView(Etcd{}, "/p")
	const lease = 7
	v.hint("maya", ident{0, lease, nonce{1}}, time.Now())
	v.apply([]*mvccpb.Event{{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{
		Key: []byte(v.keys.slot("otto", 0)), Lease: lease, ModRevision: 3, Value: recordValue(nonce{2}, ""),
	}}})
	s, _ := v.lookup("otto", ident{0, lease, nonce{2}})
	require.NotNil(t, s)
	assert.True(t, s.renewedAt().IsZero())
	assert.False(t, granted{lease: lease, ttl: time.Minute, renewed: s.renewedAt()}.fresh(time.Now()))
}
