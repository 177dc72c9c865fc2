package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"streamcount/internal/retry"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/keepalive"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/provisional"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/stats"
	"streamcount/lease/streamid"
)

// Outage says what happens to starts while etcd does not answer.
type Outage string

// The values of Outage.
const (
	OutageDeny  Outage = "deny"  // they fail
	OutageAdmit Outage = "admit" // the node admits them by its replica, and writes them to etcd later
)

const (
	syncInterval = 100 * time.Millisecond
	// outageGrace is how long after an outage a stream that another node admitted may
	// still be missing in etcd.
	outageGrace = 15 * time.Second
)

// dropProvisional ends and returns the provisional stream with that nonce; nil if there is
// none. If a write was attempted, its key may exist, so the lease is revoked. No other
// key has that lease.
func (l *Limiter) dropProvisional(user string, n streamid.Nonce) *provisional.Stream {
	p, attempted := l.provisional.Remove(user, n)
	if attempted {
		l.granter.RevokeLater(p.Entry.Lease)
	}
	return p
}

// admitLocally admits a start by the replica and the provisional streams of this node.
// It rejects a start with the same errors as etcd would. cause is why etcd was not
// used, and is returned if the node cannot admit the start.
func (l *Limiter) admitLocally(a *attempt, cause error) (Started, error) {
	if l.replica.AppliedRevision() == 0 {
		return Started{}, cause // the replica was never complete
	}
	l.localAdmission.Lock()
	defer l.localAdmission.Unlock()
	entries, _, _ := l.replica.UserEntries(a.user)
	entries = append(entries, l.provisional.Entries(a.user)...)
	err := a.resolve(l.replica.Rules())
	if errors.Is(err, policy.ErrUnreadable) {
		return Started{}, etcdop.Unavailable("start for "+a.user, err)
	}
	if err != nil {
		return Started{}, err
	}
	start := a.start
	start.Evict = false // the streams may be renewed through other nodes
	d, ok := decideOn(a.rule, entries, nil, start)
	if !ok {
		rejection := l.limitError(a.user, a.rule, entries, nil)
		rejection.explain(a.rule, entries, nil, start)
		return Started{}, rejection
	}
	n, err := rand.Int(rand.Reader, big.NewInt(provisional.Slots))
	if err != nil {
		return Started{}, cause
	}
	a.lease, a.unknownOutcome, a.renewal = leasepool.Lease{ID: leasepool.NewID(), TTL: l.cfg.TTL}, false, nil
	a.buildRecord()
	p := a.provisionalStream(provisional.FirstSlot + int(n.Int64()))
	for _, e := range d.Endings { // ends provisional streams; those in etcd end when this one is written
		l.dropProvisional(a.user, e.Stream.Nonce)
	}
	limit := a.rule.Limit // from Add on, the write may decide again at any time
	if !l.provisional.Add(p) {
		return Started{}, cause
	}
	st := Started{Stream: l.stream(a.user, p.Entry)}
	st.Usage = Usage{User: a.user, Count: len(entries) - len(d.Endings) + 1, Limit: limit}
	st.Counted, st.Observed = st.Count, d.Observed
	st.Stream.ExpiresAt, st.Stream.Degraded = time.Now().Add(l.cfg.TTL), true
	return st, nil
}

// provisionalStream returns the provisional stream of an attempt that has a lease and a
// record.
func (a *attempt) provisionalStream(slot int) *provisional.Stream {
	e := schema.Entry{Slot: slot, Lease: a.lease.ID, Nonce: a.record.Nonce, Session: a.req.Session, Value: a.value}
	return &provisional.Stream{
		User: a.user, Entry: e,
		Write: func(ctx context.Context) (schema.Entry, error) { return a.writeLater(ctx, e) },
	}
}

