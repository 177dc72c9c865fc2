package shard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"streamcount/lease"
)

// home is where a user lives, for one call.
type home struct {
	*lease.Limiter
	m      *Map
	place  *place
	routed int64 // the put of the shard's key that says so
}

func newID() string { return rand.Text() }

var errNoMap = fmt.Errorf("%w: it is not known yet how users are spread over the shards", lease.ErrUnavailable)

// errAgain means that the map has changed, and the call begins again.
var errAgain = errors.New("the map of shards has changed")

// at is the shard of that name under the map m. It brings the map to the shard
// where that has an older one.
func (r *Router) at(ctx context.Context, m *Map, name string) (home, error) {
	r.mu.Lock()
	p := r.shards[name]
	r.mu.Unlock()
	if p == nil {
		return home{}, fmt.Errorf("%w: shard %s is not open", lease.ErrUnavailable, name)
	}
	return r.bring(ctx, m, p)
}

// bring is at for a shard that need not be one of m's.
func (r *Router) bring(ctx context.Context, m *Map, p *place) (home, error) {
	l, err := p.await(ctx)
	if err != nil {
		return home{}, err
	}
	name := p.Name
	for {
		key := l.Shards()
		got := p.reading(key)
		switch {
		case got.err != nil:
			return home{}, fmt.Errorf("%w: shard %s: %w", lease.ErrUnavailable, name, got.err)
		case got.m == nil && m.Epoch == 0, got.m != nil && got.m.Epoch == m.Epoch && got.m.ID == m.ID:
			return home{l, m, p, key.Mod}, nil
		case got.m != nil && got.m.Epoch >= m.Epoch:
			if err := r.adopt(got.m); err != nil {
				return home{}, fmt.Errorf("%w: shard %s: %w", lease.ErrUnavailable, name, err)
			}
			return home{}, errAgain
		}
		unused := key.Mod == 0 && len(m.Shards) > 1
		if _, err := l.PutShards(ctx, m.encode(), key, unused); err != nil && !errors.Is(err, lease.ErrRouting) {
			return home{}, fmt.Errorf("%w: bring the map of shards to %s: %w", lease.ErrUnavailable, name, err)
		}
	}
}

// stale reports whether the shard has meanwhile learned of a later map: what it
// said not to be there may be elsewhere.
func (r *Router) stale(h home) bool {
	got := h.place.reading(h.Shards())
	if got.m == nil || got.m.Epoch <= h.m.Epoch {
		return false
	}
	return r.adopt(got.m) == nil
}

// home is where user lives. Nothing of his is left where he lived before.
func (r *Router) home(ctx context.Context, user string) (home, error) {
	for {
		h, err := r.tryHome(ctx, user)
		if !errors.Is(err, errAgain) && !errors.Is(err, lease.ErrRouting) {
			return h, err
		}
		if ctx.Err() != nil {
			return home{}, fmt.Errorf("%w: find the home of %s: %w", lease.ErrUnavailable, user, context.Cause(ctx))
		}
	}
}

func (r *Router) tryHome(ctx context.Context, user string) (home, error) {
	m := r.now.Load()
	if m == nil {
		return home{}, errNoMap
	}
	if !lease.ValidUser(user) {
		return home{}, lease.ErrBadUser
	}
	to, err := r.at(ctx, m, m.Home(user))
	if err != nil {
		return home{}, err
	}
	old := m.Old(user)
	if old == "" || r.hasLeft(m, user) {
		return to, nil
	}
	from, err := r.at(ctx, m, old)
	if err != nil {
		return home{}, err
	}
	return to, r.move(ctx, user, from, to)
}

// move brings what user has to his new home. It returns lease.ErrRouting if the map
// changed meanwhile.
func (r *Router) move(ctx context.Context, user string, from, to home) error {
	luggage, err := from.Depart(ctx, user, from.routed)
	if err != nil {
		return r.learned(err, from)
	}
	if !luggage.Empty() {
		if err := to.Arrive(ctx, user, luggage, to.routed); err != nil {
			return r.learned(err, to)
		}
		if err := from.Departed(ctx, user); err != nil {
			return err
		}
	}
	r.left.Add(user, to.m.Epoch)
	return nil
}

// learned goes by the map that made h refuse a call.
func (r *Router) learned(err error, h home) error {
	if errors.Is(err, lease.ErrRouting) {
		r.stale(h)
	}
	return err
}

// hasLeft reports whether user is known to have nothing left at his old home. As
// long as the map is m he gets nothing there.
func (r *Router) hasLeft(m *Map, user string) bool {
	epoch, known := r.left.Get(user)
	return known && epoch == m.Epoch
}
