package shard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"

	"streamcount/lease"
)

// Start is [lease.Limiter.Start] on the user's shard.
func (r *Router) Start(ctx context.Context, user string, req lease.Request) (lease.Started, error) {
	for {
		h, err := r.home(ctx, user)
		if err != nil {
			return lease.Started{}, err
		}
		req.Routed = h.routed
		st, err := h.Start(ctx, user, req)
		if !errors.Is(err, lease.ErrRouting) {
			return st, err
		}
		r.stale(h)
		if ctx.Err() != nil {
			return lease.Started{}, fmt.Errorf("%w: start for %s: %w", lease.ErrUnavailable, user, context.Cause(ctx))
		}
	}
}

// Heartbeat is [lease.Limiter.Heartbeat] on the shard that has the stream. While
// users move, it is renewed where it is.
func (r *Router) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	for {
		s, again, err := r.beat(ctx, user, id)
		if !again {
			return s, err
		}
		if ctx.Err() != nil {
			return r.degraded(user, id), nil
		}
	}
}

// degraded is the answer to a heartbeat that nobody can answer.
func (r *Router) degraded(user, id string) lease.Stream {
	return lease.Stream{ID: id, User: user, TTL: r.cfg.TTL, Degraded: true}
}

func (r *Router) beat(ctx context.Context, user, id string) (s lease.Stream, again bool, err error) {
	m := r.now.Load()
	if m == nil {
		return lease.Stream{}, false, errNoMap
	}
	old := m.Old(user)
	settled := old == "" || r.hasLeft(m, user)
	name := old
	if settled {
		name = m.Home(user)
	}
	h, err := r.at(ctx, m, name)
	if err != nil {
		return lease.Stream{}, errors.Is(err, errAgain), err
	}
	s, err = h.Heartbeat(ctx, user, id)
	switch {
	case err == nil || !gone(err):
		return s, false, err
	case r.stale(h):
		return s, true, err
	case settled:
		return s, false, err
	}
	// It is not at the old home: it may have moved.
	to, moved := r.home(ctx, user)
	if moved != nil {
		return r.degraded(user, id), false, nil
	}
	s, err = to.Heartbeat(ctx, user, id)
	return s, err != nil && gone(err) && r.stale(to), err
}

// gone reports whether a stream was not found and nobody is known to have ended it.
func gone(err error) bool {
	var ended *lease.EndedError
	return errors.As(err, &ended) && (ended.Reason == lease.ReasonEnded || ended.Reason == lease.ReasonExpired)
}

