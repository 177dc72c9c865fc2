package lease

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// An evicted client may not evict others for a while, because two clients at the limit
// would otherwise end each other's streams again and again. The transaction of a start
// that evicts streams puts a cooldown key for the session and the device of each, under a
// lease that is not renewed.

// maxCooldownVictims is the maximum number of evicted streams, the youngest ones, for
// which a start puts cooldown keys. They need two operations each, and etcd allows 128
// in a transaction.
const maxCooldownVictims = 30

// newCooldownLease returns the lease of the cooldown keys. It is replaced often, so that
// they last little longer than the cool-down.
func newCooldownLease(g *leasepool.Granter, cfg Config) *leasepool.RotatingLease {
	use := max(cfg.Cooldown/12, time.Second)
	return leasepool.NewRotatingLease(g, leasepool.RotatingConfig{
		TTL: (cfg.Cooldown + 2*use).Round(time.Second), UseFor: use, MaxWait: cfg.Timeout / 8, OnDemand: true, Log: cfg.Log,
	})
}

// cooldownKeys returns the cooldown keys for evicted streams, oldest first.
func cooldownKeys(k schema.Keys, user string, evicted []schema.Entry) []string {
	var keys []string
	for _, e := range evicted[max(0, len(evicted)-maxCooldownVictims):] {
		r := schema.DecodeRecord(e.Value)
		for _, key := range k.ClientCooldowns(user, r.Session, r.DeviceID()) {
			if !slices.Contains(keys, key) { // etcd rejects a transaction that puts a key twice
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// cooldownOps returns the puts of the cooldown keys for the streams that the start
// evicts. It returns nil if there is no lease for them in time.
func (a *attempt) cooldownOps() []*pb.RequestOp {
	if a.l.cfg.Cooldown <= 0 {
		return nil
	}
	var evicted []schema.Entry
	for e, reason := range a.endings() {
		if reason == policy.ReasonEvicted {
			evicted = append(evicted, e)
		}
	}
	keys := cooldownKeys(a.l.keys, a.user, evicted)
	if len(keys) == 0 {
		return nil
	}
	a.cooldownLease = a.l.cooldownLease.Acquire()
	if a.cooldownLease == 0 {
		a.l.cfg.Log.Warn("no lease for a cool-down in time: the evicted client may evict others at once", "user", a.user)
		return nil
	}
	var ops []*pb.RequestOp
	for _, key := range keys {
		ops = append(ops, etcdop.Put(key, nil, a.cooldownLease))
	}
	return ops
}

// cooldownLeft returns how long the client of the start may not evict a stream. It reads
// the cooldown keys after the user's streams, so it takes every eviction into account
// that the snapshot shows.
func (a *attempt) cooldownLeft(ctx context.Context) (time.Duration, error) {
	l := a.l
	keys := l.keys.ClientCooldowns(a.user, a.req.Session, a.req.Device.ID)
	if l.cfg.Cooldown <= 0 || len(keys) == 0 {
		return 0, nil
	}
	ranges := make([]etcdop.Range, len(keys))
	for i, key := range keys {
		ranges[i] = etcdop.Key(key)
	}
	resp, err := etcdop.ReadAll(ctx, l.etcd.KV, ranges...)
	if err != nil {
		return 0, etcdop.Unavailable("read the cool-downs of "+a.user, err)
	}
	var leases []int64
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			leases = append(leases, kv.Lease)
		}
	}
	statuses := l.leaseStatus.Query(ctx, resp.Header.RaftTerm, leases)
	var longest time.Duration
	for _, id := range leases {
		switch t, known := statuses[id]; {
		case !known: // the leader did not report it, or may have been deposed
			longest = max(longest, l.cfg.Cooldown)
		case !t.Expired:
			longest = max(longest, t.Remaining+time.Second) // it is truncated to whole seconds
		}
	}
	return longest, nil
}
