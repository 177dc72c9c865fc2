package etcdsim

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Link is one node's way to an [Etcd]. It is the node's KV and Lease client and its
// Watcher. Its fields are set before it is used.
type Link struct {
	Etcd *Etcd
	// Seed decides how long each message takes and which are lost.
	Seed uint64
	// Delay is the most that a message takes.
	Delay time.Duration
	// Lost is the share of calls whose request, or answer, is lost.
	Lost float64
	// Lag is how late the node hears of changes.
	Lag time.Duration

	// Calls counts those that were made.
	Calls atomic.Int64

	cut, calm atomic.Bool
}

// Calm has the link lose nothing any more.
func (l *Link) Calm() { l.calm.Store(true) }

// Cut breaks the link, or mends it: while it is cut, calls have no outcome before
// their deadline, and nothing is heard.
func (l *Link) Cut(cut bool) { l.cut.Store(cut) }

// passage is what becomes of one call.
type passage struct {
	there, back           time.Duration
	loseRequest, loseBack bool
}

// passage goes by the seed, the call and the virtual time alone: calls that are made at
// the same instant may come in any order.
func (l *Link) passage(name string) passage {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash takes all
	luck := rand.New(rand.NewPCG(l.Seed+h.Sum64(), uint64(time.Now().UnixNano())))
	p := passage{
		there: time.Duration(luck.Int64N(int64(l.Delay) + 1)), back: time.Duration(luck.Int64N(int64(l.Delay) + 1)),
	}
	switch lost := luck.Float64(); {
	case l.calm.Load():
	case lost < l.Lost/2:
		p.loseRequest = true
	case lost < l.Lost:
		p.loseBack = true
	}
	return p
}

// call takes a request to etcd and its answer back.
func call[T any](ctx context.Context, l *Link, name string, do func(*Etcd) (T, error)) (T, error) {
	var none T
	l.Calls.Add(1)
	p := l.passage(name)
	if err := l.travel(ctx, p.there, p.loseRequest); err != nil {
		return none, err
	}
	l.Etcd.mu.Lock()
	out, err := do(l.Etcd)
	l.Etcd.mu.Unlock()
	if gone := l.travel(ctx, p.back, p.loseBack); gone != nil {
		return none, gone
	}
	return out, err
}

// travel takes d. What is lost on the way is noticed when the connection breaks; what
// meets a link that is cut, when the caller's patience ends.
func (l *Link) travel(ctx context.Context, d time.Duration, lost bool) error {
	if !sleep(ctx, d) {
		return status.FromContextError(ctx.Err()).Err()
	}
	if l.cut.Load() {
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	if lost {
		return status.Error(codes.Unavailable, "the connection broke")
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
