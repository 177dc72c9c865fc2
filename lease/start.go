package lease

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// errTryAgain means that nothing of a try was, or can still be, applied.
var errTryAgain = errors.New("try again")

// admission is one start on its way. Each lease that it tries comes with a nonce
// of its own, so that no try can be taken for another.
type admission struct {
	user   string
	req    Request
	want   want
	said   said
	caller context.Context // its end gives up what was not sent
	began  time.Time

	granted                // lease 0 until equipped
	unsure  bool           // a write under the lease has an unknown outcome
	renewal <-chan renewal // nil if the lease was granted for this start
	rec     record
	value   []byte // rec as it is stored
	cooling int64  // the lease of the marks that the last try was to leave
}

// Start admits one more stream of user, or refuses with a [*LimitError]. The
// count it returns is that of the etcd revision which admitted the stream.
//
// If ctx ends before the answer, or etcd's answer is lost for good, the stream
// is abandoned: whatever became of it is ended in the background, and the
// error is ctx's or an [ErrUnavailable]. Also returns [ErrRouting], [ErrBadUser], for
// Request.Replaces [ErrBadID] and [ErrForeignID], and for Request.Plan
// [ErrNoPlan]. With [OutageAdmit] the stream is Degraded where etcd was not asked.
func (l *Limiter) Start(ctx context.Context, user string, req Request) (Started, error) {
	st, err := l.start(ctx, user, req)
	l.m.started(ctx, &st, err)
	return st, err
}

func (l *Limiter) start(ctx context.Context, user string, req Request) (Started, error) {
	a, err := l.newAdmission(ctx, user, req)
	if err != nil {
		return Started{}, err
	}
	call, cancel := l.bound(ctx)
	defer cancel()
	var st Started
	var h held
	if l.circuit.open.Load() {
		err = unavailable("start for "+user, errCircuitOpen)
	} else {
		st, h, err = l.admit(call, a)
	}
	if l.cfg.Outage == OutageAdmit && errors.Is(err, ErrUnavailable) && l.circuit.open.Load() && ctx.Err() == nil {
		st, err = l.admitAlone(a, err)
	}
	switch {
	case err == nil && ctx.Err() != nil: // nobody hears the answer
		l.stopLater(user, h)
		return Started{}, fmt.Errorf("start for %s: %w", user, context.Cause(ctx))
	case isLimit(err):
		l.refused.Add(1)
		l.view.told.refused(user, err)
	case err == nil:
		l.admitted.Add(1)
		l.view.told.admitted()
	}
	return st, err
}

