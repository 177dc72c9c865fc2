package shard

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"streamcount/lease"
	"streamcount/lease/userid"
)

// A target is the shard of a user, for one call.
type target struct {
	*lease.Limiter
	m        *Map
	conn     *shardConn
	revision int64 // of the put of the shard map on this shard
}

func newID() string { return rand.Text() }

var errNoMap = fmt.Errorf("%w: the shard map has not been read yet", lease.ErrUnavailable)

// errMapChanged means that the map has changed, so the call must be repeated.
var errMapChanged = errors.New("the shard map has changed")

// targetFor returns the shard of that name under the map m. It writes m to a shard that has
// an older map.
func (r *Router) targetFor(ctx context.Context, m *Map, name string) (target, error) {
	r.mu.Lock()
	p := r.shards[name]
	r.mu.Unlock()
	if p == nil {
		return target{}, fmt.Errorf("%w: shard %s is not open", lease.ErrUnavailable, name)
	}
	return r.ensureMap(ctx, m, p)
}

// ensureMap is targetFor for a shard that need not belong to m.
func (r *Router) ensureMap(ctx context.Context, m *Map, p *shardConn) (target, error) {
	l, err := p.limiter(ctx)
	if err != nil {
		return target{}, err
	}
	name := p.Name
	for {
		key := l.Routing()
		got := p.readMap(key)
		switch {
		case got.err != nil:
			return target{}, fmt.Errorf("%w: shard %s: %w", lease.ErrUnavailable, name, got.err)
		case got.m == nil && m.Epoch == 0, got.m != nil && got.m.Epoch == m.Epoch && got.m.ID == m.ID:
			return target{l, m, p, key.Revision}, nil
		case got.m != nil && got.m.Epoch >= m.Epoch:
			if err := r.useMap(got.m); err != nil {
				return target{}, fmt.Errorf("%w: shard %s: %w", lease.ErrUnavailable, name, err)
			}
			return target{}, errMapChanged
		}
		unused := key.Revision == 0 && len(m.Shards) > 1
		if _, err := l.PutRouting(ctx, m.encode(), key, unused); err != nil && !errors.Is(err, lease.ErrRouting) {
			return target{}, fmt.Errorf("%w: write the shard map to %s: %w", lease.ErrUnavailable, name, err)
		}
	}
}

// mapChanged reports whether the shard has received a later map: what was not found there may
// be on another shard.
func (r *Router) mapChanged(h target) bool {
	got := h.conn.readMap(h.Routing())
	if got.m == nil || got.m.Epoch <= h.m.Epoch {
		return false
	}
	return r.useMap(got.m) == nil
}

// route returns the shard of user. It first migrates the user if they are still on their
// previous shard.
func (r *Router) route(ctx context.Context, user string) (target, error) {
	for {
		h, err := r.tryRoute(ctx, user)
		if !errors.Is(err, errMapChanged) && !errors.Is(err, lease.ErrRouting) {
			return h, err
		}
		if ctx.Err() != nil {
			return target{}, fmt.Errorf("%w: find the shard of %s: %w", lease.ErrUnavailable, user, context.Cause(ctx))
		}
	}
}

func (r *Router) tryRoute(ctx context.Context, user string) (target, error) {
	m := r.current.Load()
	if m == nil {
		return target{}, errNoMap
	}
	if !userid.Valid(user) {
		return target{}, lease.ErrBadUser
	}
	to, err := r.targetFor(ctx, m, m.Shard(user))
	if err != nil {
		return target{}, err
	}
	old := m.PreviousShard(user)
	if old == "" || r.alreadyMoved(m, user) {
		return to, nil
	}
	from, err := r.targetFor(ctx, m, old)
	if err != nil {
		return target{}, err
	}
	return to, r.migrate(ctx, user, from, to)
}

// migrate moves user's streams and own limit to their new shard. It returns lease.ErrRouting
// if the map has changed.
func (r *Router) migrate(ctx context.Context, user string, from, to target) error {
	exported, err := from.Export(ctx, user, from.revision)
	if err != nil {
		return r.adoptOnConflict(err, from)
	}
	if !exported.Empty() {
		if err := to.Import(ctx, user, exported, to.revision); err != nil {
			return r.adoptOnConflict(err, to)
		}
		if err := from.FinishExport(ctx, user); err != nil {
			return err
		}
	}
	r.movedUsers.Add(user, to.m.Epoch)
	return nil
}

// adoptOnConflict uses the later map if err means that the shard has one.
func (r *Router) adoptOnConflict(err error, h target) error {
	if errors.Is(err, lease.ErrRouting) {
		r.mapChanged(h)
	}
	return err
}

// alreadyMoved reports whether user is known to have nothing left on their previous shard.
// While the map is m, nothing is added there.
func (r *Router) alreadyMoved(m *Map, user string) bool {
	epoch, known := r.movedUsers.Get(user)
	return known && epoch == m.Epoch
}
