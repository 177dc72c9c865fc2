package shard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/stats"
)

// Start is [lease.Limiter.Start] on the user's shard.
func (r *Router) Start(ctx context.Context, user string, req lease.Request) (lease.Started, error) {
	for {
		h, err := r.route(ctx, user)
		if err != nil {
			return lease.Started{}, err
		}
		req.RoutingRevision = h.revision
		st, err := h.Start(ctx, user, req)
		if !errors.Is(err, lease.ErrRouting) {
			return st, err
		}
		r.mapChanged(h)
		if ctx.Err() != nil {
			return lease.Started{}, fmt.Errorf("%w: start for %s: %w", lease.ErrUnavailable, user, context.Cause(ctx))
		}
	}
}

// Heartbeat is [lease.Limiter.Heartbeat] on the shard that has the stream. During a
// migration it renews the stream where it is.
func (r *Router) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	for {
		s, again, err := r.tryHeartbeat(ctx, user, id)
		if !again {
			return s, err
		}
		if ctx.Err() != nil {
			return r.degraded(user, id), nil
		}
	}
}

// degraded returns the answer to a heartbeat whose shard cannot be reached.
func (r *Router) degraded(user, id string) lease.Stream {
	return lease.Stream{ID: id, User: user, TTL: r.cfg.TTL, Degraded: true}
}

func (r *Router) tryHeartbeat(ctx context.Context, user, id string) (s lease.Stream, again bool, err error) {
	m := r.current.Load()
	if m == nil {
		return lease.Stream{}, false, errNoMap
	}
	old := m.PreviousShard(user)
	settled := old == "" || r.alreadyMoved(m, user)
	name := old
	if settled {
		name = m.Shard(user)
	}
	h, err := r.targetFor(ctx, m, name)
	if err != nil {
		return lease.Stream{}, errors.Is(err, errMapChanged), err
	}
	s, err = h.Heartbeat(ctx, user, id)
	switch {
	case err == nil || !isGone(err):
		return s, false, err
	case r.mapChanged(h):
		return s, true, err
	case settled:
		return s, false, err
	}
	// The stream is not on the previous shard: it may have moved.
	to, moved := r.route(ctx, user)
	if moved != nil {
		return r.degraded(user, id), false, nil
	}
	s, err = to.Heartbeat(ctx, user, id)
	return s, err != nil && isGone(err) && r.mapChanged(to), err
}

// isGone reports whether a stream was not found, without a known reason for its end.
func isGone(err error) bool {
	var ended *lease.EndedError
	return errors.As(err, &ended) && (ended.Reason == policy.ReasonEnded || ended.Reason == policy.ReasonExpired)
}

// onShardOf calls f on the user's shard. It repeats the call if f found nothing and the map
// has changed.
func onShardOf[T any](ctx context.Context, r *Router, user string, f func(target) (T, error)) (T, error) {
	for {
		h, err := r.route(ctx, user)
		if err != nil {
			var none T
			return none, err
		}
		out, err := f(h)
		nothing := errors.Is(err, lease.ErrNoStreams) || errors.Is(err, lease.ErrRouting) || err != nil && isGone(err)
		if !nothing || ctx.Err() != nil || !r.mapChanged(h) {
			return out, err
		}
	}
}

// Stop is [lease.Limiter.Stop].
func (r *Router) Stop(ctx context.Context, user, id string) (lease.Usage, error) {
	return onShardOf(ctx, r, user, func(h target) (lease.Usage, error) { return h.Stop(ctx, user, id) })
}

// StopOldestHeartbeat is [lease.Limiter.StopOldestHeartbeat].
func (r *Router) StopOldestHeartbeat(ctx context.Context, user string) (lease.Usage, error) {
	return onShardOf(ctx, r, user, func(h target) (lease.Usage, error) {
		u, err := h.StopOldestHeartbeat(ctx, user)
		return u, confirmAbsent(ctx, h, err)
	})
}

// Remove is [lease.Limiter.Remove].
func (r *Router) Remove(ctx context.Context, user string) (lease.Usage, error) {
	return onShardOf(ctx, r, user, func(h target) (lease.Usage, error) {
		u, err := h.Remove(ctx, user)
		return u, confirmAbsent(ctx, h, err)
	})
}

// Attend is [lease.Limiter.Attend]. If the limiters share their [lease.Config.Bars], a bar remains
// when its user moves.
func (r *Router) Attend(ctx context.Context, user, session string, entry bool) (lease.Attendance, error) {
	return onShardOf(ctx, r, user, func(h target) (lease.Attendance, error) { return h.Attend(ctx, user, session, entry) })
}

// LookUpSession is [lease.Limiter.LookUpSession].
func (r *Router) LookUpSession(ctx context.Context, user, session string, entry bool) (lease.Attendance, error) {
	return onShardOf(ctx, r, user, func(h target) (lease.Attendance, error) { return h.LookUpSession(ctx, user, session, entry) })
}

// WouldStart is [lease.Limiter.WouldStart].
func (r *Router) WouldStart(ctx context.Context, user string, req lease.Request) (lease.Usage, error) {
	return onShardOf(ctx, r, user, func(h target) (lease.Usage, error) { return h.WouldStart(ctx, user, req) })
}

