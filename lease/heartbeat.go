package lease

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/lease/internal/distinct"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/keepalive"
	"streamcount/lease/internal/monotonic"
	"streamcount/lease/internal/provisional"
	"streamcount/lease/internal/replica"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
	"streamcount/lease/userid"
)

// Heartbeat renews the lease of user's stream, and returns the stream with its new
// ExpiresAt. It does not renew a lease that this node renewed less than a quarter of a
// TTL ago. If etcd does not answer in time, the stream that Heartbeat returns is
// Degraded: it may still exist, because etcd expires nothing while it is unavailable.
//
// If the stream has ended, Heartbeat returns an [*EndedError]. It also returns
// [ErrBadUser], [streamid.ErrMalformed] and [streamid.ErrForeign].
func (l *Limiter) Heartbeat(ctx context.Context, user, id string) (Stream, error) {
	switch r := l.Heartbeats(ctx, []HeartbeatRequest{{user, id}})[0]; {
	case r.Err != nil:
		return Stream{}, r.Err
	case r.Degraded && r.record == nil: // the node has not seen the stream
		return Stream{ID: id, User: user, TTL: r.TTL, Degraded: true}, nil
	default:
		s := streamOf(user, id, r.record)
		s.TTL, s.ExpiresAt, s.Degraded = r.TTL, r.ExpiresAt, r.Degraded
		return s, nil
	}
}

// Heartbeats is like Heartbeat for several streams. The results have the order of the
// requests. A request that cannot be answered before ctx ends is Degraded. The requests
// run in random order, so that it is not always the same ones that are late. Equal
// requests run once.
func (l *Limiter) Heartbeats(ctx context.Context, requests []HeartbeatRequest) []HeartbeatResult {
	b := newHeartbeats(ctx, l, requests)
	defer b.release()
	for _, i := range b.distinct.Order() {
		b.begin(int(i))
	}
	b.finish()
	for i := range b.results {
		b.results[i] = b.results[b.distinct.First(i)]
	}
	return b.results
}

// heartbeats is one batch of heartbeats. Its goroutine answers those that need no call to
// etcd, and begins the renewals of those whose streams the current replica contains.
// Each of the others has a goroutine, which calls run.
type heartbeats struct {
	l        *Limiter
	caller   context.Context
	arrived  monotonic.Time
	requests []HeartbeatRequest
	distinct distinct.Batch[HeartbeatRequest] // of requests
	results  []HeartbeatResult

	ctx      context.Context // with the deadline of the call; nil until etcd is needed
	cancel   context.CancelFunc
	renewals *keepalive.Batch // nil for none
	renewing []renewing       // by the indexes of renewals
	others   []unanswered
}

// renewing is a heartbeat whose renewal is outstanding.
type renewing struct {
	index int
	who   streamid.ID
	entry *replica.Entry
}

// unanswered is a heartbeat that needs a goroutine.
type unanswered struct {
	index int
	who   streamid.ID
	err   error // of its renewal; nil if none was tried
}

const (
	maxConcurrentHeartbeats = 256  // goroutines of one batch
	maxPooledHeartbeats     = 4096 // of a batch whose memory is used again
)

var heartbeatPool = sync.Pool{New: func() any { return new(heartbeats) }}

func newHeartbeats(ctx context.Context, l *Limiter, requests []HeartbeatRequest) *heartbeats {
	b := heartbeatPool.Get().(*heartbeats)
	b.l, b.caller, b.arrived = l, ctx, monotonic.Of(time.Now())
	b.requests, b.results = requests, make([]HeartbeatResult, len(requests))
	b.distinct.Set(requests)
	return b
}

// release makes the memory of b available to other batches.
func (b *heartbeats) release() {
	if b.cancel != nil {
		b.cancel()
	}
	if b.renewals != nil {
		b.renewals.Release()
	}
	if len(b.requests) > maxPooledHeartbeats {
		return
	}
	clear(b.renewing)
	clear(b.others)
	*b = heartbeats{distinct: b.distinct, renewing: b.renewing[:0], others: b.others[:0]}
	heartbeatPool.Put(b)
}

