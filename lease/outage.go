package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Outage says what becomes of starts while etcd does not answer.
type Outage string

// The policies.
const (
	OutageDeny  Outage = "deny"  // they fail
	OutageAdmit Outage = "admit" // the node admits them on what it knows, and tells etcd later
)

// A provisional stream was admitted by this node alone. It has a lease id, a nonce
// and a slot from the beginning, so that its id stays good when it is written. The
// slot is above those of other streams: nobody knows which of them are free.
type provisional struct {
	admission *admission
	lease     int64
	slot      int
	heard     time.Time // of its player
	tried     bool      // to be written: etcd may have it
}

const (
	firstProvisionalSlot = 100 // above MaxLimit
	provisionalSlots     = 900 // three digits
	maxProvisional       = 1 << 17
	catchUpEvery         = 100 * time.Millisecond
	// outageGrace is how long after an outage a stream that another node admitted
	// may still be missing from etcd.
	outageGrace = 15 * time.Second
)

// provisionals are the provisional streams of this node, until they are written.
type provisionals struct {
	mu       sync.Mutex
	users    map[string][]*provisional // oldest first
	n        int
	deciding sync.Mutex // one admission after the other
}

func (i ident) provisional() bool { return int(i.slot) >= firstProvisionalSlot }

// held are the user's provisional streams as the admission rule sees them.
func (ps *provisionals) held(user string) []held {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	out := make([]held, 0, len(ps.users[user]))
	for _, p := range ps.users[user] {
		out = append(out, p.held())
	}
	return out
}

func (p *provisional) held() held {
	a := p.admission
	return held{slot: p.slot, lease: p.lease, nonce: a.rec.Nonce, session: a.req.Session, value: a.value}
}

// add takes a stream in, unless there are too many.
func (ps *provisionals) add(p *provisional) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.n >= maxProvisional {
		return false
	}
	ps.n++
	ps.users[p.admission.user] = append(ps.users[p.admission.user], p)
	return true
}

// take removes the stream of that nonce, and returns it; nil if there is none.
func (ps *provisionals) take(user string, n nonce) *provisional {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	all := ps.users[user]
	i := slices.IndexFunc(all, func(p *provisional) bool { return p.admission.rec.Nonce == n })
	if i < 0 {
		return nil
	}
	p := all[i]
	ps.n--
	if len(all) == 1 {
		delete(ps.users, user)
	} else {
		ps.users[user] = slices.Delete(slices.Clone(all), i, i+1)
	}
	return p
}

// try notes that p is about to be written.
func (ps *provisionals) try(p *provisional) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.tried = true
}

// has reports whether there is a stream of that nonce.
func (ps *provisionals) has(user string, n nonce) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.ContainsFunc(ps.users[user], func(p *provisional) bool { return p.admission.rec.Nonce == n })
}

// endProvisional ends the provisional stream of that nonce, and reports whether there
// is one. What was tried for it may have been done, and is undone: nothing else ever
// hangs on its lease.
func (l *Limiter) endProvisional(user string, n nonce) bool {
	p := l.pending.take(user, n)
	if p == nil {
		return false
	}
	l.pending.mu.Lock()
	tried := p.tried
	l.pending.mu.Unlock()
	if tried {
		l.cleaner.revokeLater(p.lease)
	}
	return true
}

// hear notes that the player of a stream lives. It reports whether there is one.
func (ps *provisionals) hear(user string, n nonce) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range ps.users[user] {
		if p.admission.rec.Nonce == n {
			p.heard = time.Now()
			return true
		}
	}
	return false
}

// size is how many there are.
func (ps *provisionals) size() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.n
}

// all are the streams, and how many there are, oldest first for each user.
func (ps *provisionals) all() []*provisional {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var out []*provisional
	for _, of := range ps.users {
		out = append(out, of...)
	}
	return out
}

// admitAlone admits a start on what this node last knew of the user and what it
// has admitted itself since. It is refused as by etcd. cause is why etcd was not
// asked, and the error where the node knows too little.
func (l *Limiter) admitAlone(a *admission, cause error) (Started, error) {
	if l.view.applied.Load() == 0 {
		return Started{}, cause // it has never seen what users hold
	}
	l.pending.deciding.Lock()
	defer l.pending.deciding.Unlock()
	s, _ := l.view.user(a.user)
	s.held = append(s.held, l.pending.held(a.user)...)
	r, err := l.resolve(s.rules, a.user, a.said)
	if err != nil {
		return Started{}, err
	}
	w := a.want
	w.evict = false // of streams that may be watched through other nodes
	d, ok := decide(r, s.held, nil, w)
	if !ok {
		return Started{}, l.refusal(a.user, r, s.held, nil)
	}
	n, err := rand.Int(rand.Reader, big.NewInt(provisionalSlots))
	if err != nil {
		return Started{}, cause
	}
	p := &provisional{
		admission: a, lease: randomLease(), slot: firstProvisionalSlot + int(n.Int64()), heard: time.Now(),
	}
	a.granted, a.unsure, a.renewal = granted{lease: p.lease, ttl: l.cfg.TTL}, false, nil
	l.compose(a)
	for _, e := range d.ends {
		l.endProvisional(a.user, e.nonce) // its own session's; those in etcd end when this is written
	}
	if !l.pending.add(p) {
		return Started{}, cause
	}
	st := Started{Stream: l.stream(a.user, p.held())}
	st.Usage = Usage{User: a.user, Count: len(s.held) - len(d.ends) + 1, Limit: r.limit}
	st.Counted = st.Count
	st.Stream.ExpiresAt, st.Stream.Degraded = p.heard.Add(l.cfg.TTL), true
	return st, nil
}

