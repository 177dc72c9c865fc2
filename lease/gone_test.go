package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

// What a node has said to be over stays over, though the node hears of etcd late:
// the lease has been handed on, so that to renew it would work.
func TestHeartbeat_WhatWasSaidToBeGoneStaysGone(t *testing.T) {
	r := newRig(t, Config{Limit: 1})
	other := newLimiter(t, r.honest, Config{Prefix: r.cfg.Prefix, Limit: 1})
	st := mustStart(t, r.Limiter, "maya", Request{Session: "tv"}).Stream
	release := r.faults.HoldReply(etcdtest.Watch)
	defer release()
	mustStart(t, other, "maya", Request{Session: "tv"})
	_, err := r.Heartbeat(t.Context(), "maya", st.ID)
	require.NoError(t, err, "nobody has told this node")
	_, err = r.Stop(t.Context(), "maya", st.ID)
	requireEnded(t, err, ReasonEnded)
	_, err = r.Heartbeat(t.Context(), "maya", st.ID)
	requireEnded(t, err, ReasonEnded)
	release()
	who := leaseOfID(t, r.Limiter, st)
	require.Eventually(t, func() bool { _, told := r.view.ended(who.nonce); return told }, 5*time.Second, time.Millisecond)
	_, err = r.Heartbeat(t.Context(), "maya", st.ID)
	requireEnded(t, err, ReasonReplaced)
}
