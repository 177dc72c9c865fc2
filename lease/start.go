package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"streamcount/lease/internal/breaker"
	"streamcount/lease/internal/commit"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/keepalive"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/userid"
)

// errRetry means that nothing of an attempt was applied, or can still be applied.
var errRetry = errors.New("try again")

// An attempt is a start in progress. Each lease that it tries comes with a new nonce,
// so that no write can be mistaken for another.
type attempt struct {
	l         *Limiter
	user      string
	req       Request
	start     policy.Start
	claims    policy.Claims
	callerCtx context.Context // its end cancels a write that was not sent; nil for never

	// The decision, and what it was made on. See admission.go.
	snapshot snapshot
	rule     policy.Rule
	decision policy.Decision

	// The lease and the record to write under it.
	lease          leasepool.Lease         // ID is 0 before acquireLease
	unknownOutcome bool                    // a write under the lease has an unknown outcome
	renewal        <-chan keepalive.Result // nil if the lease was renewed recently
	record         schema.Record
	value          []byte // the stored form of record
	cooldownLease  int64  // the lease of the cooldown keys that the last write contained

	entry schema.Entry // the key that the admitted start has written
}

// Start admits one more stream of user, or rejects it with a [*LimitError]. The usage
// that it returns is that of the etcd revision which admitted the stream. A start that does
// not state what the user's plan requires gets a [*policy.MissingAttributesError].
//
// If ctx ends before the outcome is known, the stream is abandoned: if it was started,
// it is stopped in the background. Start then returns the error of ctx or an
// [ErrUnavailable]. A stream of a start with Join is not stopped, because other requests of
// its session may have joined it. A start with Via returns a [*Bar] if its session is barred.
//
// Start also returns [ErrRouting], [ErrBadUser], [policy.ErrBadAttributes],
// [streamid.ErrMalformed] and [streamid.ErrForeign] for Request.Replaces, and
// [policy.ErrNoPlan] for Request.Plan. If this version cannot read the user's plan or
// override, the error is an [ErrUnavailable] and a [policy.ErrUnreadable]. With
// [OutageAdmit] the stream is Degraded if the node admitted it without etcd.
func (l *Limiter) Start(ctx context.Context, user string, req Request) (Started, error) {
	st, err := l.startStream(ctx, user, req)
	l.countStart(ctx, &st, err)
	return st, err
}

func (l *Limiter) startStream(ctx context.Context, user string, req Request) (Started, error) {
	a, err := l.newAttempt(ctx, user, req)
	if err != nil {
		return Started{}, err
	}
	call, cancel := l.withDeadline(ctx)
	defer cancel()
	var st Started
	if l.breaker.IsOpen() {
		err = etcdop.Unavailable("start for "+user, breaker.ErrOpen)
	} else {
		st, err = a.run(call)
	}
	if l.cfg.Outage == OutageAdmit && errors.Is(err, ErrUnavailable) && l.breaker.IsOpen() && ctx.Err() == nil {
		st, err = l.admitLocally(a, err)
	}
	switch {
	case err == nil && ctx.Err() != nil && !a.req.Join: // the caller does not receive the answer
		l.stopLater(user, a.entry)
		return Started{}, fmt.Errorf("start for %s: %w", user, context.Cause(ctx))
	case isLimit(err):
		l.refused.Add(1)
		if rejected, ok := errors.AsType[*LimitError](err); ok && l.cfg.Observer != nil {
			l.cfg.Observer.StartRejected(user, l.replica.AppliedRevision(), rejected)
		}
	case err == nil && !st.Joined:
		l.admitted.Add(1)
		if l.cfg.Observer != nil {
			l.cfg.Observer.StartAdmitted()
		}
	}
	return st, err
}

func (l *Limiter) newAttempt(ctx context.Context, user string, req Request) (*attempt, error) {
	if !userid.Valid(user) {
		return nil, ErrBadUser
	}
	if req.Plan != "" && !policy.ValidPlan(req.Plan) {
		return nil, policy.ErrNoPlan
	}
	req.Join = req.Join && req.Session != ""
	a := &attempt{l: l, user: user, req: req, callerCtx: ctx}
	a.start = policy.Start{
		Session: req.Session, Evict: req.OnLimit == policy.ReplaceOldest, Content: req.Content.ID, Device: req.Device.ID,
	}
	if err := req.Attributes.Validate(); err != nil {
		return nil, err
	}
	a.claims = policy.Claims{Plan: req.Plan, Limit: req.Limit}
	if policy.ValidPlan(req.Grant) {
		a.claims.GrantedPlan = req.Grant
	}
	if len(req.Replaces) > policy.MaxLimit {
		return nil, &policy.AttributeError{Member: "replaces", Problem: fmt.Sprintf("more than %d ids", policy.MaxLimit)}
	}
	for _, text := range req.Replaces {
		id, err := l.parseID(user, text)
		if err != nil {
			return nil, fmt.Errorf("replaces: %w", err)
		}
		a.start.Replaces = append(a.start.Replaces, id.Nonce)
	}
	return a, nil
}

