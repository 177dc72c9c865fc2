package leasepool

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"streamcount/internal/retry"
)

// A RotatingLease is a lease that short-lived keys share: tombstones, or cool-down keys.
// It is not renewed, so that no key outlives one TTL. It is replaced while most of its
// time is left, and before it has so many keys that its expiry would slow etcd down.
type RotatingLease struct {
	granter granter
	cfg     RotatingConfig
	wake    chan struct{}

	mu        sync.Mutex // not held during I/O
	lease     int64
	used      int
	replaceAt time.Time
	ready     chan struct{} // closed when lease is set
}

// MaxKeysPerLease is as in Kubernetes.
const MaxKeysPerLease = 1000

// RotatingConfig configures a [RotatingLease].
type RotatingConfig struct {
	TTL      time.Duration // of each lease
	UseFor   time.Duration // after this a lease is replaced by the next use, and after twice that it is not used
	MaxWait  time.Duration // for a write that needs a lease
	OnDemand bool          // grant the first lease on the first request
	Log      *slog.Logger
}

// NewRotatingLease returns a RotatingLease without a lease.
func NewRotatingLease(g granter, cfg RotatingConfig) *RotatingLease {
	return &RotatingLease{granter: g, cfg: cfg, wake: make(chan struct{}, 1), ready: make(chan struct{})}
}

// Acquire returns a lease for one more key, or 0 if none is granted within MaxWait. To
// free a slot in time is more important than to record the reason.
func (r *RotatingLease) Acquire() int64 {
	id, ready := r.currentOrReady()
	if ready == nil {
		return id
	}
	select {
	case <-ready:
		id, _ = r.currentOrReady()
	case <-time.After(r.cfg.MaxWait):
	}
	return id
}

// currentOrReady returns the current lease, or a channel that is closed when there is
// one.
func (r *RotatingLease) currentOrReady() (int64, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch {
	case r.lease == 0 || r.used >= MaxKeysPerLease || !now.Before(r.replaceAt.Add(r.cfg.UseFor)):
		r.requestGrant()
		if r.lease != 0 {
			r.lease, r.ready = 0, make(chan struct{})
		}
		return 0, r.ready
	case r.used >= MaxKeysPerLease/2 || !now.Before(r.replaceAt):
		r.requestGrant()
	}
	r.used++
	return r.lease, nil
}

func (r *RotatingLease) requestGrant() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Invalidate stops the use of lease id, which etcd reported as gone.
func (r *RotatingLease) Invalidate(id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != 0 && r.lease == id {
		r.lease, r.ready = 0, make(chan struct{})
		r.requestGrant()
	}
}

// Current returns the lease in use, or 0.
func (r *RotatingLease) Current() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease
}

// Run grants leases until ctx ends.
func (r *RotatingLease) Run(ctx context.Context) error {
	if r.cfg.OnDemand {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		}
	}
	for {
		sent := time.Now()
		if got, err := r.granter.Grant(ctx, r.cfg.TTL); err == nil {
			r.install(got.ID, sent)
		} else if ctx.Err() == nil {
			r.cfg.Log.Debug("cannot grant a lease for tombstones or cool-downs", "err", err)
			if retry.Sleep(ctx, grantRetryDelay) != nil {
				return nil
			}
			continue
		}
		for replace := false; !replace; replace = r.needsReplacement() { // an earlier request may be satisfied
			select {
			case <-ctx.Done():
				return nil
			case <-r.wake:
			}
		}
	}
}

func (r *RotatingLease) needsReplacement() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lease == 0 || r.used >= MaxKeysPerLease/2 || !time.Now().Before(r.replaceAt)
}

func (r *RotatingLease) install(id int64, sent time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease == 0 {
		close(r.ready)
	}
	r.lease, r.used, r.replaceAt = id, 0, sent.Add(r.cfg.UseFor)
}