// begin answers a heartbeat without etcd if possible. Otherwise it verifies that the
// stream exists, and begins the renewal of its lease. The verification comes first,
// because the lease of an ended stream may be in use by another one, which the client of
// the ended stream must not keep alive.
func (b *heartbeats) begin(i int) {
	if b.renewals != nil {
		b.renewals.WaitForRoom()
	}
	l, user := b.l, b.requests[i].User
	who, err := l.parseID(user, b.requests[i].ID)
	if err != nil {
		b.answer(i, HeartbeatResult{Err: err})
		return
	}
	s, current := l.replica.Lookup(user, who)
	if s == nil || !current || l.replica.MayHaveEnded(who.Nonce) {
		if err := l.finalEnd(who); err != nil && !provisional.HasSlot(who) {
			b.answer(i, HeartbeatResult{Err: err})
			return
		}
		b.others = append(b.others, unanswered{i, who, nil})
		return
	}
	switch renewed := s.LastRenewal(); {
	case time.Since(renewed) < s.TTL()/4:
		l.counters.HeartbeatCoalesced()
		b.results[i] = HeartbeatResult{ExpiresAt: renewed.Add(s.TTL()), TTL: s.TTL(), record: s.Value}
	case isLate(s) || provisional.HasSlot(who) || l.exceedsMaxAge(s.Value):
		b.others = append(b.others, unanswered{i, who, nil})
	default:
		b.renew(renewing{i, who, s})
	}
}

// renew begins a renewal on a stream that other renewals share.
func (b *heartbeats) renew(r renewing) {
	if b.renewals == nil {
		b.ctx, b.cancel = b.l.withDeadline(b.caller)
		b.renewals = b.l.renewer.NewBatch(b.ctx)
	}
	if err := b.ctx.Err(); err != nil {
		b.answer(r.index, b.l.degraded(b.requests[r.index].User, r.who, err))
		return
	}
	b.renewing = append(b.renewing, r)
	b.renewals.Renew(r.who.Lease)
}

// finish answers the heartbeats that begin has not answered.
func (b *heartbeats) finish() {
	if len(b.others) == 0 && b.renewals == nil {
		return
	}
	if b.ctx == nil {
		b.ctx, b.cancel = b.l.withDeadline(b.caller)
	}
	var g errgroup.Group
	g.SetLimit(maxConcurrentHeartbeats)
	run := func(u unanswered) {
		g.Go(func() error {
			b.answer(u.index, b.run(u))
			return nil
		})
	}
	for _, u := range b.others {
		run(u)
	}
	if b.renewals != nil {
		b.renewals.Wait()
	}
	for j, w := range b.renewing {
		r := b.renewals.Result(j)
		if r.Err != nil {
			run(unanswered{w.index, w.who, r.Err})
			continue
		}
		w.entry.RecordRenewal(r.Sent)
		b.answer(w.index, HeartbeatResult{ExpiresAt: r.Sent.Add(r.TTL), TTL: r.TTL, record: w.entry.Value})
	}
	_ = g.Wait() // its functions return nil
}

// run answers a heartbeat that begin did not answer.
func (b *heartbeats) run(u unanswered) HeartbeatResult {
	user := b.requests[u.index].User
	switch {
	case errors.Is(u.err, etcdop.ErrLeaseGone): // it ended after it was verified
		return HeartbeatResult{Err: b.l.endReasonAfterRenewal(b.ctx, user, u.who)}
	case u.err != nil && b.ctx.Err() != nil:
		return b.l.degraded(user, u.who, u.err)
	default:
		return b.l.heartbeat(b.ctx, user, u.who, b.arrived, errors.Is(u.err, keepalive.ErrStalled))
	}
}

func (b *heartbeats) answer(i int, r HeartbeatResult) {
	b.l.countHeartbeat(r)
	b.results[i] = r
}

// parseID verifies a stream id of user.
func (l *Limiter) parseID(user, id string) (streamid.ID, error) {
	if !userid.Valid(user) {
		return streamid.ID{}, ErrBadUser
	}
	who, err := l.ids.Parse(user, id)
	if errors.Is(err, streamid.ErrUnknownSecret) && !l.replica.Current() {
		return streamid.ID{}, etcdop.Unavailable("read a stream id", errReplicaStale) // the replica may lack a newer secret
	}
	return who, err
}

// isLate reports whether this node renewed the lease of s so long ago that it may have
// expired, unless another node has renewed it.
func isLate(s *replica.Entry) bool {
	renewed := s.LastRenewal()
	return !renewed.IsZero() && time.Since(renewed) > s.TTL()*7/8
}

