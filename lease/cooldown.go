package lease

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Whoever was evicted may not evict in turn for a while, or two clients at the
// limit would end each other's streams for ever. A start that evicts leaves a
// mark for each session and device it takes a slot from, in its own transaction,
// under a lease that nobody renews.

// maxCooled is how many of the streams that one start evicts leave marks, the
// youngest: two each, of the 128 operations that etcd allows in a transaction.
const maxCooled = 30

// newCooling holds the lease for marks. It is changed often, so that they last
// little longer than the cool-down.
func newCooling(grant func(context.Context, time.Duration) (granted, error), cfg Config) *graveyard {
	use := max(cfg.Cooldown/12, time.Second)
	g := newGraveyard(func(ctx context.Context) (granted, error) {
		return grant(ctx, (cfg.Cooldown + 2*use).Round(time.Second))
	}, 4*use, cfg.Timeout, cfg.Log)
	g.lazy = true
	return g
}

// cooldowns are the keys that would forbid a client to evict.
func (k keys) cooldowns(user, session, device string) []string {
	var out []string
	for kind, name := range map[string]string{"s-": session, "d-": device} {
		if name != "" {
			sum := sha256.Sum256([]byte(name))
			out = append(out, k.prefix+"/cooldowns/"+user+"/"+kind+base64.RawURLEncoding.EncodeToString(sum[:16]))
		}
	}
	return out
}

// marks are the keys that a start puts which ends these streams of user's.
func (k keys) marks(user string, ends []ending) []string {
	var marks []string
	cooled := 0
	for _, e := range slices.Backward(ends) {
		if e.reason != ReasonEvicted || cooled == maxCooled {
			continue
		}
		r := recordOf(e.value)
		for _, key := range k.cooldowns(user, r.Session, r.device().ID) {
			if !slices.Contains(marks, key) { // etcd takes a key once in a transaction
				marks = append(marks, key)
			}
		}
		cooled++
	}
	return marks
}

// cool are the marks that a start leaves on those it evicts; none where there is
// no lease for them in time.
func (l *Limiter) cool(a *admission, d decision) []*pb.RequestOp {
	if l.cfg.Cooldown <= 0 {
		return nil
	}
	marks := l.keys.marks(a.user, d.ends)
	if len(marks) == 0 {
		return nil
	}
	a.cooling = l.cooling.take()
	if a.cooling == 0 {
		l.cfg.Log.Warn("an evicted client may evict in turn at once: no lease for its cool-down", "user", a.user)
		return nil
	}
	var ops []*pb.RequestOp
	for _, key := range marks {
		ops = append(ops, putOp(key, nil, a.cooling))
	}
	return ops
}

// coolingFor is how long the client of a start may not evict anybody yet. It is
// asked after the user's streams were read, so that it knows of every eviction
// which they show.
func (l *Limiter) coolingFor(ctx context.Context, a *admission) (time.Duration, error) {
	marks := l.keys.cooldowns(a.user, a.req.Session, a.req.Device.ID)
	if l.cfg.Cooldown <= 0 || len(marks) == 0 {
		return 0, nil
	}
	ranges := make([]keyRange, len(marks))
	for i, key := range marks {
		ranges[i] = oneKey(key)
	}
	resp, err := l.readAll(ctx, ranges...)
	if err != nil {
		return 0, unavailable("read the cool-downs of "+a.user, err)
	}
	var leases []int64
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			leases = append(leases, kv.Lease)
		}
	}
	lives := l.askLifetimes(ctx, resp.Header.RaftTerm, leases)
	var longest time.Duration
	for _, id := range leases {
		switch t, told := lives[id]; {
		case !told: // by etcd's leader, or not by one that may be believed
			longest = max(longest, l.cfg.Cooldown)
		case !t.lapsed:
			longest = max(longest, t.left+time.Second) // it was cut to whole seconds
		}
	}
	return longest, nil
}