// catchUp writes provisional streams when etcd answers, until ctx ends.
func (l *Limiter) catchUp(ctx context.Context) error {
	for !pauseFor(ctx, catchUpEvery) {
		if l.circuit.open.Load() {
			l.forgetSilent()
			continue
		}
		all := l.pending.all()
		if len(all) == 0 {
			continue
		}
		written, ended := 0, 0
		for _, p := range all {
			err := l.writeProvisional(ctx, p)
			if errors.Is(err, ErrUnavailable) {
				break // and again soon
			}
			if err == nil {
				written++
				l.m.settled[settledWritten].Add(1)
			} else {
				ended++
				l.m.settled[settledEnded].Add(1)
			}
		}
		l.cfg.Log.Warn("streams were admitted while etcd was away", "written", written,
			"ended_over_the_limit", ended, "left", len(all)-written-ended)
	}
	return nil
}

// forgetSilent drops streams whose players have been silent for a TTL.
func (l *Limiter) forgetSilent() {
	for _, p := range l.pending.all() {
		l.pending.mu.Lock()
		silent := time.Since(p.heard) > l.cfg.TTL
		l.pending.mu.Unlock()
		if silent {
			l.pending.take(p.admission.user, p.admission.rec.Nonce)
			l.m.settled[settledSilent].Add(1)
		}
	}
}

// writeProvisional makes a provisional stream one like any other, or ends it if
// its user is over the limit by now. Only ErrUnavailable leaves it as it was.
func (l *Limiter) writeProvisional(ctx context.Context, p *provisional) error {
	user, n := p.admission.user, p.admission.rec.Nonce
	ctx, cancel := l.bound(ctx)
	defer cancel()
	l.pending.try(p)
	h, err := l.tryProvisional(ctx, p)
	if errors.Is(err, ErrUnavailable) {
		if !l.pending.has(user, n) { // it was ended meanwhile
			l.cleaner.revokeLater(p.lease)
		}
		return err
	}
	if err != nil {
		l.view.note(grave{Nonce: n, Reason: ReasonEvicted})
	}
	if l.pending.take(user, n) == nil && err == nil {
		l.stopLater(user, h) // its player stopped it meanwhile
	}
	return err
}

func (l *Limiter) tryProvisional(ctx context.Context, p *provisional) (held, error) {
	a := p.admission
	a.caller = nil
	for {
		s, err := l.ask(ctx, a)
		if err != nil {
			return held{}, err
		}
		for _, h := range s.held {
			if h.nonce == a.rec.Nonce {
				return h, nil // an earlier try was carried out
			}
			if h.slot == p.slot {
				return held{}, ErrLimit // one in hundreds; its player starts again
			}
		}
		s, r, d, err := l.decideOn(ctx, a, s)
		if errors.Is(err, errLapseUnknown) {
			err = unavailable("start", err)
		}
		if err != nil {
			return held{}, err
		}
		sent := time.Now()
		_, err = l.etcd.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: p.lease, TTL: int64(l.cfg.TTL / time.Second)})
		if err != nil && !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
			return held{}, unavailable("start", err)
		}
		d.slot, a.granted = p.slot, granted{lease: p.lease, ttl: l.cfg.TTL, renewed: sent}
		_, h, now, err := l.write(ctx, a, s, r, d)
		if err == nil && now == nil {
			return h, nil
		}
		if err != nil && pause(ctx) {
			return held{}, unavailable("start", err)
		}
	}
}

// mayBeWritten reports whether a provisional stream that etcd does not have may be
// one that another node has yet to write.
func (l *Limiter) mayBeWritten(err error) bool {
	var ended *EndedError
	return errors.As(err, &ended) && (ended.Reason == ReasonEnded || ended.Reason == ReasonExpired) &&
		l.cfg.Outage == OutageAdmit && l.circuit.closedSince(outageGrace)
}