// syncProvisional writes provisional streams to etcd when it answers, until ctx ends.
func (l *Limiter) syncProvisional(ctx context.Context) error {
	for retry.Sleep(ctx, syncInterval) == nil {
		if l.breaker.IsOpen() {
			for range l.provisional.RemoveSilent(l.cfg.TTL) {
				l.counters.Sync(stats.SyncExpired)
			}
			continue
		}
		all := l.provisional.All()
		if len(all) == 0 {
			continue
		}
		written, rejected := 0, 0
		for _, p := range all {
			err := l.writeProvisional(ctx, p)
			if errors.Is(err, ErrUnavailable) {
				break // the next round repeats it
			}
			if err == nil {
				written++
				l.counters.Sync(stats.SyncWritten)
			} else {
				rejected++
				l.counters.Sync(stats.SyncRejected)
			}
		}
		l.cfg.Log.Warn("provisional streams of an outage were synced with etcd",
			"written", written, "rejected", rejected, "left", len(all)-written-rejected)
	}
	return nil
}

// writeProvisional writes a provisional stream to etcd, or ends it if its user is at the
// limit by now. After an [ErrUnavailable] the stream is still provisional.
func (l *Limiter) writeProvisional(ctx context.Context, p *provisional.Stream) error {
	user, n := p.User, p.Entry.Nonce
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	l.provisional.MarkAttempted(p)
	e, err := p.Write(ctx)
	if errors.Is(err, ErrUnavailable) {
		if !l.provisional.Contains(user, n) { // it was stopped in between
			l.granter.RevokeLater(p.Entry.Lease)
		}
		return err
	}
	if err != nil {
		l.replica.RecordOwnEnding(user, schema.Tombstone{Nonce: n, Reason: policy.ReasonEvicted})
	}
	if removed, _ := l.provisional.Remove(user, n); removed == nil && err == nil {
		l.stopLater(user, e) // it was stopped in between
	}
	return err
}

// writeLater admits the provisional stream with the key e by etcd and writes its key,
// which it returns.
func (a *attempt) writeLater(ctx context.Context, e schema.Entry) (schema.Entry, error) {
	l := a.l
	a.callerCtx = nil
	for {
		var err error
		if a.snapshot, err = a.readSnapshot(ctx); err != nil {
			return schema.Entry{}, err
		}
		for _, other := range a.snapshot.entries {
			if other.Nonce == e.Nonce {
				return other, nil // an earlier write was applied
			}
			if other.Slot == e.Slot {
				return schema.Entry{}, ErrLimit // another provisional stream; the player starts again
			}
		}
		if err := a.decide(ctx); err != nil {
			return schema.Entry{}, err
		}
		if a.lease, err = l.grantProvisional(ctx, e.Lease); err != nil {
			return schema.Entry{}, etcdop.Unavailable("start", err)
		}
		a.decision.Slot = e.Slot
		_, done, err := a.write(ctx)
		if err == nil && done {
			return a.entry, nil
		}
		if err != nil && retryPause(ctx) {
			return schema.Entry{}, etcdop.Unavailable("start", err)
		}
	}
}

// grantProvisional grants the lease of a provisional stream. If an earlier attempt has
// granted it, it renews the lease, because its TTL began with the earlier grant.
func (l *Limiter) grantProvisional(ctx context.Context, id int64) (leasepool.Lease, error) {
	sent := time.Now()
	_, err := l.etcd.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: int64(l.cfg.TTL / time.Second)})
	if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
		r := keepalive.RenewOnNewStream(ctx, l.etcd.Lease, id) // it may have expired
		sent, err = r.Sent, r.Err
	}
	return leasepool.Lease{ID: id, TTL: l.cfg.TTL, Renewed: sent}, err
}

// mayBeUnsynced reports whether a provisional stream that is missing in etcd may be one
// that another node is still to write.
func (l *Limiter) mayBeUnsynced(err error) bool {
	var ended *EndedError
	return errors.As(err, &ended) && (ended.Reason == policy.ReasonEnded || ended.Reason == policy.ReasonExpired) &&
		l.cfg.Outage == OutageAdmit && l.breaker.WasOpen(outageGrace)
}
