package leasepool

import (
	"slices"
	"sync"
	"time"
)

// inventory holds the leases that no stream uses: those granted in advance, and those
// of streams that this node ended. The life of a lease:
//
//	          grant                 take                 the owner's transaction
//	(nothing) -----> idle ------------------> in use ----------------------------> idle
//	                   |                        |                               (returned)
//	                   | excess, stale,         | outcome unknown, removed by
//	                   | shutdown               | another node, not known to be fresh
//	                   v                        v
//	                revoked                  revoked, or left to expire
//
// Five rules make it safe to reuse a returned lease for another stream:
//
//   - The node whose transaction deleted the key of a lease owns the lease. Only the
//     owner returns, revokes or reuses it.
//   - A lease of a write whose outcome is unknown is not returned. It is revoked.
//   - Only a fresh lease is reused: this node renewed it by a request that it sent less
//     than half a TTL ago. Otherwise etcd may have queued its expiry, which etcd does
//     not check again.
//   - A lease that is to be revoked does not become idle again.
//   - An idle lease has no key. If etcd is restored from a backup, the lease may have the
//     key of a stream that had ended. Once the replica has seen the restore, the leases
//     that were idle or taken before it are not reused. Until then, the replica is not
//     current, and nothing is reused.
//
// A late heartbeat of the previous stream cannot keep the new stream alive: it has the
// previous nonce, which is checked against the replica or etcd. A late stop cannot end
// the new stream: it compares the revision of the key that it deletes.
//
// inventory is a state machine without clock and I/O. The pool drives it.
type inventory struct {
	mu       sync.Mutex
	idle     []Lease // may be used by streams while they are fresh
	toRevoke []Lease
	moves    Moves

	restoreCount int // restores of etcd that were observed
}

// Moves counts how leases entered and left the pool.
type Moves struct {
	Granted, Returned  int64 // entered: granted in advance, and from ended streams
	Taken, Reused      int64 // left for a stream: new leases, and returned ones
	Revoked, Abandoned int64 // left otherwise; abandoned leases expire
}

const (
	maxToRevoke = 1 << 16 // further leases are abandoned
	maxTakeScan = 16
)

// Fresh reports whether a stream may use l at now.
func (g Lease) Fresh(now time.Time) bool { return now.Sub(g.Renewed) < g.TTL/2 }

// RenewedRecently reports whether at least three quarters of the TTL of g remain at now.
func (g Lease) RenewedRecently(now time.Time) bool { return now.Sub(g.Renewed) < g.TTL/4 }

// put adds a lease that was granted in advance.
func (v *inventory) put(g Lease) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.moves.Granted++
	v.idle = append(v.idle, g)
}

// release adds the lease of a stream that has ended. Only the owner may call it.
func (v *inventory) release(g Lease, now time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.moves.Returned++
	g.usedBefore, g.restoreCount = true, v.restoreCount
	if g.Fresh(now) {
		v.idle = append(v.idle, g)
	} else {
		v.discard(g)
	}
}

// take removes and returns one of the fresh leases that were added last. Unless
// allowReused is set, no stream has used it before.
func (v *inventory) take(now time.Time, allowReused bool) (Lease, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	last := len(v.idle) - 1
	for i := last; i >= 0 && i > last-maxTakeScan; i-- {
		g := v.idle[i]
		if !g.Fresh(now) || g.usedBefore && !allowReused {
			continue
		}
		v.idle = slices.Delete(v.idle, i, i+1)
		if g.usedBefore {
			v.moves.Reused++
		} else {
			v.moves.Taken++
		}
		return g, true
	}
	return Lease{}, false
}

// maintain discards stale leases. Of the last keep leases, it removes and returns those
// that are due for a renewal. The caller returns each with putBack or renewalFailed.
func (v *inventory) maintain(keep int, now time.Time) (due []Lease) {
	v.mu.Lock()
	defer v.mu.Unlock()
	first := len(v.idle) - keep
	idle := v.idle[:0]
	for i, g := range v.idle {
		switch {
		case !g.Fresh(now):
			v.discard(g)
		case i >= first && !g.RenewedRecently(now):
			due = append(due, g)
		default:
			idle = append(idle, g)
		}
	}
	v.idle = idle
	return due
}

// putBack returns a lease that maintain or take removed.
func (v *inventory) putBack(g Lease) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if g.usedBefore && g.restoreCount != v.restoreCount {
		v.discard(g)
		return
	}
	v.idle = append(v.idle, g)
}

// discardUsed discards the leases that a stream has used before, because etcd was
// restored from a backup in which that stream may exist. This includes the leases that
// are put back later.
func (v *inventory) discardUsed() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.restoreCount++
	v.idle = slices.DeleteFunc(v.idle, func(g Lease) bool {
		if g.usedBefore {
			v.discard(g)
		}
		return g.usedBefore
	})
}

// renewalFailed returns a lease that maintain removed and that could not be renewed.
func (v *inventory) renewalFailed(g Lease) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.discard(g)
}

// takeExcess removes at most n leases, which the caller revokes: first those that are to
// be revoked, then the oldest idle ones in excess of keep.
func (v *inventory) takeExcess(keep, n int) []Lease {
	v.mu.Lock()
	defer v.mu.Unlock()
	if more := min(n-len(v.toRevoke), len(v.idle)-keep); more > 0 {
		v.toRevoke = append(v.toRevoke, v.idle[:more]...)
		v.idle = slices.Delete(v.idle, 0, more)
	}
	n = min(n, len(v.toRevoke))
	out := slices.Clone(v.toRevoke[:n])
	v.toRevoke = slices.Delete(v.toRevoke, 0, n)
	v.moves.Revoked += int64(n)
	return out
}

func (v *inventory) discard(g Lease) {
	if len(v.toRevoke) >= maxToRevoke {
		v.moves.Abandoned++
		return
	}
	v.toRevoke = append(v.toRevoke, g)
}

func (v *inventory) sizes() (idle, toRevoke int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.idle), len(v.toRevoke)
}

func (v *inventory) moveCounts() Moves {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.moves
}

func (v *inventory) ids() (idle, toRevoke []int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, g := range v.idle {
		idle = append(idle, g.ID)
	}
	for _, g := range v.toRevoke {
		toRevoke = append(toRevoke, g.ID)
	}
	return idle, toRevoke
}
