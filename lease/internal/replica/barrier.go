package replica

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/monotonic"
)

// A barrier makes sure that the replica is no older than a call. A stream that is not
// in the replica may have been admitted by another node a moment ago, or it may have
// ended. A linearizable read distinguishes the two, once the replica has reached the
// revision of the read. One read serves all calls that wait for it.
//
// Stream ids never expire, so a client can send the ids of ended streams any number of
// times. The rate of the reads is limited independently of the number of calls.
type barrier struct {
	limit *rate.Limiter // of the reads

	mu           sync.Mutex
	coveredUntil monotonic.Time // start of the last successful read; 0 for none
	inFlight     *barrierRead   // nil for none
}

// A barrierRead is one read and the wait for its revision.
type barrierRead struct {
	done chan struct{} // closed at the end

	// Set before done is closed.
	startedAt monotonic.Time // before the read was sent
	ok        bool           // the replica reached the revision
}

const (
	barrierRate    = 4 // reads per second
	barrierBurst   = 10
	barrierTimeout = 3 * progressTimeout / 2
)

// WaitCurrent waits until the replica contains everything that etcd contained at
// since. It returns false if it cannot confirm that, because the replica is not
// current, the read failed, or ctx ended.
func (r *Replica) WaitCurrent(ctx context.Context, since monotonic.Time) bool {
	for r.Current() {
		c := r.joinRead(since)
		if c == nil {
			return true
		}
		select {
		case <-c.done:
		case <-ctx.Done():
			return false
		}
		if c.startedAt >= since {
			return c.ok
		}
	}
	return false
}

// WaitForRead waits until the replica contains what a linearizable read returns. Unlike
// [Replica.WaitCurrent], it works behind etcd's gRPC proxy, where a revision is the only
// proof. It returns false if it cannot confirm that.
func (r *Replica) WaitForRead(ctx context.Context) bool {
	if !r.NeedsBeacons() {
		return r.WaitCurrent(ctx, monotonic.Of(time.Now()))
	}
	resp, err := r.kv.Range(ctx, etcdop.Key(r.keys.Routing()).Request())
	return err == nil && r.WaitApplied(ctx, resp.Header.Revision)
}

// joinRead returns the read that is in flight, and starts one if there is none. It
// returns nil if a read that started after since has succeeded.
func (r *Replica) joinRead(since monotonic.Time) *barrierRead {
	b := &r.barrier
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.coveredUntil != 0 && b.coveredUntil >= since {
		return nil
	}
	if b.inFlight == nil {
		b.inFlight = &barrierRead{done: make(chan struct{})}
		go r.runRead(b.inFlight)
	}
	return b.inFlight
}

func (r *Replica) runRead(c *barrierRead) {
	b := &r.barrier
	ctx, cancel := context.WithTimeout(context.Background(), barrierTimeout)
	defer cancel()
	err := b.limit.Wait(ctx)
	c.startedAt = monotonic.Of(time.Now())
	c.ok = err == nil && r.catchUp(ctx, c.startedAt)
	b.mu.Lock()
	if c.ok {
		b.coveredUntil = c.startedAt
	}
	b.inFlight = nil
	b.mu.Unlock()
	close(c.done)
}

// catchUp waits until the replica contains everything that etcd contained at began.
// It needs a revision that a quorum confirmed after began, and a proof of progress
// that was requested after began. The revision alone may belong to another history,
// after a restore from a backup; the proof alone may come from a member that lags.
func (r *Replica) catchUp(ctx context.Context, began monotonic.Time) bool {
	if r.NeedsBeacons() {
		return false // a proxy does not report that it has restarted its own watch
	}
	applied := r.applied.Load()
	resp, err := r.kv.Range(ctx, etcdop.Key(r.keys.Routing()).Request())
	if err != nil || resp.Header.Revision < applied {
		return false
	}
	for {
		next := r.progressed.wait()
		if last := monotonic.Time(r.lastProgress.Load()); last != 0 && last >= began && r.applied.Load() >= resp.Header.Revision {
			return true
		}
		r.requestProgress()
		select {
		case <-next:
		case <-ctx.Done():
			return false
		}
	}
}

// requestProgress makes the watch request a proof of progress at once.
func (r *Replica) requestProgress() {
	select {
	case r.wantProgress <- struct{}{}:
	default:
	}
}
