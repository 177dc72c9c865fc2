package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasestatus"
	"streamcount/lease/internal/schema"
	"streamcount/lease/userid"
)

// Consistency says how old an answer may be.
type Consistency string

// The values of Consistency.
const (
	// Bounded reads the replica of this node. The answer is never older than the last
	// write of this node to the user, and at most a few seconds older than the writes of
	// other nodes. If the replica is older than that, etcd is read.
	Bounded Consistency = "bounded"
	// Linearizable reads etcd.
	Linearizable Consistency = "linearizable"
)

// List returns the streams of user, oldest first. ExpiresAt is zero for a stream whose
// lease etcd does not report in time. List returns [ErrBadUser], [ErrNoStreams] and
// [ErrUnavailable].
func (l *Limiter) List(ctx context.Context, user string, how Consistency) (Usage, error) {
	if !userid.Valid(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	read := l.snapshotOf
	if how == Linearizable {
		read = l.readUser
	}
	s, err := read(ctx, user)
	if err != nil {
		return Usage{}, err
	}
	if len(s.entries) == 0 {
		return Usage{}, ErrNoStreams
	}
	statuses := l.displayStatuses(ctx, user, s, how)
	r := l.ruleOf(user, newestRecord(s.entries))
	u := Usage{User: user, Count: len(s.entries), Limit: r.Limit, Counted: countEntries(r, s.entries)}
	for _, e := range s.entries {
		st := l.stream(user, e)
		st.ExpiresAt = statuses[e.Lease].NotExpiredBefore()
		u.Active = append(u.Active, st)
	}
	return u, nil
}

// displayStatuses returns lease statuses to show to users. The leader may be in another
// region, so it is not queried for a stream that this node renewed less than half a TTL
// ago: since then the stream has at least a TTL, and more only if another node has
// renewed it.
func (l *Limiter) displayStatuses(ctx context.Context, user string, s snapshot, how Consistency) map[int64]leasestatus.Status {
	own, others := map[int64]leasestatus.Status{}, s
	others.entries = nil
	for _, h := range s.entries {
		at, _ := l.replica.Lookup(user, h.StreamID())
		if how == Linearizable || at == nil {
			others.entries = append(others.entries, h)
			continue
		}
		renewed, ttl := at.LastRenewal(), schema.DecodeHead(h.Value).TTL()
		if time.Since(renewed) >= ttl/2 {
			others.entries = append(others.entries, h)
			continue
		}
		own[h.Lease] = leasestatus.Status{Lease: h.Lease, QueriedAt: renewed, Remaining: ttl}
	}
	statuses := l.leaseStatus.OfUser(ctx, user, others.term, others.leases())
	maps.Copy(statuses, own)
	return statuses
}

var errReplicaStale = errors.New(
	"this node is still reading the streams from etcd: try again in a moment, or use another node")

// Totals counts the streams of all users in this node's replica. It includes the node's
// own writes, and those of other nodes after at most a few seconds. A node that has just
// started waits for its replica; if that takes too long, Totals returns an
// [ErrUnavailable]. If there are other limits than the default, the number
// of users at their limit is counted at most every two seconds, and less often if that takes
// long.
func (l *Limiter) Totals(ctx context.Context) (Totals, error) {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	for !l.replica.WaitOwnWrites(ctx) && !retryPause(ctx) {
	}
	usual := l.ruleOf("", nil)
	t, claims := l.countStreams(usual.Limit)
	if !l.replica.Current() {
		return Totals{}, etcdop.Unavailable("count streams", errReplicaStale)
	}
	if claims || !usual.Counting.PerStream() || l.replica.Rules().HasOverrides() {
		t.UsersAtLimit = l.atLimitCount.Within(atLimitInterval, l.countUsersAtLimit)
	}
	t.Admitted, t.Refused, t.Expired = l.admitted.Load(), l.refused.Load(), l.replica.Expiries()
	return t, nil
}

// atLimitInterval is the maximum age of [Totals.UsersAtLimit].
const atLimitInterval = 2 * time.Second

// countUsersAtLimit counts the users who have reached their limit. It reads the streams
// of every user.
func (l *Limiter) countUsersAtLimit() int {
	n := 0
	l.replica.EachUser(func(user string, hs []schema.Entry) {
		if r := l.ruleOf(user, newestRecord(hs)); countEntries(r, hs) >= r.Limit {
			n++
		}
	})
	return n
}

// EachUser calls f with each user and the number of their streams. It returns an
// [ErrUnavailable] if the replica is not complete.
func (l *Limiter) EachUser(ctx context.Context, f func(user string, streams int)) error {
	if _, err := l.Totals(ctx); err != nil {
		return err
	}
	l.replica.EachUser(func(user string, hs []schema.Entry) { f(user, len(hs)) })
	return nil
}

// recordOwnWrite records the revision of a write of this node to a user's keys.
func (l *Limiter) recordOwnWrite(user string, rev int64) {
	l.ownWrites.Put(user, rev)
	l.replica.RecordOwnWrite(rev)
}

// String returns u for logs and test failures.
func (u Usage) String() string { return fmt.Sprintf("%s: %d of %d", u.User, u.Count, u.Limit) }
