package shard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"streamcount/lease"
	"streamcount/lease/streamid"
)

// errUnrelated means that shards hold secrets of different services.
var errUnrelated = errors.New("its secret of stream ids is not that of the other shards")

// ChangeSecrets computes new secrets of stream ids by change and writes them to all shards,
// each of which must be reachable. A change that was written to only some shards is completed
// by the next call.
func (r *Router) ChangeSecrets(
	ctx context.Context, change func(streamid.Secrets) (streamid.Secrets, error),
) (next streamid.Secrets, err error) {
	each := r.Each()
	was := make([]streamid.Secrets, len(each))
	revisions := make([]int64, len(each))
	for i, s := range each {
		if s.limiter == nil {
			return next, fmt.Errorf("shard %s: %w: the shard has not been reached", s.Name, lease.ErrUnavailable)
		}
		if was[i], revisions[i], err = s.limiter.ReadSecrets(ctx); err != nil {
			return next, fmt.Errorf("shard %s: %w", s.Name, err)
		}
		switch {
		case i == 0:
			next = was[i]
		case !next.Overlaps(was[i]):
			return next, fmt.Errorf("shard %s: %w", s.Name, errUnrelated)
		default:
			next = next.Newer(was[i])
		}
	}
	if next, err = change(next); err != nil {
		return next, err
	}
	value := string(next.Value())
	for i, s := range each {
		if string(was[i].Value()) == value {
			continue
		}
		if err := s.limiter.PutSecrets(ctx, next, revisions[i]); err != nil {
			return next, fmt.Errorf("shard %s: %w", s.Name, err)
		}
	}
	return next, nil
}

// StartedBefore counts the streams on all shards that started before at.
func (r *Router) StartedBefore(ctx context.Context, at time.Time) (int, error) {
	sum := 0
	for _, s := range r.Each() {
		if s.limiter == nil {
			return 0, fmt.Errorf("shard %s: %w: the shard has not been reached", s.Name, lease.ErrUnavailable)
		}
		n, err := s.limiter.StartedBefore(ctx, at)
		if err != nil {
			return 0, fmt.Errorf("shard %s: %w", s.Name, err)
		}
		sum += n
	}
	return sum, nil
}
