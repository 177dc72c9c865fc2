package lease

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// maxOtherReads returns the maximum number of reads within d that are not for calls: the
// probes of the circuit breaker.
func maxOtherReads(d time.Duration) int { return int(d/(500*time.Millisecond)) + 1 }

// endedHeartbeats returns n heartbeats of streams that have ended, and which the replica
// of l does not contain. Each call returns other streams.
func endedHeartbeats(t *testing.T, l *Limiter, n int) []HeartbeatRequest {
	t.Helper()
	heartbeats := make([]HeartbeatRequest, n)
	for i := range heartbeats {
		user := fmt.Sprint("user-", i)
		id := streamid.ID{Slot: 0, Lease: leasepool.NewID()}
		_, _ = rand.Read(id.Nonce[:])
		heartbeats[i] = HeartbeatRequest{user, l.ids.Sign(user, id)}
	}
	return heartbeats
}

// Repeated heartbeats of ended streams cause few requests to etcd. While the replica lags,
// as on a slow machine, the streams of a batch are read one by one, so the test tries
// several times with other streams.
func TestHeartbeats_OfEndedStreamsShareReads(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3})
	living := mustStart(t, r.Limiter, "maya", Request{}).Stream
	for range 5 {
		heartbeats := append(endedHeartbeats(t, r.Limiter, 999), HeartbeatRequest{"maya", living.ID})
		began, reads, txns := time.Now(), r.faults.Calls(etcdtest.Range), r.faults.Calls(etcdtest.Txn)
		repeatEndedHeartbeats(t, r.Limiter, heartbeats)
		took := time.Since(began)
		probes := maxOtherReads(took)
		reads, txns = r.faults.Calls(etcdtest.Range)-reads, r.faults.Calls(etcdtest.Txn)-txns
		t.Logf("100,000 heartbeats and 999 stops of ended streams in %v: %d reads, of which %d are not for them, and %d transactions",
			took.Round(time.Millisecond), reads, probes, txns)
		if reads-probes <= 5 && txns <= 5 {
			return
		}
	}
	t.Error("want at most 5 reads and 5 transactions")
}

// repeatEndedHeartbeats sends a batch 100 times, and then stops its streams. All but the last
// one have ended.
func repeatEndedHeartbeats(t *testing.T, l *Limiter, heartbeats []HeartbeatRequest) {
	t.Helper()
	last := len(heartbeats) - 1
	for range 100 {
		results := l.Heartbeats(t.Context(), heartbeats)
		require.NoError(t, results[last].Err)
		for _, res := range results[:last] {
			requireEnded(t, res.Err, policy.ReasonEnded)
		}
	}
	for _, b := range heartbeats[:last] {
		_, err := l.Stop(t.Context(), b.User, b.ID)
		requireEnded(t, err, policy.ReasonEnded)
	}
}

// Heartbeats of different unknown streams share reads: at most ten at once, and then four
// per second.
func TestHeartbeat_LimitsReadsForUnknownStreams(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3})
	began, reads, txns := time.Now(), r.faults.Calls(etcdtest.Range), r.faults.Calls(etcdtest.Txn)
	for i, b := range endedHeartbeats(t, r.Limiter, 30) {
		_, err := r.Heartbeat(t.Context(), b.User, b.ID)
		requireEnded(t, err, policy.ReasonEnded)
		_, err = r.Heartbeat(t.Context(), b.User, b.ID)
		requireEnded(t, err, policy.ReasonEnded)
		require.Less(t, i, 30)
	}
	took := time.Since(began)
	most := 10 + int(took.Seconds()*4) + 1 + maxOtherReads(took)
	assert.LessOrEqual(t, r.faults.Calls(etcdtest.Range)-reads, most)
	assert.LessOrEqual(t, r.faults.Calls(etcdtest.Txn)-txns, 10, "while the replica lags, a heartbeat reads its own stream")
}

// A heartbeat does not report as ended a stream that another node has just admitted, even
// if the replica does not contain it yet.
func TestHeartbeat_LaggingNodeEndsNoStream(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 20})
	other := newLimiter(t, r.direct, Config{Prefix: r.cfg.Prefix, Limit: 20})
	release := r.faults.HoldReply(etcdtest.Watch)
	defer release()
	for i := range 20 {
		st := mustStart(t, other, "maya", Request{}).Stream
		_, err := r.Heartbeat(t.Context(), "maya", st.ID)
		require.NoError(t, err, "stream %d", i)
		if i == 10 {
			release()
		}
	}
}
