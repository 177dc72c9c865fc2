package lease

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// errTryAgain means that nothing of a try was, or can still be, applied.
var errTryAgain = errors.New("try again")

// admission is one start on its way. Each try has a lease and a nonce of its
// own, so that no try can be taken for another.
type admission struct {
	user string
	req  Request
	want want

	lease   clientv3.LeaseID // 0 until granted
	rec     record
	value   string // rec as it is stored
	started time.Time
	expires time.Time
}

// Start admits one more stream of user, or refuses with a [*LimitError]. The
// count it returns is that of the etcd revision which admitted the stream.
//
// If ctx ends before the answer, or etcd's answer is lost for good, the stream
// is abandoned: whatever became of it is revoked in the background, and the
// error is ctx's or an [ErrUnavailable]. Also returns [ErrBadUser], and for
// Request.Replaces [ErrBadID] and [ErrForeignID].
func (l *Limiter) Start(ctx context.Context, user string, req Request) (Started, error) {
	a, err := l.newAdmission(user, req)
	if err != nil {
		return Started{}, err
	}
	call, cancel := l.bound(ctx)
	defer cancel()
	st, err := l.admit(call, a)
	switch {
	case err == nil && ctx.Err() != nil: // nobody hears the answer
		l.cleaner.add(int64(a.lease))
		return Started{}, fmt.Errorf("start for %s: %w", user, context.Cause(ctx))
	case isLimit(err):
		l.refused.Add(1)
	case err == nil:
		l.admitted.Add(1)
	}
	return st, err
}

func (l *Limiter) newAdmission(user string, req Request) (*admission, error) {
	if !ValidUser(user) {
		return nil, ErrBadUser
	}
	a := &admission{user: user, req: req}
	a.want = want{session: req.Session, evict: req.OnLimit == ReplaceOldest}
	if req.Replaces != "" {
		id, err := l.ids.open(user, req.Replaces)
		if err != nil {
			return nil, fmt.Errorf("replaces: %w", err)
		}
		a.want.replaces = id.nonce
	}
	return a, nil
}

// admit tries until etcd has decided or ctx ends.
func (l *Limiter) admit(ctx context.Context, a *admission) (Started, error) {
	for {
		st, err := l.try(ctx, a)
		switch {
		case err == nil:
			return st, nil
		case a.lease != 0:
			l.cleaner.add(int64(a.lease)) // refused, or the outcome is unknown: abandoned
			a.lease = 0
		}
		if !errors.Is(err, errTryAgain) || pause(ctx) {
			if isLimit(err) {
				return Started{}, err
			}
			return Started{}, unavailable("start for "+a.user, err)
		}
	}
}

// try is one try at a start. A plain start of a user who was not just refused
// goes straight to the slot chain: one round. All others decide on what the
// user holds and write that plan, again if somebody else was faster. A refusal
// that is decided on a read costs no write.
func (l *Limiter) try(ctx context.Context, a *admission) (Started, error) {
	_, wasFull := l.lapses.get(a.user)
	chain := a.want.session == "" && a.want.replaces == (nonce{}) && !wasFull
	var s snapshot
	if !chain {
		var err error
		if s, err = l.read(ctx, a.user); err != nil {
			return Started{}, err
		}
	}
	for {
		var p plan
		if !chain {
			var err error
			if p, err = l.decideOn(ctx, a, s); err != nil {
				return Started{}, err
			}
		}
		if a.lease == 0 {
			if err := l.equip(ctx, a); err != nil {
				return Started{}, err
			}
		}
		st, now, err := l.write(ctx, a, chain, s, p)
		if err != nil || now == nil {
			return st, err
		}
		chain, s = false, *now
	}
}

