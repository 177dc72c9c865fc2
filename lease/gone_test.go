package lease

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/etcdtest"
)

// What a node has said to be over stays over, though the node hears of etcd late:
// the lease has been handed on, so that to renew it would work.
func TestHeartbeat_WhatWasSaidToBeGoneStaysGone(t *testing.T) {
	r := newRig(t, Config{Limit: 1})
	other := newLimiter(t, r.honest, Config{Prefix: r.cfg.Prefix, Limit: 1})
	st := mustStart(t, r.Limiter, "maya", Request{Session: "tv"}).Stream
	who := leaseOfID(t, r.Limiter, st)
	require.Eventually(t, func() bool { // this it has heard
		s, current := r.view.lookup("maya", who)
		return s != nil && current
	}, soon, time.Millisecond)
	release := r.faults.HoldReply(etcdtest.Watch)
	defer release()
	mustStart(t, other, "maya", Request{Session: "tv"})
	_, err := r.Heartbeat(t.Context(), "maya", st.ID)
	require.NoError(t, err, "nobody has told this node")
	_, err = r.Stop(t.Context(), "maya", st.ID)
	requireEnded(t, err, ReasonEnded)
	_, err = r.Heartbeat(t.Context(), "maya", st.ID)
	requireEnded(t, err, ReasonEnded)
	r.faults.CutReply(etcdtest.Txn, 1) // a stop that cannot tell whether it did it would be believed to have
	_, err = r.Stop(t.Context(), "maya", st.ID)
	requireEnded(t, err, ReasonEnded)
	release()
	require.Eventually(t, func() bool { _, told := r.view.ended(who.nonce); return told }, time.Minute, time.Millisecond)
	_, err = r.Heartbeat(t.Context(), "maya", st.ID)
	requireEnded(t, err, ReasonReplaced)
}

// Who stops a provisional stream while it is being written has stopped it, whatever
// becomes of the write, and whenever that is known.
func TestOutage_StopWhileItIsWritten(t *testing.T) {
	for name, hold := range map[string]func(*etcdtest.Faults, string) func(){
		"before etcd has it": (*etcdtest.Faults).Hold, "before its answer": (*etcdtest.Faults).HoldReply,
	} {
		for _, known := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, known %v", name, known), func(t *testing.T) {
				t.Parallel()
				m, f := etcdtest.Start(t, etcdtest.Config{}), &etcdtest.Faults{}
				l := newLimiter(t, etcdtest.FaultyClient(t, []string{m.Endpoint()}, f),
					Config{Limit: 1, Outage: OutageAdmit, Timeout: time.Second, TTL: 2 * time.Minute})
				t.Cleanup(f.Heal)
				m.Stop()
				awaitCircuit(t, true, l)
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
				requireEnded(t, err, ReasonStopped)
				if !known { // etcd goes away once more, and the write is given up
					m.Stop()
					require.Eventually(t, func() bool { return f.Held(etcdtest.Txn) == 0 }, soon, time.Millisecond)
					awaitCircuit(t, true, l)
				}
				release()
				if !known {
					m.Restart(t)
				}
				c := m.Client(t)
				require.Eventually(t, func() bool {
					_, err := l.Heartbeat(t.Context(), "maya", st.ID)
					requireEnded(t, err, ReasonStopped)
					resp, err := c.Get(t.Context(), l.keys.user("maya"), clientv3.WithPrefix(), clientv3.WithCountOnly())
					return err == nil && resp.Count == 0 && l.pending.size() == 0
				}, soon, 5*time.Millisecond)
				require.Eventually(t, func() bool {
					_, err := l.Start(t.Context(), "maya", Request{})
					return err == nil
				}, soon, 5*time.Millisecond, "its slot is free")
			})
		}
	}
}
