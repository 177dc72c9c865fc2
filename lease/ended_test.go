package lease

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
)

// A stream that a node has reported as ended stays ended, even if the node receives etcd's
// events late. The lease was reused, so that a renewal would succeed.
func TestHeartbeat_ReportedEndIsFinal(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 1})
	other := newLimiter(t, r.direct, Config{Prefix: r.cfg.Prefix, Limit: 1})
	st := mustStart(t, r.Limiter, "maya", Request{Session: "tv"}).Stream
	who := leaseOfID(t, r.Limiter, st)
	require.Eventually(t, func() bool { // the replica contains the start
		s, current := r.replica.Lookup("maya", who)
		return s != nil && current
	}, soon, time.Millisecond)
	release := r.faults.HoldReply(etcdtest.Watch)
	defer release()
	mustStart(t, other, "maya", Request{Session: "tv"})
	_, err := r.Heartbeat(t.Context(), "maya", st.ID)
	require.NoError(t, err, "this node has not received the ending")
	_, err = r.Stop(t.Context(), "maya", st.ID)
	requireEnded(t, err, policy.ReasonEnded)
	_, err = r.Heartbeat(t.Context(), "maya", st.ID)
	requireEnded(t, err, policy.ReasonEnded)
	r.faults.CutReply(etcdtest.Txn, 1) // otherwise a stop of unknown outcome counts as the one that ended the stream
	_, err = r.Stop(t.Context(), "maya", st.ID)
	requireEnded(t, err, policy.ReasonEnded)
	release()
	require.Eventually(t, func() bool { _, received := r.replica.Ending(who.Nonce); return received }, time.Minute, time.Millisecond)
	_, err = r.Heartbeat(t.Context(), "maya", st.ID)
	requireEnded(t, err, policy.ReasonReplaced)
}

// The first answer that a stream has ended waits for a tombstone that arrives late.
func TestStop_WaitsForTheReason(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 1})
	other := newLimiter(t, r.direct, Config{Prefix: r.cfg.Prefix, Limit: 1})
	st := mustStart(t, r.Limiter, "maya", Request{}).Stream
	who := leaseOfID(t, r.Limiter, st)
	require.Eventually(t, func() bool { // the replica contains the start
		s, current := r.replica.Lookup("maya", who)
		return s != nil && current
	}, soon, time.Millisecond)
	release := r.faults.HoldReply(etcdtest.Watch)
	defer release()
	_, err := other.Stop(t.Context(), "maya", st.ID)
	require.NoError(t, err)
	time.AfterFunc(3*ownWriteWait, release)
	_, err = r.Stop(t.Context(), "maya", st.ID)
	requireEnded(t, err, policy.ReasonStopped)
}

// A stop of a provisional stream that is being written ends the stream, whatever the
// outcome of the write is.
func TestOutage_StopDuringWrite(t *testing.T) {
	for name, hold := range map[string]func(*etcdtest.Faults, string) func(){
		"before etcd receives it": (*etcdtest.Faults).Hold, "before its answer": (*etcdtest.Faults).HoldReply,
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, known %v", name, known), func(t *testing.T) {
				t.Parallel()
				m, f := etcdtest.Start(t, etcdtest.Config{}), &etcdtest.Faults{}
				l := newLimiter(t, etcdtest.FaultyClient(t, []string{m.Endpoint()}, f),
					Config{Limit: 1, Outage: OutageAdmit, Timeout: time.Second, TTL: 2 * time.Minute})
				t.Cleanup(f.Heal)
				m.Stop()
				awaitBreaker(t, true, l)
				st := mustStart(t, l, "maya", Request{}).Stream
				grant := f.HoldReply(etcdtest.Grant) // the call before the write
				defer grant()
				m.Restart(t)
				require.Eventually(t, func() bool { return f.Held(etcdtest.Grant) > 0 }, soon, time.Millisecond)
				release := hold(f, etcdtest.Txn)
				defer release()
				grant()
				require.Eventually(t, func() bool { return f.Held(etcdtest.Txn) > 0 }, soon, time.Millisecond)
				_, err := l.Stop(t.Context(), "maya", st.ID)
				require.NoError(t, err)
				_, err = l.Heartbeat(t.Context(), "maya", st.ID)
				requireEnded(t, err, policy.ReasonStopped)
				if !known { // etcd stops again, and the write fails
					m.Stop()
					require.Eventually(t, func() bool { return f.Held(etcdtest.Txn) == 0 }, soon, time.Millisecond)
					awaitBreaker(t, true, l)
				}
				release()
				if !known {
					m.Restart(t)
				}
				c := m.Client(t)
				require.Eventually(t, func() bool {
					_, err := l.Heartbeat(t.Context(), "maya", st.ID)
					requireEnded(t, err, policy.ReasonStopped)
					resp, err := c.Get(t.Context(), l.keys.UserPrefix("maya"), clientv3.WithPrefix(), clientv3.WithCountOnly())
					return err == nil && resp.Count == 0 && l.provisional.Len() == 0
				}, soon, 5*time.Millisecond)
				require.Eventually(t, func() bool {
					_, err := l.Start(t.Context(), "maya", Request{})
					return err == nil
				}, soon, 5*time.Millisecond, "its slot is free")
			})
		}
	}
}
