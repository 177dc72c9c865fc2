package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/internal/retry"
	"streamcount/lease"
	"streamcount/lease/migration"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// A migration publishes two maps, one after the other. Under the first, users move: a start,
// and every other call about one user except a heartbeat, migrates that user first, and Move
// migrates all others. Under the second, the previous shards are not used any more.
//
// One transaction on the first of the previous shards commits each map. Then any node or
// command that finds a shard with an older map writes the new map to it. On each shard the
// map is a fence: a start that was routed by another map is not admitted there.

// Progress is the progress of a migration.
type Progress struct {
	Moved  int64  // users that this process has migrated
	Source string // the shard whose users are being migrated
}

const maxConcurrentMoves = 32

// Move migrates users to the shards to, and returns when no user is left on a shard that is
// not theirs. A call with the same shards resumes an interrupted migration. Move may be
// interrupted at any time; the service continues.
func (r *Router) Move(ctx context.Context, to []Shard, report func(Progress)) error {
	if err := Check(to); err != nil {
		return err
	}
	m, err := r.startMigration(ctx, to)
	if err != nil {
		return err
	}
	if m == nil { // an earlier migration may have been interrupted just before its end
		return r.clearMarks(ctx, r.current.Load())
	}
	if err := r.migrateAll(ctx, m, report); err != nil {
		return err
	}
	return r.finish(ctx, m)
}

// startMigration commits and distributes the map under which users move. It returns nil if
// the current map already has these shards.
func (r *Router) startMigration(ctx context.Context, to []Shard) (*Map, error) {
	now := r.current.Load()
	if now == nil {
		return nil, errNoMap
	}
	if err := Check((&Map{Shards: to, Previous: now.Shards, By: r.cfg.By}).all()); err != nil {
		return nil, err
	}
	if len(now.Previous) > 0 {
		if !sameShards(now.Shards, to) {
			return nil, fmt.Errorf("a migration to %v is in progress: complete it first, by a move to these shards", now.Shards)
		}
		if err := r.distributeMap(ctx, now, now.all()); err != nil {
			return nil, err
		}
		// The earlier call may have been interrupted before its second copy of the plans.
		return now, errors.Join(r.checkOverrides(now), r.copyPlans(ctx, now))
	}
	if sameShards(now.Shards, to) {
		return nil, nil
	}
	if now.Epoch == 0 {
		first := &Map{ID: newID(), Epoch: 1, Shards: now.Shards, By: r.cfg.By}
		if err := r.commitMap(ctx, now, first); err != nil {
			return nil, err
		}
		now = first
	}
	// All shards must have the current map before it is replaced.
	if err := r.distributeMap(ctx, now, now.Shards); err != nil {
		return nil, err
	}
	next := &Map{ID: now.ID, Epoch: now.Epoch + 1, Shards: to, Previous: now.Shards, By: r.cfg.By}
	if err := r.prepareShards(ctx, now, next); err != nil {
		return nil, err
	}
	if err := r.commitMap(ctx, now, next); err != nil {
		return nil, err
	}
	if err := r.distributeMap(ctx, next, next.all()); err != nil {
		return nil, err
	}
	// Again, because a plan may have been set since prepareShards. It is stored on all shards
	// of the map from now on.
	return next, r.copyPlans(ctx, next)
}

