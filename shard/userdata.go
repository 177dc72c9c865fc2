package shard

import (
	"context"
	"errors"
	"fmt"

	"streamcount/lease"
	"streamcount/lease/userdata"
)

// UserData is [userdata.Store.Read] on all shards. The data of a user is on one of them, but
// others may have cool-downs of a user who has moved.
func (r *Router) UserData(ctx context.Context, user string) (userdata.Data, error) {
	var sum userdata.Data
	err := r.eachForUser(ctx, user, func() { sum = userdata.Data{} }, func(h target, how userdata.Options) error {
		d, err := h.UserData().Read(ctx, user, how)
		if err == nil {
			sum.Add(d)
		}
		return err
	})
	if err == nil && sum.Empty() {
		err = userdata.ErrNoData
	}
	return sum, err
}

// EraseUserData is [userdata.Store.Erase] on all shards. After an error, the data may be
// erased on some of them.
func (r *Router) EraseUserData(ctx context.Context, user string) (userdata.Erased, error) {
	var sum userdata.Erased
	err := r.eachForUser(ctx, user, func() { sum.MarkKept = false }, func(h target, how userdata.Options) error {
		e, err := h.UserData().Erase(ctx, user, how)
		if err == nil {
			sum.Add(e)
		}
		return err
	})
	if err == nil && sum.Empty() {
		err = userdata.ErrNoData
	}
	return sum, err
}

// eachForUser calls f on each shard under one map, after the user has migrated. If the map
// changes, it calls restart and begins again.
func (r *Router) eachForUser(ctx context.Context, user string, restart func(), f func(target, userdata.Options) error) error {
	for {
		home, err := r.route(ctx, user)
		if err != nil {
			return err
		}
		restart()
		err = r.onAllShards(ctx, home.m, f)
		if !errors.Is(err, errMapChanged) && !errors.Is(err, lease.ErrRouting) {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: data of %s: %w", lease.ErrUnavailable, user, context.Cause(ctx))
		}
	}
}

func (r *Router) onAllShards(ctx context.Context, m *Map, f func(target, userdata.Options) error) error {
	for _, s := range m.all() {
		h, err := r.targetFor(ctx, m, s.Name)
		if err != nil {
			return err
		}
		// While users move, the mark of an import protects a user from a second import.
		err = f(h, userdata.Options{RoutingRevision: h.revision, KeepMark: len(m.Previous) > 0})
		if err != nil && !errors.Is(err, userdata.ErrNoData) {
			return r.adoptOnConflict(err, h)
		}
	}
	return nil
}
