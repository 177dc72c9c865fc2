package lease

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// batchWidth is how many heartbeats of one batch are under way at once.
const batchWidth = 64

// Heartbeat renews the lease of user's stream and returns the stream with its
// new ExpiresAt. Where etcd does not answer in time the stream comes back
// Degraded: nobody knows better, and etcd expires nothing while it is away.
//
// A stream that is gone is an [*EndedError]. Also returns [ErrBadUser],
// [ErrBadID] and [ErrForeignID].
func (l *Limiter) Heartbeat(ctx context.Context, user, id string) (Stream, error) {
	if !ValidUser(user) {
		return Stream{}, ErrBadUser
	}
	who, err := l.ids.open(user, id)
	if err != nil {
		return Stream{}, err
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	s, err := l.beat(ctx, user, who)
	if err != nil && !errors.Is(err, ErrEnded) {
		l.cfg.Log.Debug("heartbeat answered as degraded", "user", user, "err", err)
		return Stream{ID: id, User: user, TTL: l.cfg.TTL, Degraded: true}, nil
	}
	return s, err
}

// beat looks before it renews: the lease of a stream that was ended must not be
// kept alive by a client that goes on beating.
func (l *Limiter) beat(ctx context.Context, user string, who ident) (Stream, error) {
	h, err := l.find(ctx, user, who)
	if err != nil {
		return Stream{}, err
	}
	sent := time.Now() // before the call: etcd may start the TTL any time after
	ttl, err := l.renew(ctx, who.lease)
	if errors.Is(err, errLeaseGone) {
		return Stream{}, l.afterEnd(ctx, user, who) // it ended since find saw it
	}
	if err != nil {
		return Stream{}, err
	}
	s := l.stream(user, h.slot, h.lease, h.rec)
	s.TTL, s.ExpiresAt = ttl, sent.Add(ttl)
	return s, nil
}

// find returns the key that stream who holds, by a linearizable read, or an
// [*EndedError] that says how the stream ended.
func (l *Limiter) find(ctx context.Context, user string, who ident) (held, error) {
	resp, err := l.kv.Txn(ctx).Then(
		clientv3.OpGet(l.keys.slot(user, int(who.slot))),
		clientv3.OpGet(l.keys.ended(user, who.nonce)),
	).Commit()
	if err != nil {
		return held{}, unavailable("read stream", err)
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		if h := newHeld(l.keys.user(user), kvs[0]); h.lease == who.lease && h.rec.Nonce == who.nonce {
			return h, nil
		}
	}
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) == 1 {
		var g grave
		if err := json.Unmarshal(kvs[0].Value, &g); err == nil {
			return held{}, g.err()
		}
	}
	return held{}, l.remembered(who.nonce)
}

// afterEnd is how a stream ended whose lease was found gone just now: by one of
// us, or else because it ran out.
func (l *Limiter) afterEnd(ctx context.Context, user string, who ident) error {
	_, err := l.find(ctx, user, who)
	var ended *EndedError
	if errors.As(err, &ended) && ended.Reason != ReasonEnded {
		return ended
	}
	return &EndedError{Reason: ReasonExpired}
}

// remembered is the reason that this node saw go by, or none that is known.
func (l *Limiter) remembered(n nonce) *EndedError {
	if r, ok := l.ends.get(n); ok {
		return &EndedError{Reason: r}
	}
	return &EndedError{Reason: ReasonEnded}
}

// Heartbeats is Heartbeat for many streams at once; results come in the order
// of beats. A beat that cannot be answered before ctx ends is Degraded.
func (l *Limiter) Heartbeats(ctx context.Context, beats []Beat) []BeatResult {
	results := make([]BeatResult, len(beats))
	ctx, cancel := l.bound(ctx) // one deadline for all of them
	defer cancel()
	var g errgroup.Group
	g.SetLimit(batchWidth)
	for i, b := range beats {
		g.Go(func() error {
			results[i].Stream, results[i].Err = l.Heartbeat(ctx, b.User, b.ID)
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
	return results
}
