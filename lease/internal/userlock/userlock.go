// Package userlock provides a mutex per user.
package userlock

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"streamcount/lease/internal/etcdop"
)

// Locks is a mutex per user. A start holds the lock of its user while it decides
// and writes. Without it, concurrent starts of one user would invalidate each other's
// decisions.
type Locks struct {
	seed   maphash.Seed
	shards [64]struct {
		sync.Mutex
		locks map[string]*lock
	}
}

type lock struct {
	refs int           // the holder and those that wait
	free chan struct{} // buffers one; empty while the lock is held
}

const maxStartsPerUser = 128 // in progress at once, on this node

var errTooMany = fmt.Errorf("%w: too many concurrent starts of this user", etcdop.ErrNotApplied)

// New returns unlocked locks.
func New() *Locks {
	l := &Locks{seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].locks = make(map[string]*lock)
	}
	return l
}

// Lock waits for the lock of user. It reports whether another start held the lock in
// the meantime. Unless it returns an error, Unlock must be called.
func (l *Locks) Lock(ctx context.Context, user string) (waited bool, err error) {
	entry, waited, err := l.enqueue(user)
	if err != nil {
		return false, err
	}
	select {
	case <-entry.free:
		return waited, nil
	case <-ctx.Done():
		l.release(user)
		return false, fmt.Errorf("%w: wait for other starts of this user: %w", etcdop.ErrNotApplied, context.Cause(ctx))
	}
}

// enqueue adds a reference to the lock of user. The caller holds the lock when it has
// received from free.
func (l *Locks) enqueue(user string) (entry *lock, waited bool, err error) {
	s := &l.shards[maphash.String(l.seed, user)%uint64(len(l.shards))]
	s.Lock()
	defer s.Unlock()
	entry = s.locks[user]
	if entry == nil {
		entry = &lock{free: make(chan struct{}, 1)}
		entry.free <- struct{}{}
		s.locks[user] = entry
	}
	if entry.refs >= maxStartsPerUser {
		return nil, false, errTooMany
	}
	entry.refs++
	return entry, entry.refs > 1, nil
}

// Unlock releases the lock of user.
func (l *Locks) Unlock(user string) {
	s := &l.shards[maphash.String(l.seed, user)%uint64(len(l.shards))]
	s.Lock()
	s.locks[user].free <- struct{}{}
	s.Unlock()
	l.release(user)
}

// release removes a reference.
func (l *Locks) release(user string) {
	s := &l.shards[maphash.String(l.seed, user)%uint64(len(l.shards))]
	s.Lock()
	defer s.Unlock()
	entry := s.locks[user]
	if entry.refs--; entry.refs == 0 {
		delete(s.locks, user)
	}
}
