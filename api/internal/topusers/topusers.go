// Package topusers caches lists of the users with the most streams, because each new list
// requires an iteration over all users.
package topusers

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"streamcount/lease"
)

const (
	maxAge   = 1500 * time.Millisecond
	maxLists = 16
)

// A Query returns at most n users whose ids begin with prefix, and whether there are more, as
// [lease.Limiter.TopUsers] does.
type Query func(ctx context.Context, prefix string, n int) (users []lease.TopUser, more bool, err error)

// A Cache has the lists of the last queries. It makes one query at a time. It is safe for
// concurrent use.
type Cache struct {
	inFlight singleflight.Group
	querying chan struct{} // holds a value while a query runs

	mu    sync.Mutex
	lists map[string]list
}

type list struct {
	users []lease.TopUser
	more  bool
	at    time.Time
}

// New returns an empty Cache.
func New() *Cache { return &Cache{querying: make(chan struct{}, 1), lists: map[string]list{}} }

// Get returns the result of query, which may be that of an earlier or a concurrent call.
func (c *Cache) Get(ctx context.Context, prefix string, n int, query Query) (users []lease.TopUser, more bool, err error) {
	key := fmt.Sprint(n, " ", prefix)
	c.mu.Lock()
	l, ok := c.lists[key]
	c.mu.Unlock()
	if ok && time.Since(l.at) < maxAge {
		return l.users, l.more, nil
	}
	got, err, _ := c.inFlight.Do(key, func() (any, error) {
		select {
		case c.querying <- struct{}{}:
			defer func() { <-c.querying }()
		case <-ctx.Done():
			return list{}, fmt.Errorf("%w: other clients request the top users", lease.ErrUnavailable)
		}
		users, more, err := query(context.WithoutCancel(ctx), prefix, n)
		return list{users, more, time.Now()}, err
	})
	if err != nil {
		return nil, false, err
	}
	l = got.(list)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.lists) >= maxLists {
		clear(c.lists)
	}
	c.lists[key] = l
	return l.users, l.more, nil
}