func (l *Limiter) newAdmission(ctx context.Context, user string, req Request) (*admission, error) {
	if !ValidUser(user) {
		return nil, ErrBadUser
	}
	a := &admission{user: user, req: req, caller: ctx, began: time.Now()}
	a.want = want{
		session: req.Session, evict: req.OnLimit == ReplaceOldest, content: req.Content.ID, device: req.Device.ID,
	}
	if req.Plan != "" && !ValidPlan(req.Plan) {
		return nil, ErrNoPlan
	}
	a.said = said{plan: req.Plan, limit: req.Limit}
	if ValidPlan(req.Grant) {
		a.said.grant = req.Grant
	}
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
func (l *Limiter) admit(ctx context.Context, a *admission) (Started, held, error) {
	for {
		st, h, err := l.try(ctx, a)
		if err == nil {
			return st, h, nil
		}
		// Where etcd is full, every try fails until somebody makes room.
		again := !isFull(err) && (errors.Is(err, errTryAgain) || a.onlyAsked(err))
		l.giveBack(a)
		if !again || pause(ctx) {
			if isLimit(err) || errors.Is(err, ErrNoPlan) || errors.Is(err, ErrRouting) {
				return Started{}, held{}, err
			}
			return Started{}, held{}, unavailable("start for "+a.user, err)
		}
	}
}

// onlyAsked reports whether a try failed with err at a read or a grant, of which
// nothing is left: a member of etcd may just have gone away.
func (a *admission) onlyAsked(err error) bool {
	unsure := a.unsure && a.lease != 0
	return errors.Is(err, ErrUnavailable) && !errors.Is(err, errNotApplied) && !unsure
}

// try is one try at a start: decide on what the user holds, and write the decision
// on condition that it is still the truth, again if somebody else was faster.
// A refusal costs no write and waits for nobody.
func (l *Limiter) try(ctx context.Context, a *admission) (Started, held, error) {
	s, err := l.knowFor(ctx, a)
	if err != nil {
		return Started{}, held{}, err
	}
	s, r, d, err := l.decideOn(ctx, a, s)
	if err != nil {
		return Started{}, held{}, err
	}
	waited, err := l.gates.enter(ctx, a.user)
	if err != nil {
		return Started{}, held{}, err
	}
	defer l.gates.leave(a.user)
	if waited {
		if s, err = l.knowFor(ctx, a); err != nil {
			return Started{}, held{}, err
		}
	}
	for again := waited; ; again = true {
		if again {
			if s, r, d, err = l.decideOn(ctx, a, s); err != nil {
				return Started{}, held{}, err
			}
		}
		if err := l.equip(ctx, a); err != nil {
			return Started{}, held{}, err
		}
		st, h, now, err := l.write(ctx, a, s, r, d)
		if err != nil || now == nil {
			return st, h, err
		}
		s = *now
	}
}

// write sends d, decided on s by r. It returns the stream, or what the user holds
// instead of s.
func (l *Limiter) write(
	ctx context.Context, a *admission, s snapshot, r rule, d decision,
) (Started, held, *snapshot, error) {
	out := l.leavers(a.user, d.ends)
	var graves []grave
	for _, e := range d.ends {
		if e.buried() {
			graves = append(graves, grave{e.nonce, e.reason, &by{a.req.Device, a.rec.Started}})
		}
	}
	resp, at, err := l.batch.do(&write{
		user: a.user, txn: l.admitTxn(a, s, r, d), graves: graves, ctx: ctx, caller: a.caller,
	})
	if err != nil {
		st, h, err := l.settle(ctx, a, r, err)
		if err == nil {
			l.parted(out, graves)
			st.Ended = l.endedBy(a.user, d)
		}
		return st, h, nil, err
	}
	l.wroteAt(a.user, at.rev)
	if !resp.Succeeded {
		now := newSnapshot(a.user, l.keys, at.rev, at.term, resp.Responses[0].GetResponseRange().Kvs)
		now.rules, now.rumoured = s.rules, true
		if !now.spoils(d, s.rev) { // then it is the rule that has changed
			now, err = l.ask(ctx, a)
		}
		return Started{}, held{}, &now, err
	}
	l.parted(out, graves)
	st, h, err := l.finish(ctx, a, l.heldBy(a, d.slot, at.rev), l.admittedUsage(a.user, s, r, resp))
	st.Ended = l.endedBy(a.user, d)
	return st, h, nil, err
}

// endedBy are the streams that an admitted start has ended, but for lapsed ones.
func (l *Limiter) endedBy(user string, d decision) []Ended {
	var out []Ended
	for _, e := range d.ends {
		if e.buried() {
			out = append(out, Ended{l.stream(user, e.held), e.reason})
		}
	}
	return out
}

// leavers are the leases of the streams that a decision ends, with what this node
// knows of them before they go. That of a lapsed stream is past use, and etcd is
// about to end it.
func (l *Limiter) leavers(user string, ends []ending) []granted {
	var out []granted
	for _, e := range ends {
		if g := l.leaseOf(user, e.held); g.lease != 0 && e.reason != ReasonExpired {
			out = append(out, g)
		}
	}
	return out
}

// leaseOf is the lease of a stream, and when this node renewed it. A key that is
// none of ours has none that we may touch.
func (l *Limiter) leaseOf(user string, h held) granted {
	if h.nonce == (nonce{}) {
		return granted{}
	}
	g := granted{lease: h.lease, ttl: headOf(h.value).ttl(), used: true}
	if s, _ := l.view.lookup(user, h.ident()); s != nil {
		g.renewed = s.renewedAt()
	}
	return g
}

// parted does what is left to do after streams were ended by a transaction of
// this node: their leases are now its own.
func (l *Limiter) parted(leases []granted, graves []grave) {
	for _, g := range graves {
		l.view.note(g)
	}
	for _, g := range leases {
		l.pool.retire(g)
	}
}

// heldBy is the key that the start has written.
func (l *Limiter) heldBy(a *admission, slot int, rev int64) held {
	return held{
		key: l.keys.slot(a.user, slot), slot: slot, lease: a.lease, mod: rev,
		nonce: a.rec.Nonce, session: a.req.Session, value: a.value,
	}
}

// finish waits for the renewal that gives the stream its full TTL. Where etcd
// does not tell in time, the stream has what the lease had left before.
func (l *Limiter) finish(ctx context.Context, a *admission, h held, u Usage) (Started, held, error) {
	if a.renewal != nil {
		r := await(ctx, a.renewal)
		a.renewal = nil
		switch {
		case errors.Is(r.err, errLeaseGone): // and the key with it
			l.cleaner.revokeLater(a.lease) // to be sure of it
			a.lease = 0
			return Started{}, held{}, fmt.Errorf("%w: %w", errTryAgain, r.err)
		case r.err == nil:
			a.renewed, a.ttl = r.sent, r.ttl
		}
	}
	l.lapses.drop(a.user)
	l.view.hint(a.user, h.ident(), a.renewed)
	st := Started{Usage: u, Stream: a.rec.stream(a.user, l.ids.sign(a.user, h.ident()))}
	st.Stream.ExpiresAt = a.renewed.Add(a.ttl)
	return st, h, nil
}

// settle finds out what became of a write that erred. If the stream is there,
// it was admitted after all. If its lease can be revoked, the write has not
// happened and cannot happen any more (a put under a lease that is gone fails),
// so the start may be tried again. Else the outcome stays unknown.
func (l *Limiter) settle(ctx context.Context, a *admission, r rule, cause error) (Started, held, error) {
	switch {
	case errors.Is(cause, errLeaseGone):
		l.cooling.drop(a.cooling) // it may have been this one's
		a.lease = 0
		return Started{}, held{}, fmt.Errorf("%w: %w", errTryAgain, cause)
	case errors.Is(cause, errNotApplied):
		return Started{}, held{}, unavailable("start", cause)
	}
	a.unsure = true
	if s, err := l.read(ctx, a.user); err == nil {
		for _, h := range s.held {
			if h.nonce == a.rec.Nonce {
				l.wroteAt(a.user, s.rev)
				return l.finish(ctx, a, h, l.usageAt(ctx, a.user, r, h.mod, s))
			}
		}
	}
	if err := l.revoke(ctx, a.lease); err != nil {
		return Started{}, held{}, unavailable("start", cause)
	}
	a.lease = 0
	return Started{}, held{}, fmt.Errorf("%w: %w", errTryAgain, cause)
}

// usageAt is user's usage at revision rev, or that of s if etcd cannot tell any
// more.
func (l *Limiter) usageAt(ctx context.Context, user string, r rule, rev int64, s snapshot) Usage {
	ask := below(l.keys.user(user)).read()
	ask.Revision = rev
	resp, err := l.etcd.KV.Range(ctx, ask)
	if err != nil {
		return Usage{User: user, Count: len(s.held), Limit: r.limit, Counted: r.counted(s.held)}
	}
	return l.usage(user, r, resp)
}

// equip gives an admission that has none its lease, nonce and record. A lease
// that was ready before the start came is renewed beside the write, so that the
// stream has its full TTL.
func (l *Limiter) equip(ctx context.Context, a *admission) error {
	if a.lease != 0 {
		return nil
	}
	// An etcd that was restored may have a key on a lease that a stream had before. The
	// view is not current then until it has seen that.
	g, err := l.pool.take(ctx, l.view.current())
	if err != nil {
		return err
	}
	a.granted, a.unsure, a.renewal = g, false, nil
	if g.renewed.Before(a.began) {
		a.renewal = l.renewer.beginStart(ctx, g.lease)
	}
	l.compose(a)
	return nil
}

// compose makes the record of an admission that has its lease.
func (l *Limiter) compose(a *admission) {
	a.rec = record{
		Started: time.Now().UnixMilli(),
		TTL:     int64(a.ttl / time.Second),
		Region:  l.cfg.Region,
		Session: a.req.Session,
		Plan:    cmp.Or(a.said.plan, a.said.grant),
		Limit:   a.said.limit,
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
	a.value = v
}

// giveBack parts with the lease of a try that failed. One that a write may have
// used is revoked and never used again; any other goes back.
func (l *Limiter) giveBack(a *admission) {
	switch {
	case a.lease == 0:
	case a.unsure:
		l.cleaner.revokeLater(a.lease)
	default:
		l.pool.book.renewed(a.granted)
	}
	a.lease = 0
}
