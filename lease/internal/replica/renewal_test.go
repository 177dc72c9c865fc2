package replica

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/monotonic"
	"streamcount/lease/streamid"
)

// Times without a monotonic reading follow steps of the wall clock. After a step back by
// an hour a lease would appear to be renewed for an hour, and its stream would expire
// although its heartbeats succeed.
func TestRenewals_UseTheMonotonicClock(t *testing.T) {
	now := time.Now()
	require.Contains(t, now.String(), " m=", "this is how a monotonic reading shows")
	var s Entry
	assert.True(t, s.LastRenewal().IsZero(), "never")
	s.RecordRenewal(now)
	assert.Contains(t, s.LastRenewal().String(), " m=")
	assert.WithinDuration(t, now, s.LastRenewal(), 0)

	v := newTestReplica(nil, "/p")
	assert.False(t, v.Current())
	v.lastProgress.Store(int64(monotonic.Of(now.Add(-MaxProgressAge / 2))))
	assert.True(t, v.Current())
	assert.Contains(t, monotonic.Time(v.lastProgress.Load()).Time().String(), " m=")
	v.lastProgress.Store(int64(monotonic.Of(now.Add(-MaxProgressAge))))
	assert.False(t, v.Current())
}

// A start with an unknown outcome must not inherit the renewal time of the stream that used
// its lease before. Its lease would be reused, and then revoked under the next stream.
func TestReplica_RenewalHintIsPerStream(t *testing.T) {
	v := newTestReplica(nil, "/p")
	const lease = 7
	v.AddRenewalHint("maya", streamid.ID{Slot: 0, Lease: lease, Nonce: streamid.Nonce{1}}, time.Now())
	v.Apply([]*mvccpb.Event{{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{
		Key: []byte(v.keys.Slot("otto", 0)), Lease: lease, ModRevision: 3, Value: recordValue(streamid.Nonce{2}, ""),
	}}})
	s, _ := v.Lookup("otto", streamid.ID{Slot: 0, Lease: lease, Nonce: streamid.Nonce{2}})
	require.NotNil(t, s)
	assert.True(t, s.LastRenewal().IsZero())
}
