package etcdsim

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"streamcount/internal/retry"
)

// A Link is the connection of one node to an [Etcd]. It has the node's clients. Set its fields
// before its first use.
type Link struct {
	Etcd *Etcd
	// Seed determines the delay of each message, and which messages are lost.
	Seed uint64
	// Delay is the maximum delay of a message.
	Delay time.Duration
	// Lost is the share of calls whose request or reply is lost.
	Lost float64
	// Lag is the delay of watch events.
	Lag time.Duration

	// Calls is the number of calls.
	Calls atomic.Int64

	cut, lossless atomic.Bool
}

// StopLosses makes the link lose no more messages.
func (l *Link) StopLosses() { l.lossless.Store(true) }

// Cut cuts or restores the link. While it is cut, calls wait for their deadline, and no watch
// event arrives.
func (l *Link) Cut(cut bool) { l.cut.Store(cut) }

// transit has the delays and losses of one call.
type transit struct {
	requestDelay, replyDelay time.Duration
	loseRequest, loseReply   bool
}

// transit depends only on the seed, the name of the call and the virtual time, because calls
// at the same time have no defined order.
func (l *Link) transit(name string) transit {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // a hash takes all
	rng := rand.New(rand.NewPCG(l.Seed+h.Sum64(), uint64(time.Now().UnixNano())))
	t := transit{
		requestDelay: time.Duration(rng.Int64N(int64(l.Delay) + 1)), replyDelay: time.Duration(rng.Int64N(int64(l.Delay) + 1)),
	}
	switch lost := rng.Float64(); {
	case l.lossless.Load():
	case lost < l.Lost/2:
		t.loseRequest = true
	case lost < l.Lost:
		t.loseReply = true
	}
	return t
}

// call sends a request to etcd and returns the reply.
func call[T any](ctx context.Context, l *Link, name string, do func(*Etcd) (T, error)) (T, error) {
	var none T
	l.Calls.Add(1)
	t := l.transit(name)
	if err := l.deliver(ctx, t.requestDelay, t.loseRequest); err != nil {
		return none, err
	}
	l.Etcd.mu.Lock()
	out, err := do(l.Etcd)
	l.Etcd.mu.Unlock()
	if lost := l.deliver(ctx, t.replyDelay, t.loseReply); lost != nil {
		return none, lost
	}
	return out, err
}

// deliver delays a message by d. It returns an error at once if the message is lost, and at
// the caller's deadline if the link is cut.
func (l *Link) deliver(ctx context.Context, d time.Duration, lost bool) error {
	if retry.Sleep(ctx, d) != nil {
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