// write sends the slot chain, or plan p decided on s. It returns the stream, or
// what the user holds instead.
func (l *Limiter) write(ctx context.Context, a *admission, chain bool, s snapshot, p plan) (Started, *snapshot, error) {
	if chain {
		resp, err := l.commit(ctx, l.slotChain(l.cfg.Limit, a))
		if err != nil {
			return l.settle(ctx, a, p, err)
		}
		slot, count, now := l.chainResult(l.cfg.Limit, a, resp)
		if slot < 0 {
			return Started{}, &now, nil
		}
		return l.started(a, slot, count), nil, nil
	}
	grave, err := l.graveFor(ctx, p)
	if err != nil {
		return Started{}, nil, err
	}
	resp, err := l.commit(ctx, l.planTxn(a, s, p, grave))
	if errors.Is(err, errLeaseGone) {
		l.graves.drop(grave)
	}
	if err != nil {
		return l.settle(ctx, a, p, err)
	}
	if !resp.Succeeded {
		now := l.snapshotOf(a.user, resp.Header, resp.Responses[0].GetResponseRange().Kvs)
		return Started{}, &now, nil
	}
	l.leaveBehind(p.ends)
	count := resp.Responses[len(resp.Responses)-1].GetResponseRange().Count
	return l.started(a, p.slot, int(count)), nil, nil
}

// graveFor returns the lease for p's tombstones, 0 if it has none.
func (l *Limiter) graveFor(ctx context.Context, p plan) (clientv3.LeaseID, error) {
	n := 0
	for _, e := range p.ends {
		if e.buried() {
			n++
		}
	}
	if n == 0 {
		return 0, nil
	}
	return l.graves.take(ctx, n)
}

// settle finds out what became of a write that erred. If the stream is there,
// it was admitted after all. If its lease can be revoked, the write has not
// happened and cannot happen any more (a put under a lease that is gone fails),
// so the start may be tried again. Else the outcome stays unknown.
func (l *Limiter) settle(ctx context.Context, a *admission, p plan, cause error) (Started, *snapshot, error) {
	switch {
	case errors.Is(cause, errLeaseGone):
		return Started{}, nil, fmt.Errorf("%w: %w", errTryAgain, cause)
	case errors.Is(cause, errNotApplied):
		return Started{}, nil, unavailable("start", cause)
	}
	if s, err := l.read(ctx, a.user); err == nil {
		for _, h := range s.held {
			if h.rec.Nonce == a.rec.Nonce {
				l.leaveBehind(p.ends)
				return l.started(a, h.slot, l.countAt(ctx, a.user, h.mod, len(s.held))), nil, nil
			}
		}
	}
	if err := l.revoke(ctx, int64(a.lease)); err != nil {
		return Started{}, nil, unavailable("start", cause)
	}
	a.lease = 0
	return Started{}, nil, fmt.Errorf("%w: %w", errTryAgain, cause)
}

// countAt is how many keys user held at revision rev, or other if that is no
// longer to be had.
func (l *Limiter) countAt(ctx context.Context, user string, rev int64, other int) int {
	resp, err := l.kv.Get(ctx, l.keys.user(user), clientv3.WithPrefix(), clientv3.WithCountOnly(), clientv3.WithRev(rev))
	if err != nil {
		return other
	}
	return int(resp.Count)
}

// equip gives a try its lease, nonce and record.
func (l *Limiter) equip(ctx context.Context, a *admission) error {
	sent := time.Now() // before the call: etcd may start the TTL any time after
	id, ttl, err := l.grant(ctx)
	if err != nil {
		return err
	}
	a.lease, a.started, a.expires = id, sent, sent.Add(ttl)
	a.rec = record{
		Started: sent.UnixMilli(),
		TTL:     int64(ttl / time.Second),
		Region:  l.cfg.Region,
		Session: a.req.Session,
	}
	_, _ = rand.Read(a.rec.Nonce[:]) // never fails (crypto/rand)
	if a.req.Device != (Device{}) {
		a.rec.Device = &a.req.Device
	}
	if a.req.Content != (Content{}) {
		a.rec.Content = &a.req.Content
	}
	v, err := json.Marshal(a.rec)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	a.value = string(v)
	return nil
}

func (l *Limiter) started(a *admission, slot, count int) Started {
	l.lapses.drop(a.user)
	st := Started{Usage: l.usage(a.user, count), Stream: l.stream(a.user, slot, int64(a.lease), a.rec)}
	st.Stream.ExpiresAt = a.expires
	return st
}
