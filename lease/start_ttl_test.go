package lease

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdsim"
)

// A start renews its lease only if the lease was not renewed recently. Its stream has at
// least three quarters of its TTL, and does not expire before its expiresAt.
func TestStart_RenewsOldLeases(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var pauses []time.Duration
		for range 5 {
			pauses = append(pauses, time.Duration(rapid.IntRange(0, 40_000).Draw(rt, "pause"))*time.Millisecond)
		}
		etcdsim.Bubble(t, func(t *testing.T) {
			t.Helper()
			etcd := etcdsim.New()
			link := &etcdsim.Link{Etcd: etcd, Delay: 5 * time.Millisecond}
			l, err := New(Etcd{KV: link.KV(), Lease: link.Lease(), Watch: link.Watcher()}, Config{Prefix: "/p", Limit: 1, Secret: make([]byte, 32)})
			require.NoError(t, err)
			ctx, stop := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { _ = l.Run(ctx) }) // it returns nil
			startAndStop(t, l, etcd)
			startAndStop(t, l, etcd)
			require.Zero(t, l.Stats().Renewals["renewed"], "all leases are new")
			for _, pause := range pauses {
				time.Sleep(pause)
				startAndStop(t, l, etcd)
			}
			stop()
			running.Wait()
		})
	})
}

// startAndStop starts streams of ten users, which are more than the leases that the pool
// renews, and stops them.
func startAndStop(t *testing.T, l *Limiter, etcd *etcdsim.Etcd) {
	t.Helper()
	ids := map[string]string{}
	for i := range 10 {
		user, began := fmt.Sprint("user-", i), time.Now()
		st, err := l.Start(t.Context(), user, Request{})
		require.NoError(t, err)
		who, err := l.ids.Parse(user, st.Stream.ID)
		require.NoError(t, err)
		expires := st.Stream.ExpiresAt
		require.False(t, expires.Before(began.Add(l.cfg.TTL*3/4)), "%v remain", expires.Sub(began))
		renewed := etcd.LastRenewal(who.Lease)
		require.False(t, expires.After(renewed.Add(l.cfg.TTL)), "%v after the last renewal", expires.Sub(renewed))
		ids[user] = st.Stream.ID
	}
	for user, id := range ids {
		_, err := l.Stop(t.Context(), user, id)
		require.NoError(t, err)
	}
}
