package rules

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"golang.org/x/sync/errgroup"

	"streamcount/internal/retry"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// An override that ends is put under a separate etcd lease, which is granted for the
// remaining time. Each put has a new lease or none, and etcd detaches the key from the
// previous one. So a lease that is left over has no key, and its end changes nothing.
//
// The lease alone is not exact. A member that becomes etcd's leader, or starts again, gives
// all leases their whole time once more. So each node removes the overrides that its
// replica still contains some seconds after their time. It compares the revisions of their
// puts. The remaining error is that of the clocks: one node computes the time of the lease,
// and any node may remove the key.
//
// The key is the truth. A rule does not depend on the time when it is read, because a start
// reads it more than once, and by the clocks of several nodes.

const (
	maxConcurrentGrants = 64

	removeInterval = 2 * time.Second
	removeAfter    = 2 * time.Second // after the end of an override; until then its lease may remove it
	// maxRemovals is the maximum number of overrides that one transaction removes. etcd
	// allows 128 operations.
	maxRemovals = 50
)

// endLeases are the leases that a change has granted for overrides that end, by user.
type endLeases struct {
	granter *leasepool.Granter
	byUser  map[string]int64
}

// grant makes the leases those of the overrides in c that end. It returns a
// [policy.ErrBadRule] if an override has ended, and lease.ErrUnavailable.
func (l *endLeases) grant(ctx context.Context, c Changes) error {
	unused := l.byUser
	l.byUser = map[string]int64{}
	var missing []OverrideChange
	for _, u := range c.Users {
		if u.New == nil || u.New.Until.IsZero() {
			continue
		}
		if id, ok := unused[u.User]; ok {
			l.byUser[u.User] = id
			delete(unused, u.User)
		} else {
			missing = append(missing, u)
		}
	}
	l.revoke(unused)
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxConcurrentGrants)
	for _, u := range missing {
		g.Go(func() error {
			id, err := grantUntil(ctx, l.granter, u.New.Until)
			if err != nil {
				return fmt.Errorf("user %s: %w", u.User, err)
			}
			mu.Lock()
			defer mu.Unlock()
			l.byUser[u.User] = id
			return nil
		})
	}
	return g.Wait()
}

// errEnded means that an override would end at once.
var errEnded = &policy.PlanError{Fields: []policy.FieldError{{Location: "until", Problem: "the time is not in the future"}}}

// grantUntil grants a lease that lasts until a time, or up to a second longer.
func grantUntil(ctx context.Context, g *leasepool.Granter, until time.Time) (int64, error) {
	left := time.Until(until)
	if left <= 0 {
		return 0, errEnded
	}
	granted, err := g.Grant(ctx, (left + time.Second - 1).Truncate(time.Second))
	return granted.ID, err
}

// revoke revokes leases that no key has.
func (l *endLeases) revoke(leases map[string]int64) {
	for _, id := range leases {
		l.granter.RevokeLater(id)
	}
}

// revokeUnused revokes the leases of a change that was not applied.
func (l *endLeases) revokeUnused() {
	l.revoke(l.byUser)
	l.byUser = nil
}

// keep keeps the leases of a change that was or may have been applied. A lease without a
// key ends by itself.
func (l *endLeases) keep() { l.byUser = nil }

// overrides returns the stored overrides that a change replaces or removes.
func (s snapshot) overrides(c Changes) (kvs []*mvccpb.KeyValue) {
	for _, u := range c.Users {
		if kv := s.kvs[s.keys.Override(u.User)]; kv != nil {
			kvs = append(kvs, kv)
		}
	}
	return kvs
}

// RevokeLeases revokes, in the background, the leases of overrides that were replaced or
// removed. No later put of the keys has these leases.
func (s *Store) RevokeLeases(overrides []*mvccpb.KeyValue) {
	for _, kv := range overrides {
		if !schema.DecodeUntil(kv.Value).IsZero() { // otherwise the lease, if any, is not from a Store
			s.cfg.Granter.RevokeLater(kv.Lease)
		}
	}
}

// Restore returns the operation that puts an override that was stored in another etcd
// cluster, and its new lease, or 0. The operation is nil if the override has ended. Restore
// returns lease.ErrUnavailable.
func (s *Store) Restore(ctx context.Context, user string, value []byte) (put *pb.RequestOp, lease int64, err error) {
	if until := schema.DecodeUntil(value); !until.IsZero() {
		lease, err = grantUntil(ctx, s.cfg.Granter, until)
		if errors.Is(err, errEnded) {
			return nil, 0, nil
		}
		if err != nil {
			return nil, 0, err
		}
	}
	return etcdop.Put(s.cfg.Keys.Override(user), value, lease), lease, nil
}

// Run removes overrides that have ended and whose leases have not, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	for retry.Sleep(ctx, removeInterval) == nil {
		for s.removeEnded(ctx) {
		}
	}
	return nil
}

// removeEnded removes some of the overrides that have ended. It reports whether there may
// be more.
func (s *Store) removeEnded(ctx context.Context) (more bool) {
	ended := s.cfg.Replica.Rules().Ended(time.Now().Add(-removeAfter), maxRemovals)
	if len(ended) == 0 {
		return false
	}
	t := &pb.TxnRequest{}
	for user, revision := range ended {
		key := s.cfg.Keys.Override(user)
		t.Success = append(t.Success, etcdop.Txn(&pb.TxnRequest{
			Compare: []*pb.Compare{etcdop.ModRevisionIs(key, revision)}, // another node may have removed or replaced it
			Success: []*pb.RequestOp{etcdop.Delete(etcdop.Key(key))},
		}))
	}
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	resp, err := s.cfg.KV.Txn(ctx, t)
	if err != nil {
		return false // repeated after removeInterval
	}
	return len(ended) == maxRemovals && s.cfg.Replica.WaitApplied(ctx, resp.Header.Revision)
}