// Leave is [lease.Limiter.Leave].
func (r *Router) Leave(ctx context.Context, user, session string) error {
	_, err := onShardOf(ctx, r, user, func(h target) (struct{}, error) { return struct{}{}, h.Leave(ctx, user, session) })
	return err
}

// confirmAbsent reads the map of h, if err means that the user has nothing there, so that
// mapChanged can detect a move.
func confirmAbsent(ctx context.Context, h target, err error) error {
	if errors.Is(err, lease.ErrNoStreams) {
		if _, failed := h.ReadRouting(ctx); failed != nil {
			return failed
		}
	}
	return err
}

// List is [lease.Limiter.List].
func (r *Router) List(ctx context.Context, user string, how lease.Consistency) (lease.Usage, error) {
	return onShardOf(ctx, r, user, func(h target) (lease.Usage, error) {
		u, err := h.List(ctx, user, how)
		if how == lease.Linearizable {
			err = confirmAbsent(ctx, h, err)
		}
		return u, err
	})
}

// Totals returns the sum over the shards. It skips shards that are unavailable, and fails if
// all are.
func (r *Router) Totals(ctx context.Context) (lease.Totals, error) {
	sum := lease.Totals{ByRegion: map[string]int{}, ByVia: map[string]int{}}
	var firstErr error
	answered := 0
	each := r.Each()
	for _, s := range each {
		t, err := s.Totals(ctx)
		if err != nil {
			firstErr = errors.Join(firstErr, fmt.Errorf("shard %s: %w", s.Name, err))
			continue
		}
		if answered++; answered == 1 && len(each) == 1 {
			return t, nil
		}
		sum.Streams += t.Streams
		sum.Users += t.Users
		sum.UsersAtLimit += t.UsersAtLimit
		sum.Admitted += t.Admitted
		sum.Refused += t.Refused
		sum.Expired += t.Expired
		for via, n := range t.ByVia {
			sum.ByVia[via] += n
		}
		for region, n := range maps.All(t.ByRegion) {
			sum.ByRegion[region] += n
		}
	}
	if answered == 0 {
		return lease.Totals{}, errors.Join(errNoMap, firstErr)
	}
	return sum, nil
}

// TopUsers is [lease.Limiter.TopUsers] over all shards. It skips shards that are unavailable,
// and fails if all are.
func (r *Router) TopUsers(ctx context.Context, prefix string, n int) (top []lease.TopUser, more bool, err error) {
	answered := 0
	for _, s := range r.Each() {
		if s.limiter == nil {
			continue
		}
		some, others, failed := s.limiter.TopUsers(ctx, prefix, n)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("shard %s: %w", s.Name, failed))
			continue
		}
		answered++
		top, more = append(top, some...), more || others
	}
	if answered == 0 {
		return nil, false, errors.Join(errNoMap, err)
	}
	slices.SortFunc(top, lease.CompareTopUsers)
	if len(top) > n {
		top, more = top[:n], true
	}
	return top, more, nil
}

// A Status is the state of a shard on this node.
type Status struct {
	Shard
	limiter *lease.Limiter // nil if the shard was not reached
}

// Totals is [lease.Limiter.Totals] of the shard.
func (s Status) Totals(ctx context.Context) (lease.Totals, error) {
	if s.limiter == nil {
		return lease.Totals{}, fmt.Errorf("%w: the shard has not been reached", lease.ErrUnavailable)
	}
	return s.limiter.Totals(ctx)
}

// EachUser is [lease.Limiter.EachUser] of the shard.
func (s Status) EachUser(ctx context.Context, f func(user string, streams int)) error {
	if s.limiter == nil {
		return fmt.Errorf("%w: the shard has not been reached", lease.ErrUnavailable)
	}
	return s.limiter.EachUser(ctx, f)
}

// Each returns all shards of the map, including previous ones.
func (r *Router) Each() []Status {
	m := r.current.Load()
	if m == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Status
	for _, s := range m.all() {
		state := Status{Shard: s}
		if p := r.shards[s.Name]; p != nil {
			if o := p.opened.Load(); o != nil {
				state.limiter = o.Limiter
			}
		}
		out = append(out, state)
	}
	return out
}

// Current reports whether the replicas of all shards are at most a few seconds behind etcd.
func (r *Router) Current() bool {
	all := r.Each()
	for _, s := range all {
		if s.limiter == nil || !s.limiter.Current() {
			return false
		}
	}
	return len(all) > 0
}

// Map returns the current map of this node; nil before the first.
func (r *Router) Map() *Map { return r.current.Load() }

// Stats returns the statistics of the shards' limiters by name; nil for a shard that was not
// reached.
func (r *Router) Stats() map[string]*stats.Snapshot {
	out := map[string]*stats.Snapshot{}
	for _, s := range r.Each() {
		out[s.Name] = nil
		if s.limiter != nil {
			out[s.Name] = s.limiter.Stats()
		}
	}
	return out
}