// run repeats the attempt until its outcome is known or ctx ends.
func (a *attempt) run(ctx context.Context) (Started, error) {
	for {
		st, err := a.try(ctx)
		if err == nil {
			return st, nil
		}
		// While etcd is full, or rejects the password of this node, every attempt fails.
		again := !etcdop.IsFull(err) && !etcdop.IsAuthFailure(err) && (errors.Is(err, errRetry) || a.failedBeforeWrite(err))
		a.returnLease()
		if !again || retryPause(ctx) {
			return Started{}, a.startError(err)
		}
	}
}

// startError returns the error of Start for the one that ended the attempt.
func (a *attempt) startError(err error) error {
	if isLimit(err) || errors.Is(err, ErrEnded) || errors.Is(err, policy.ErrNoPlan) || errors.Is(err, ErrRouting) || errors.Is(err, policy.ErrMissingAttributes) {
		return err
	}
	return etcdop.Unavailable("start for "+a.user, err)
}

// failedBeforeWrite reports whether err is that of a read or of a grant, for example
// because a member of etcd has just stopped.
func (a *attempt) failedBeforeWrite(err error) bool {
	unknown := a.unknownOutcome && a.lease.ID != 0
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, etcdop.ErrNotApplied) && !unknown
}

// try decides on the user's streams and writes the decision. It repeats both if the
// streams or the rule have changed in between. The lock of the user keeps concurrent
// starts of one user from invalidating each other's decisions. A rejected start costs
// no write, and does not wait for the lock.
func (a *attempt) try(ctx context.Context) (Started, error) {
	var err error
	if a.snapshot, err = a.loadSnapshot(ctx); err != nil {
		return Started{}, err
	}
	if st, joined, err := a.joinOrDecide(ctx); joined || err != nil {
		return st, err
	}
	waited, err := a.l.userLocks.Lock(ctx, a.user)
	if err != nil {
		return Started{}, err
	}
	defer a.l.userLocks.Unlock(a.user)
	if waited {
		if a.snapshot, err = a.loadSnapshot(ctx); err != nil {
			return Started{}, err
		}
	}
	for again := waited; ; again = true {
		if again {
			if st, joined, err := a.joinOrDecide(ctx); joined || err != nil {
				return st, err
			}
		}
		if err := a.acquireLease(ctx); err != nil {
			return Started{}, err
		}
		if st, done, err := a.write(ctx); done || err != nil {
			return st, err
		}
	}
}

// acquireLease gives an attempt that has none a lease, a nonce and a record. Unless the
// lease was renewed recently, it is renewed in parallel with the write, so that the stream
// begins with at least three quarters of its TTL, as after a heartbeat.
func (a *attempt) acquireLease(ctx context.Context) error {
	if a.lease.ID != 0 {
		return nil
	}
	// After a restore of etcd there may be a key on a lease that a stream had before. The
	// replica is not current until it has observed that.
	idle, err := a.l.pool.Acquire(ctx, a.l.replica.Current())
	if err != nil {
		return err
	}
	a.lease, a.unknownOutcome, a.renewal = idle, false, nil
	if !idle.RenewedRecently(time.Now()) {
		a.renewal = a.l.renewer.RenewForStart(ctx, idle.ID)
	}
	a.buildRecord()
	return nil
}

func (a *attempt) buildRecord() {
	a.record = schema.Record{
		Started:    time.Now().UnixMilli(),
		TTLSeconds: int64(a.lease.TTL / time.Second),
		Region:     a.l.cfg.Region,
		Plan:       cmp.Or(a.claims.Plan, a.claims.GrantedPlan),
		Limit:      a.claims.Limit,
	}
	_, _ = rand.Read(a.record.Nonce[:]) // never fails (crypto/rand)
	a.req.describe(&a.record)
	a.value = a.record.Encode()
}

