package replica

import (
	"context"
	"time"
)

const (
	staleCheckInterval = time.Second
	staleWarnDelay     = 30 * time.Second // how long a replica is not current before a warning is logged
)

// WarnWhenStale logs when the replica has not been current for [staleWarnDelay], and
// when it is current again. A node with a stale replica still serves every call by
// reading from etcd, so readiness does not depend on the replica.
func (r *Replica) WarnWhenStale(ctx context.Context) {
	check := time.NewTicker(staleCheckInterval)
	defer check.Stop()
	since, warned := time.Now(), false
	for {
		select {
		case <-ctx.Done():
			return
		case <-check.C:
		}
		switch {
		case r.Current():
			if warned {
				r.cfg.Log.Info("the replica of the streams is current again")
			}
			since, warned = time.Now(), false
		case !warned && time.Since(since) >= staleWarnDelay:
			warned = true
			attrs := []any{"for", staleWarnDelay}
			if err := r.lastError.Load(); err != nil && *err != nil {
				attrs = append(attrs, "err", *err)
			}
			r.cfg.Log.Warn("the replica of the streams is not current: every start, heartbeat and list reads from etcd, "+
				"and requests for totals get 503; check the connection to etcd", attrs...)
		}
	}
}