// Heartbeats is Heartbeat for many streams; results come in the order of beats.
func (r *Router) Heartbeats(ctx context.Context, beats []lease.Beat) []lease.BeatResult {
	if m := r.now.Load(); m != nil && len(m.all()) == 1 {
		if h, err := r.at(ctx, m, m.Shards[0].Name); err == nil {
			out := h.Heartbeats(ctx, beats)
			if !r.stale(h) {
				return out
			}
		}
	}
	results := make([]lease.BeatResult, len(beats))
	var g errgroup.Group
	g.SetLimit(beatsAtOnce)
	for i, b := range beats {
		g.Go(func() error {
			results[i].Stream, results[i].Err = r.Heartbeat(ctx, b.User, b.ID)
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
	return results
}

// beatsAtOnce is how many heartbeats of one batch are under way at once.
const beatsAtOnce = 256

// on calls f on the user's shard, again where a map was learned of meanwhile and f
// found nothing.
func on[T any](ctx context.Context, r *Router, user string, f func(home) (T, error)) (T, error) {
	for {
		h, err := r.home(ctx, user)
		if err != nil {
			var none T
			return none, err
		}
		out, err := f(h)
		nothing := errors.Is(err, lease.ErrNoStreams) || errors.Is(err, lease.ErrRouting) || err != nil && gone(err)
		if !nothing || ctx.Err() != nil || !r.stale(h) {
			return out, err
		}
	}
}

// Stop is [lease.Limiter.Stop].
func (r *Router) Stop(ctx context.Context, user, id string) (lease.Usage, error) {
	return on(ctx, r, user, func(h home) (lease.Usage, error) { return h.Stop(ctx, user, id) })
}

// StopQuietest is [lease.Limiter.StopQuietest].
func (r *Router) StopQuietest(ctx context.Context, user string) (lease.Usage, error) {
	return on(ctx, r, user, func(h home) (lease.Usage, error) {
		u, err := h.StopQuietest(ctx, user)
		return u, asked(ctx, h, err)
	})
}

// Remove is [lease.Limiter.Remove].
func (r *Router) Remove(ctx context.Context, user string) (lease.Usage, error) {
	return on(ctx, r, user, func(h home) (lease.Usage, error) {
		u, err := h.Remove(ctx, user)
		return u, asked(ctx, h, err)
	})
}

// asked makes sure that h knows of a map under which it was found to have nothing.
func asked(ctx context.Context, h home, err error) error {
	if errors.Is(err, lease.ErrNoStreams) {
		if _, failed := h.ReadShards(ctx); failed != nil {
			return failed
		}
	}
	return err
}

// List is [lease.Limiter.List].
func (r *Router) List(ctx context.Context, user string, how lease.Consistency) (lease.Usage, error) {
	return on(ctx, r, user, func(h home) (lease.Usage, error) {
		u, err := h.List(ctx, user, how)
		if how == lease.Linearizable {
			err = asked(ctx, h, err)
		}
		return u, err
	})
}

// Totals adds up what the shards know. One that cannot tell is left out, unless
// none can.
func (r *Router) Totals(ctx context.Context) (lease.Totals, error) {
	sum := lease.Totals{ByRegion: map[string]int{}}
	var firstErr error
	told := 0
	each := r.Each()
	for _, s := range each {
		t, err := s.Totals(ctx)
		if err != nil {
			firstErr = errors.Join(firstErr, fmt.Errorf("shard %s: %w", s.Name, err))
			continue
		}
		if told++; told == 1 && len(each) == 1 {
			return t, nil
		}
		sum.Streams += t.Streams
		sum.Users += t.Users
		sum.UsersAtLimit += t.UsersAtLimit
		sum.Admitted += t.Admitted
		sum.Refused += t.Refused
		sum.Expired += t.Expired
		for region, n := range maps.All(t.ByRegion) {
			sum.ByRegion[region] += n
		}
	}
	if told == 0 {
		return lease.Totals{}, errors.Join(errNoMap, firstErr)
	}
	return sum, nil
}

// Busiest is [lease.Limiter.Busiest] over all shards. One that cannot tell is left
// out, unless none can.
func (r *Router) Busiest(ctx context.Context, prefix string, most int) (top []lease.Busy, more bool, err error) {
	told := 0
	for _, s := range r.Each() {
		if s.limiter == nil {
			continue
		}
		some, others, failed := s.limiter.Busiest(ctx, prefix, most)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("shard %s: %w", s.Name, failed))
			continue
		}
		told++
		top, more = append(top, some...), more || others
	}
	if told == 0 {
		return nil, false, errors.Join(errNoMap, err)
	}
	slices.SortFunc(top, lease.CompareBusy)
	if len(top) > most {
		top, more = top[:most], true
	}
	return top, more, nil
}

// A State is a shard as this node knows it.
type State struct {
	Shard
	limiter *lease.Limiter // nil if it was not reached
}

// Totals is [lease.Limiter.Totals] of the shard.
func (s State) Totals(ctx context.Context) (lease.Totals, error) {
	if s.limiter == nil {
		return lease.Totals{}, fmt.Errorf("%w: it has not been reached", lease.ErrUnavailable)
	}
	return s.limiter.Totals(ctx)
}

// EachUser is [lease.Limiter.EachUser] of the shard.
func (s State) EachUser(ctx context.Context, f func(user string, streams int)) error {
	if s.limiter == nil {
		return fmt.Errorf("%w: it has not been reached", lease.ErrUnavailable)
	}
	return s.limiter.EachUser(ctx, f)
}

// Each returns all shards of the map, those that users leave included.
func (r *Router) Each() []State {
	m := r.now.Load()
	if m == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []State
	for _, s := range m.all() {
		state := State{Shard: s}
		if p := r.shards[s.Name]; p != nil {
			if o := p.opened.Load(); o != nil {
				state.limiter = o.Limiter
			}
		}
		out = append(out, state)
	}
	return out
}

// Map is the map that this node goes by; nil if none is known yet.
func (r *Router) Map() *Map { return r.now.Load() }

// Measures are what the limiters of the shards have counted, by name; nil for one
// that was not reached.
func (r *Router) Measures() map[string]*lease.Measures {
	out := map[string]*lease.Measures{}
	for _, s := range r.Each() {
		out[s.Name] = nil
		if s.limiter != nil {
			out[s.Name] = s.limiter.Measures()
		}
	}
	return out
}
