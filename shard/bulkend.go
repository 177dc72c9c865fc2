package shard

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/lease"
	"streamcount/lease/bulkend"
	"streamcount/lease/streamid"
)

// EndStreams ends the streams on all shards that fulfil the conditions of q, with the reason
// policy.ReasonRemoved. It begins no new end after three quarters of the time until the
// deadline of ctx. The result is then not complete, and the call can be repeated. It does not
// end a stream that starts after the call. EndStreams returns an [lease.ErrUnavailable] if no
// shard could be read; if some could not, the result is not complete.
func (r *Router) EndStreams(ctx context.Context, q bulkend.Query) (bulkend.Result, error) {
	ctx, until, cancel := bulkend.Deadlines(ctx)
	defer cancel()
	found, err := r.findStreams(ctx, until, q)
	if err != nil {
		return bulkend.Result{}, err
	}
	out := found.result(q.DryRun)
	if q.DryRun {
		return out, nil
	}
	if q.Max > 0 && out.Matched > q.Max {
		found.truncate(q.Max)
		out.Complete = false
	}
	var mu sync.Mutex
	var shards sync.WaitGroup
	for _, f := range found.shards {
		shards.Go(func() {
			ended, left := bulkend.EndAll(ctx, until, f.Matches, func(ctx context.Context, m bulkend.Match) error { return r.endStream(ctx, f.target, m) })
			mu.Lock()
			defer mu.Unlock()
			out.Ended += ended
			out.Complete = out.Complete && left == 0
		})
	}
	shards.Wait()
	return out, nil
}

// endStream ends a stream where it was found, or where its user has moved since. A user who is
// to move is moved first, as for a stop: the reason of the end is then on the shard that
// answers the next heartbeat.
func (r *Router) endStream(ctx context.Context, on target, m bulkend.Match) error {
	if on.m.PreviousShard(m.User) == "" {
		if err := on.BulkEnd().End(ctx, m); !errors.Is(err, lease.ErrEnded) || !r.mapChanged(on) {
			return err
		}
	}
	_, err := onShardOf(ctx, r, m.User, func(h target) (struct{}, error) { return struct{}{}, h.BulkEnd().EndMoved(ctx, m) })
	return err
}

// foundStreams are the streams on all shards that fulfil conditions.
type foundStreams struct {
	shards   []foundOnShard
	complete bool
	// moving is set if users move between the shards, so that a stream may have been found on
	// two shards.
	moving bool
}

type foundOnShard struct {
	target
	bulkend.Found
}

// findStreams finds the streams under one map. If the map changes, it begins again.
func (r *Router) findStreams(ctx context.Context, until time.Time, q bulkend.Query) (*foundStreams, error) {
	for {
		m := r.current.Load()
		if m == nil {
			return nil, errNoMap
		}
		found, err := r.findUnder(ctx, until, m, q)
		if !errors.Is(err, errMapChanged) && !errors.Is(err, lease.ErrRouting) {
			return found, err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: find streams: %w", lease.ErrUnavailable, context.Cause(ctx))
		}
	}
}

// findUnder finds the streams under the map m. While users move, it reads the previous shards
// first. A user who has left their previous shard by then, and has not arrived, is migrated
// before the other shards are read. So a stream is found on one shard or on both.
func (r *Router) findUnder(ctx context.Context, until time.Time, m *Map, q bulkend.Query) (*foundStreams, error) {
	found := &foundStreams{complete: true, moving: len(m.Previous) > 0}
	before, err := r.findOn(ctx, until, m, m.Previous, q, found)
	if err != nil {
		return nil, err
	}
	r.completeMoves(ctx, before, found)
	now, err := r.findOn(ctx, until, m, m.Shards, q, found)
	if err != nil {
		return nil, err
	}
	for _, h := range append(before, now...) {
		if r.mapChanged(h) { // a stream may have moved between two reads
			return nil, errMapChanged
		}
	}
	if found.moving {
		found.removeDuplicates()
	}
	return found, nil
}

// findOn adds the streams on shards to found, and returns the shards that were read. It
// fails if the map has changed, or if none of the shards could be read.
func (r *Router) findOn(ctx context.Context, until time.Time, m *Map, shards []Shard, q bulkend.Query, found *foundStreams) ([]target, error) {
	var mu sync.Mutex
	var read []target
	var failed error
	var all errgroup.Group
	for _, s := range shards {
		all.Go(func() error {
			h, err := r.targetFor(ctx, m, s.Name)
			var f bulkend.Found
			if err == nil {
				f, err = h.BulkEnd().Find(ctx, until, q.Where)
			}
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				read = append(read, h)
				found.shards = append(found.shards, foundOnShard{h, f})
				found.complete = found.complete && f.Complete
			case errors.Is(err, errMapChanged):
				return err
			default:
				failed = errors.Join(failed, fmt.Errorf("shard %s: %w", s.Name, err))
				found.complete = false
			}
			return nil
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	if len(read) == 0 {
		return nil, failed
	}
	return read, nil
}

// completeMoves migrates the users who have left one of the shards and have not arrived on
// another.
func (r *Router) completeMoves(ctx context.Context, left []target, found *foundStreams) {
	var moves errgroup.Group
	moves.SetLimit(maxConcurrentMoves)
	for _, h := range left {
		users, err := h.BulkEnd().DepartedUsers(ctx)
		if err != nil {
			found.complete = false
			continue
		}
		for _, user := range users {
			moves.Go(func() error {
				_, err := r.route(ctx, user)
				return err
			})
		}
	}
	if err := moves.Wait(); err != nil {
		found.complete = false
	}
}

// removeDuplicates removes the streams that were found on two shards from the first of them,
// the previous shard.
func (f *foundStreams) removeDuplicates() {
	seen := map[streamid.Nonce]bool{}
	for i := len(f.shards) - 1; i >= 0; i-- {
		kept := f.shards[i].Matches[:0]
		for _, m := range f.shards[i].Matches {
			if !seen[m.ID().Nonce] {
				seen[m.ID().Nonce] = true
				kept = append(kept, m)
			}
		}
		f.shards[i].Matches = kept
	}
}

// result returns the result before anything has ended, with a sample if sample is set.
func (f *foundStreams) result(sample bool) bulkend.Result {
	out := bulkend.Result{Complete: f.complete}
	users := map[string]bool{} // of all shards; used while users move only
	for _, s := range f.shards {
		out.Matched += len(s.Matches)
		last := ""
		for _, m := range s.Matches {
			if f.moving {
				users[m.User] = true
			} else if m.User != last { // the streams of a user are together
				out.Users++
			}
			last = m.User
			if sample && len(out.Sample) < bulkend.MaxSample {
				out.Sample = append(out.Sample, s.BulkEnd().Describe(m))
			}
		}
	}
	out.Users += len(users)
	return out
}

// truncate keeps n of the streams.
func (f *foundStreams) truncate(n int) {
	for i, s := range f.shards {
		f.shards[i].Matches = s.Matches[:min(n, len(s.Matches))]
		n -= len(f.shards[i].Matches)
	}
}