// write sends the decision. If the transaction fails because the decision is outdated,
// write reports false and a.snapshot is what the transaction read.
func (a *attempt) write(ctx context.Context) (st Started, done bool, err error) {
	leases, tombstones := a.leasesOfEnded(), a.tombstones()
	resp, at, err := a.l.batch.Commit(&commit.Write{
		User: a.user, Txn: a.txn(), Tombstones: tombstones, Ctx: ctx, CallerCtx: a.callerCtx,
	})
	switch {
	case err != nil:
		st, err = a.resolveUnknownOutcome(ctx, err)
	case !resp.Succeeded:
		a.l.recordOwnWrite(a.user, at.Revision)
		return Started{}, false, a.refresh(ctx, resp, at)
	default:
		a.l.recordOwnWrite(a.user, at.Revision)
		a.l.afterEnding(a.user, leases, tombstones)
		a.entry = a.newEntry(at.Revision)
		st, err = a.confirm(ctx, a.admittedUsage(resp))
		st.Ended, st.Observed = a.endedStreams(), a.decision.Observed
		return st, true, err
	}
	if err == nil {
		a.l.afterEnding(a.user, leases, tombstones)
		st.Ended, st.Observed = a.endedStreams(), a.decision.Observed
	}
	return st, true, err
}

// newEntry returns the key that the start has written at revision rev.
func (a *attempt) newEntry(rev int64) schema.Entry {
	return schema.Entry{
		Key: a.l.keys.Slot(a.user, a.decision.Slot), Slot: a.decision.Slot, Lease: a.lease.ID, ModRevision: rev,
		Nonce: a.record.Nonce, Session: a.req.Session, Value: a.value,
	}
}

// confirm waits for the renewal of the lease, if there is one. If etcd does not answer it
// in time, the stream has what remained of the TTL of its lease, at least a half.
func (a *attempt) confirm(ctx context.Context, u Usage) (Started, error) {
	if a.renewal != nil {
		r := keepalive.Wait(ctx, a.renewal)
		a.renewal = nil
		switch {
		case errors.Is(r.Err, etcdop.ErrLeaseGone): // and so is the key
			a.l.granter.RevokeLater(a.lease.ID) // in case the answer was wrong
			a.lease.ID = 0
			return Started{}, fmt.Errorf("%w: %w", errRetry, r.Err)
		case r.Err == nil:
			a.lease.Renewed, a.lease.TTL = r.Sent, r.TTL
		}
	}
	a.l.leaseStatus.Invalidate(a.user)
	id := a.entry.StreamID()
	a.l.replica.AddRenewalHint(a.user, id, a.lease.Renewed)
	st := Started{Usage: u, Stream: newStream(a.user, a.l.ids.Sign(a.user, id), a.record)}
	st.Stream.ExpiresAt = a.lease.Renewed.Add(a.lease.TTL)
	return st, nil
}

// resolveUnknownOutcome finds out whether a write that returned an error was applied.
// If the stream exists, it was admitted. If its lease can be revoked, the write was not
// applied and cannot be applied later, because a put under a lease that does not exist
// fails, so the start may be repeated. Otherwise the outcome remains unknown.
func (a *attempt) resolveUnknownOutcome(ctx context.Context, cause error) (Started, error) {
	switch {
	case errors.Is(cause, etcdop.ErrLeaseGone):
		a.l.cooldownLease.Invalidate(a.cooldownLease) // it may be the lease that is gone
		a.lease.ID = 0
		return Started{}, fmt.Errorf("%w: %w", errRetry, cause)
	case errors.Is(cause, etcdop.ErrNotApplied):
		return Started{}, etcdop.Unavailable("start", cause)
	}
	a.unknownOutcome = true
	if s, err := a.l.readUser(ctx, a.user); err == nil {
		for _, e := range s.entries {
			if e.Nonce == a.record.Nonce {
				a.entry = e
				a.l.recordOwnWrite(a.user, s.rev)
				return a.confirm(ctx, a.l.usageAt(ctx, a.user, a.rule, e.ModRevision, s))
			}
		}
	}
	if err := a.l.granter.Revoke(ctx, a.lease.ID); err != nil {
		return Started{}, etcdop.Unavailable("start", cause)
	}
	a.lease.ID = 0
	return Started{}, fmt.Errorf("%w: %w", errRetry, cause)
}

// returnLease releases the lease of a failed attempt. A lease that a write may have
// used is revoked; any other lease goes back to the pool.
func (a *attempt) returnLease() {
	switch {
	case a.lease.ID == 0:
	case a.unknownOutcome:
		a.l.granter.RevokeLater(a.lease.ID)
	default:
		a.l.pool.PutBack(a.lease)
	}
	a.lease.ID = 0
}
