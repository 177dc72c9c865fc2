package lease

import (
	"slices"
	"sync"
	"time"
)

// book is where leases are that no stream uses: those granted ahead of need, and
// those of streams that this node ended. The life of a lease:
//
//	          grant                 take                 the owner's transaction
//	(nothing) -----> waiting ----------------> in use ---------------------------> waiting
//	                    |                        |                                   (retired)
//	                    | surplus, stale,        | outcome unknown, removed by
//	                    | shut-down              | others, not known to be fresh
//	                    v                        v
//	                 revoked                  revoked, or left to expire
//
// The rules that make it safe to hand a retired lease on to another stream:
//
//   - A lease belongs to whoever's transaction deleted the key that it was on, and
//     to nobody else. Only the owner retires it, revokes it or hands it on.
//   - A lease of a write whose outcome is unknown never comes here. It is revoked.
//   - Only a fresh lease is handed on: one that this node renewed by a request
//     sent less than half a TTL ago. etcd may otherwise have queued its end, and a
//     queued end is not checked again.
//   - Once it is to be revoked it never comes back.
//   - It has no key while it waits. Where etcd was restored from a backup, a stream
//     may be back on it that ended since. Once the view has seen that, none of what
//     waited is used any more; until then it is not current, and nothing is handed on.
//
// A late heartbeat of the stream that had the lease before cannot keep the new
// one alive: it names the old nonce, and is checked against the view or etcd. A
// late stop cannot end the new one: it compares the revision of its own put.
//
// It is a state machine without clock and I/O; pool moves it.
type book struct {
	mu      sync.Mutex
	waiting []granted // may be given to streams while they are fresh
	spent   []granted // to be revoked, never to be given to anyone
	counts  poolCounts

	restores int // how often etcd was restored, that is known
}

// poolCounts tell how leases came and went, since the start.
type poolCounts struct {
	granted, retired   int64 // came in: granted ahead, and from streams that ended
	reserved, handedOn int64 // went to streams: granted ahead, and retired
	revoked, forgotten int64 // left otherwise; forgotten ones expire by themselves
}

const (
	maxSpent  = 1 << 16 // more are left to expire by themselves
	takeTries = 16
)

// fresh reports whether g may be given to a stream at now.
func (g granted) fresh(now time.Time) bool { return now.Sub(g.renewed) < g.ttl/2 }

// put takes in a lease that was granted ahead.
func (b *book) put(g granted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.granted++
	b.waiting = append(b.waiting, g)
}

// retire takes the lease of a stream that is over from its owner.
func (b *book) retire(g granted, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts.retired++
	g.used, g.restores = true, b.restores
	if g.fresh(now) {
		b.waiting = append(b.waiting, g)
	} else {
		b.spend(g)
	}
}

// take hands out a fresh lease, of the last that came in: one that no stream had
// before, unless handOn is set.
func (b *book) take(now time.Time, handOn bool) (granted, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last := len(b.waiting) - 1
	for i := last; i >= 0 && i > last-takeTries; i-- {
		g := b.waiting[i]
		if !g.fresh(now) || g.used && !handOn {
			continue
		}
		b.waiting = slices.Delete(b.waiting, i, i+1)
		if g.used {
			b.counts.handedOn++
		} else {
			b.counts.reserved++
		}
		return g, true
	}
	return granted{}, false
}

// tend sorts out what waits: stale leases are spent, and those of the last keep
// that want renewing before they go stale are returned. They come back by
// renewed or lost.
func (b *book) tend(keep int, now time.Time) (due []granted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first := len(b.waiting) - keep
	stay := b.waiting[:0]
	for i, g := range b.waiting {
		switch {
		case !g.fresh(now):
			b.spend(g)
		case i >= first && now.Sub(g.renewed) >= g.ttl/4:
			due = append(due, g)
		default:
			stay = append(stay, g)
		}
	}
	b.waiting = stay
	return due
}

// renewed takes back a lease that tend or take gave out.
func (b *book) renewed(g granted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.used && g.restores != b.restores {
		b.spend(g)
		return
	}
	b.waiting = append(b.waiting, g)
}

// restored spends the leases that streams had, those that wait and those that are out
// and come back: etcd is a backup of itself, in which such a stream may still be.
func (b *book) restored() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.restores++
	b.waiting = slices.DeleteFunc(b.waiting, func(g granted) bool {
		if g.used {
			b.spend(g)
		}
		return g.used
	})
}

// lost takes back a lease that tend gave out and that could not be renewed.
func (b *book) lost(g granted) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spend(g)
}

// surplus takes out at most n leases to be revoked: the spent ones, then those
// that came in first of more than keep.
func (b *book) surplus(keep, n int) []granted {
	b.mu.Lock()
	defer b.mu.Unlock()
	if more := min(n-len(b.spent), len(b.waiting)-keep); more > 0 {
		b.spent = append(b.spent, b.waiting[:more]...)
		b.waiting = slices.Delete(b.waiting, 0, more)
	}
	n = min(n, len(b.spent))
	out := slices.Clone(b.spent[:n])
	b.spent = slices.Delete(b.spent, 0, n)
	b.counts.revoked += int64(n)
	return out
}

func (b *book) spend(g granted) {
	if len(b.spent) >= maxSpent {
		b.counts.forgotten++
		return
	}
	b.spent = append(b.spent, g)
}

// sizes is how many leases may be given out, and how many are to be revoked.
func (b *book) sizes() (waiting, spent int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.waiting), len(b.spent)
}

func (b *book) stats() poolCounts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts
}
