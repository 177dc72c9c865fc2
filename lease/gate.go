package lease

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
)

// gates lets one start a user at a time decide and write. Without it, starts of
// one user that come together would each invalidate what the others decided on.
type gates struct {
	seed   maphash.Seed
	shards [64]struct {
		sync.Mutex
		of map[string]*gate
	}
}

type gate struct {
	users int           // inside and waiting
	free  chan struct{} // holds one while nobody is inside
}

const maxAtGate = 128 // more starts of one user at once are refused

var errCrowded = fmt.Errorf("%w: too many starts of this user at once", errNotApplied)

func newGates() *gates {
	g := &gates{seed: maphash.MakeSeed()}
	for i := range g.shards {
		g.shards[i].of = make(map[string]*gate)
	}
	return g
}

// enter waits for user's gate. It reports whether others were inside meanwhile;
// leave must be called unless there is an error.
func (g *gates) enter(ctx context.Context, user string) (waited bool, err error) {
	at, waited, err := g.join(user)
	if err != nil {
		return false, err
	}
	select {
	case <-at.free:
		return waited, nil
	case <-ctx.Done():
		g.gone(user)
		return false, fmt.Errorf("%w: wait for other starts of this user: %w", errNotApplied, context.Cause(ctx))
	}
}

// join stands in line at user's gate. Whoever receives from free is inside.
func (g *gates) join(user string) (at *gate, waited bool, err error) {
	s := &g.shards[maphash.String(g.seed, user)%uint64(len(g.shards))]
	s.Lock()
	defer s.Unlock()
	at = s.of[user]
	if at == nil {
		at = &gate{free: make(chan struct{}, 1)}
		at.free <- struct{}{}
		s.of[user] = at
	}
	if at.users >= maxAtGate {
		return nil, false, errCrowded
	}
	at.users++
	return at, at.users > 1, nil
}

func (g *gates) leave(user string) {
	s := &g.shards[maphash.String(g.seed, user)%uint64(len(g.shards))]
	s.Lock()
	s.of[user].free <- struct{}{}
	s.Unlock()
	g.gone(user)
}

func (g *gates) gone(user string) {
	s := &g.shards[maphash.String(g.seed, user)%uint64(len(g.shards))]
	s.Lock()
	defer s.Unlock()
	at := s.of[user]
	if at.users--; at.users == 0 {
		delete(s.of, user)
	}
}