func sameShards(a, b []Shard) bool {
	names := func(shards []Shard) []string {
		var out []string
		for _, s := range shards {
			out = append(out, s.Name)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(names(a), names(b))
}

// prepareShards opens the new shards, checks that they are empty, and copies the plans to them.
func (r *Router) prepareShards(ctx context.Context, now, next *Map) error {
	for _, s := range next.Shards {
		r.mu.Lock()
		p := r.openLocked(s, false)
		r.mu.Unlock()
		if p == nil {
			return fmt.Errorf("shard %s: %w", s.Name, context.Cause(ctx))
		}
		for p.opened.Load() == nil {
			if retry.Sleep(ctx, 20*time.Millisecond) != nil {
				return fmt.Errorf("shard %s has not been reached: %w", s.Name, context.Cause(ctx))
			}
		}
		if slices.ContainsFunc(now.Shards, func(old Shard) bool { return old.Name == s.Name }) {
			continue
		}
		got := p.readMap(p.opened.Load().Limiter.Routing())
		if got.m != nil && got.m.ID != now.ID {
			return fmt.Errorf("shard %s: %w", s.Name, errForeignMap)
		}
		t, err := p.opened.Load().Limiter.Totals(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("shard %s: %w", s.Name, err)
		case t.Streams > 0:
			return fmt.Errorf("shard %s: %w: it has %d streams", s.Name, lease.ErrInUse, t.Streams)
		}
	}
	if err := r.checkOverrides(next); err != nil {
		return err
	}
	return r.copyPlans(ctx, next)
}

// checkOverrides returns a [*policy.UnreadableError] if this version cannot read the
// override of a user who moves. A later version may store more for an override than its key.
func (r *Router) checkOverrides(m *Map) error {
	for _, s := range m.Previous {
		p, err := r.connOf(s.Name)
		if err != nil {
			return err
		}
		_, users := p.opened.Load().Limiter.Rules().Unreadable()
		for _, user := range users {
			if m.Shard(user) != s.Name && m.PreviousShard(user) == s.Name {
				return fmt.Errorf("shard %s: %w", s.Name, &policy.UnreadableError{User: user})
			}
		}
	}
	return nil
}

// copyPlans copies the plans of the first previous shard to the shards of m. The plans are
// at least as new as the newest map that this process has read from that shard.
func (r *Router) copyPlans(ctx context.Context, m *Map) error {
	from, err := r.connOf(m.Previous[0].Name)
	if err != nil {
		return err
	}
	source := from.opened.Load().Limiter.Rules()
	plans, err := source.Plans(ctx)
	if err != nil {
		return fmt.Errorf("copy plans: %w", err)
	}
	if unreadable, _ := source.Unreadable(); len(unreadable) > 0 {
		return fmt.Errorf("copy plans: %w", &policy.UnreadableError{Plan: unreadable[0]})
	}
	set := rules.Set{Plans: map[string]*policy.Plan{}}
	for name, p := range plans {
		set.Plans[name] = &p
	}
	for _, s := range m.Shards {
		p, err := r.connOf(s.Name)
		if err != nil {
			return err
		}
		l := p.opened.Load().Limiter
		if _, err := l.Rules().Apply(ctx, set, rules.Options{RoutingRevision: l.Routing().Revision}); err != nil {
			return fmt.Errorf("copy plans to shard %s: %w", s.Name, err)
		}
	}
	return nil
}

// connOf returns an open shard.
func (r *Router) connOf(name string) (*shardConn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.shards[name]
	if p == nil || p.opened.Load() == nil {
		return nil, fmt.Errorf("%w: shard %s has not been reached", lease.ErrUnavailable, name)
	}
	return p, nil
}

// commitMap makes next the map after now, unless another process has committed another map.
func (r *Router) commitMap(ctx context.Context, now, next *Map) error {
	committing := now.Shards
	if len(now.Previous) > 0 {
		committing = now.Previous
	}
	for {
		h, err := r.targetFor(ctx, now, committing[0].Name)
		if errors.Is(err, errMapChanged) {
			return errConcurrentMigration
		}
		if err != nil {
			return err
		}
		_, err = h.PutRouting(ctx, next.encode(), h.Routing(), false)
		got := h.conn.readMap(h.Routing())
		switch {
		case got.m != nil && got.m.ID == next.ID && got.m.Epoch == next.Epoch && sameShards(got.m.Shards, next.Shards):
			return nil // also if the answer was lost
		case errors.Is(err, lease.ErrRouting):
			return errConcurrentMigration
		case err == nil:
			return nil
		}
		if retry.Sleep(ctx, 100*time.Millisecond) != nil {
			return err
		}
		_, _ = h.ReadRouting(ctx) // if etcd cannot be read, the next put fails too
	}
}

var errConcurrentMigration = errors.New("another process has changed the shards: check 'streamcount shards status' and repeat the command")

// distributeMap writes m to the shards and makes it the current map.
func (r *Router) distributeMap(ctx context.Context, m *Map, to []Shard) error {
	conns := make([]*shardConn, 0, len(to))
	for _, s := range to {
		p, err := r.connOf(s.Name)
		if err != nil {
			return err
		}
		conns = append(conns, p)
	}
	for _, p := range conns {
		if _, err := r.ensureMap(ctx, m, p); err != nil {
			return err
		}
	}
	if m.Epoch == 0 {
		return nil
	}
	return r.useMap(m)
}

// migrateAll migrates all users who have keys on a previous shard.
func (r *Router) migrateAll(ctx context.Context, m *Map, report func(Progress)) error {
	var moved atomic.Int64
	for _, s := range m.Previous {
		report(Progress{Source: s.Name})
		// No key is added there any more, so each key is read only once.
		h, err := r.targetFor(ctx, m, s.Name)
		if err != nil {
			return err
		}
		moves := func(user string) bool { return m.Shard(user) != s.Name && m.PreviousShard(user) == s.Name }
		for at := (migration.PageToken{}); ; {
			users, next, err := h.UsersToMigrate(ctx, at, moves)
			if err != nil {
				return err
			}
			if len(users) == 0 {
				break
			}
			at = next
			g, work := errgroup.WithContext(ctx)
			g.SetLimit(maxConcurrentMoves)
			for _, user := range users {
				g.Go(func() error {
					if err := r.migrateUser(work, m, user); err != nil {
						return fmt.Errorf("move %s: %w", user, err)
					}
					moved.Add(1)
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				return err
			}
			report(Progress{Moved: moved.Load(), Source: s.Name})
		}
	}
	return nil
}

// migrateUser migrates one user. It retries while a shard is unavailable.
func (r *Router) migrateUser(ctx context.Context, m *Map, user string) error {
	for {
		h, err := r.route(ctx, user)
		switch {
		case err == nil && h.m.Epoch != m.Epoch:
			return errConcurrentMigration
		case err == nil:
			return nil
		case !errors.Is(err, lease.ErrUnavailable) || retry.Sleep(ctx, time.Second) != nil:
			return err
		}
	}
}

// finish publishes the second map, after all users have moved.
func (r *Router) finish(ctx context.Context, m *Map) error {
	last := &Map{ID: m.ID, Epoch: m.Epoch + 1, Shards: m.Shards, By: r.cfg.By}
	if err := r.commitMap(ctx, m, last); err != nil {
		return err
	}
	if err := r.distributeMap(ctx, last, m.all()); err != nil {
		return err
	}
	return r.clearMarks(ctx, last)
}

// clearMarks removes the marks of imports.
func (r *Router) clearMarks(ctx context.Context, m *Map) error {
	for _, s := range m.Shards {
		h, err := r.targetFor(ctx, m, s.Name)
		if err != nil {
			return err
		}
		if err := h.ClearImportMarks(ctx); err != nil {
			return fmt.Errorf("shard %s: %w", s.Name, err)
		}
	}
	return nil
}