// heartbeat answers a heartbeat that is provisional or may have expired, whose stream the
// current replica does not contain, or whose renewal failed. It repeats a failed renewal
// until ctx ends.
func (l *Limiter) heartbeat(
	ctx context.Context, user string, who streamid.ID, arrived monotonic.Time, mayBeExpired bool,
) HeartbeatResult {
	if provisional.HasSlot(who) {
		if l.cfg.MaxStreamAge > 0 && l.dropProvisionalAtMaxAge(user, who.Nonce) {
			return HeartbeatResult{Err: &EndedError{Reason: policy.ReasonExpired}}
		}
		if value, ok := l.provisional.Touch(user, who.Nonce); ok {
			return HeartbeatResult{TTL: l.cfg.TTL, Degraded: true, record: value}
		}
		// A stream that was stopped while it was being written is in etcd for a moment.
		if g, over := l.replica.Ending(who.Nonce); over && !g.Intended && g.Reason == policy.ReasonStopped {
			return HeartbeatResult{Err: endedError(g)}
		}
	}
	for {
		r := l.renewStream(ctx, user, who, arrived, mayBeExpired)
		if provisional.HasSlot(who) && l.mayBeUnsynced(r.Err) {
			return l.degraded(user, who, r.Err)
		}
		if r.Err == nil || errors.Is(r.Err, ErrEnded) {
			return r
		}
		mayBeExpired = mayBeExpired || errors.Is(r.Err, keepalive.ErrStalled)
		if errors.Is(r.Err, errMaybeExpired) || retryPause(ctx) {
			return l.degraded(user, who, r.Err)
		}
	}
}

// degraded returns the answer to a heartbeat that etcd did not answer in time. It describes the
// stream as the replica has it, although the replica may be out of date: the playback token in the
// answer is for the content of the stream.
func (l *Limiter) degraded(user string, who streamid.ID, err error) HeartbeatResult {
	l.cfg.Log.Debug("heartbeat answered as degraded", "user", user, "err", err)
	r := HeartbeatResult{TTL: l.cfg.TTL, Degraded: true}
	if s, _ := l.replica.Lookup(user, who); s != nil {
		r.record = s.Value
	}
	return r
}

// renewStream verifies that the stream exists and renews its lease.
func (l *Limiter) renewStream(
	ctx context.Context, user string, who streamid.ID, arrived monotonic.Time, mayBeExpired bool,
) HeartbeatResult {
	s, current := l.replica.Lookup(user, who)
	var h schema.Entry
	if s != nil && current && !l.replica.MayHaveEnded(who.Nonce) {
		h = s.SlotEntry(l.keys, user)
		mayBeExpired = mayBeExpired || isLate(s)
	} else {
		var err error
		if h, err = l.verify(ctx, user, who, arrived); err != nil {
			return HeartbeatResult{Err: err}
		}
	}
	if l.exceedsMaxAge(h.Value) {
		return HeartbeatResult{Err: l.endAtMaxAge(ctx, user, h)}
	}
	r := l.renewLease(ctx, h.Lease, mayBeExpired)
	switch {
	case errors.Is(r.Err, etcdop.ErrLeaseGone):
		return HeartbeatResult{Err: l.endReasonAfterRenewal(ctx, user, who)} // it ended after it was verified
	case r.Err != nil:
		return HeartbeatResult{Err: r.Err}
	case s == nil:
		l.replica.AddRenewalHint(user, who, r.Sent)
	default:
		s.RecordRenewal(r.Sent)
	}
	return HeartbeatResult{ExpiresAt: r.Sent.Add(r.TTL), TTL: r.TTL, record: h.Value}
}

// errMaybeExpired means that the renewal of a lease that may have expired was not
// answered in time. Probably the lease has expired and etcd has not revoked it yet.
var errMaybeExpired = errors.New("the lease may have expired, and etcd did not answer the renewal")

// renewLease renews a lease. If mayBeExpired is set, it queries the remaining TTL first,
// because another node may have renewed the lease. If the lease has expired, its renewal
// would block a shared stream until etcd revokes it, so it is sent on a separate stream
// and gets little time: a batch of heartbeats takes as long as its slowest one.
func (l *Limiter) renewLease(ctx context.Context, lease int64, mayBeExpired bool) keepalive.Result {
	if !mayBeExpired {
		return keepalive.Wait(ctx, l.renewer.Renew(ctx, lease))
	}
	brief, cancel := context.WithTimeoutCause(ctx, keepalive.StallTimeout, errMaybeExpired)
	defer cancel()
	if l.leaseStatus.QueryTTL(brief, lease).Remaining >= time.Second {
		return keepalive.Wait(ctx, l.renewer.Renew(ctx, lease))
	}
	ctx = brief
	r := l.renewExpired(ctx, lease)
	if r.Err != nil && !errors.Is(r.Err, etcdop.ErrLeaseGone) && ctx.Err() != nil {
		r.Err = fmt.Errorf("%w: %w", errMaybeExpired, r.Err)
	}
	return r
}

// renewExpired renews a lease on a separate stream. At most maxSlowRenewals run at a
// time.
func (l *Limiter) renewExpired(ctx context.Context, lease int64) keepalive.Result {
	select {
	case l.slowRenewals <- struct{}{}:
		defer func() { <-l.slowRenewals }()
		r := keepalive.RenewOnNewStream(ctx, l.etcd.Lease, lease)
		l.counters.LateRenewal(r)
		return r
	case <-ctx.Done():
		return keepalive.Result{Err: context.Cause(ctx)}
	}
}
