package bench

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/load"
	"streamcount/internal/retry"
)

// idSize is the maximum length of a stream id, in bytes.
const idSize = 64

// viewers is a set of concurrent streams. A million viewers take 72 MB.
type viewers struct {
	tr      *targetRun
	first   int64 // number of the first user
	perUser int64
	epoch   time.Time

	ids       []byte          // idSize bytes each, padded with zeros, which no id contains
	state     []atomic.Uint32 // noStream, idle or busy
	renewedAt []atomic.Int32  // when the last answered start or heartbeat was sent, in ms since epoch
}

// The states of a viewer.
const (
	noStream uint32 = iota // no stream
	idle                   // a stream without a call in flight
	busy                   // acquired by one goroutine, which alone uses the id
)

// viewers returns n viewers without streams. Each user has perUser of them.
func (tr *targetRun) viewers(n, perUser int64) *viewers {
	return &viewers{
		tr: tr, perUser: perUser, epoch: time.Now(),
		ids: make([]byte, n*idSize), state: make([]atomic.Uint32, n), renewedAt: make([]atomic.Int32, n),
	}
}

func (vs *viewers) count() int64 { return int64(len(vs.state)) }

func (vs *viewers) user(k int64) int64 { return vs.first + k/vs.perUser }

// users returns the number of users.
func (vs *viewers) users() int64 { return (vs.count() + vs.perUser - 1) / vs.perUser }

// id returns the stream id of viewer k, which the caller has acquired.
func (vs *viewers) id(k int64) []byte {
	id := vs.ids[k*idSize : (k+1)*idSize]
	if n := bytes.IndexByte(id, 0); n >= 0 {
		id = id[:n]
	}
	return id
}

// tryAcquire changes viewer k from idle to busy. It reports false if k is not idle.
func (vs *viewers) tryAcquire(k int64) bool { return vs.state[k].CompareAndSwap(idle, busy) }

// acquire is like tryAcquire, but waits while the viewer is busy. It reports false if
// the viewer has no stream.
func (vs *viewers) acquire(ctx context.Context, k int64) bool {
	for !vs.tryAcquire(k) {
		if vs.state[k].Load() == noStream || ctx.Err() != nil {
			return false
		}
		time.Sleep(100 * time.Microsecond)
	}
	return true
}

// setStarted records viewer k's new stream, whose start was sent at sent.
func (vs *viewers) setStarted(k int64, id []byte, sent time.Time) {
	buf := vs.ids[k*idSize : (k+1)*idSize]
	clear(buf[copy(buf, id):])
	vs.setRenewed(k, sent)
}

// setRenewed releases viewer k, whose stream was renewed by a request sent at sent.
func (vs *viewers) setRenewed(k int64, sent time.Time) {
	vs.renewedAt[k].Store(int32(sent.Sub(vs.epoch).Milliseconds()))
	vs.state[k].Store(idle)
}

// sinceRenewal returns the time since viewer k's last renewal.
func (vs *viewers) sinceRenewal(k int64) time.Duration {
	return time.Since(vs.epoch) - time.Duration(vs.renewedAt[k].Load())*time.Millisecond
}

// recordEnd releases viewer k, whose stream is gone. It is a lost stream if the last
// renewal was less than three quarters of the TTL ago. Players send three heartbeats per
// TTL, so after that the heartbeats were late.
func (vs *viewers) recordEnd(k int64, what string) {
	age := vs.sinceRenewal(k)
	vs.state[k].Store(noStream)
	switch {
	case !vs.tr.enforcesLimit || vs.tr.ctx.Err() != nil:
	case age < vs.tr.ttl*3/4:
		vs.tr.faults.add(faultLostStream, 1, "stream %[2]s of %[1]s was gone %[3]v after its renewal (%[4]s)",
			vs.tr.appendUserID(nil, vs.user(k)), vs.id(k), age.Round(time.Millisecond), what)
	default:
		vs.tr.faults.add(faultLateHeartbeat, 1, "the last renewal of %s was %v ago and the TTL is %v: the server or this machine is too slow",
			vs.tr.appendUserID(nil, vs.user(k)), age.Round(time.Millisecond), vs.tr.ttl)
	}
}

// heartbeat sends viewer k's heartbeat. It skips a busy viewer, which is being renewed.
func (vs *viewers) heartbeat(c *caller, k int64) outcome {
	if !vs.tryAcquire(k) {
		return outcomeUnknown
	}
	sent := time.Now()
	o, renewed := c.heartbeat(vs.user(k), vs.id(k))
	switch {
	case renewed:
		vs.setRenewed(k, sent)
	case o == outcomeGone:
		vs.recordEnd(k, "the heartbeat was answered 404 or 410")
	default:
		vs.state[k].Store(idle) // unknown outcome: the next heartbeat finds out
	}
	return o
}

// heartbeatBatch sends the heartbeats of the idle viewers in list in one request, and
// returns how many were answered. It removes the other viewers from list.
func (vs *viewers) heartbeatBatch(c *caller, list []int64) int64 {
	taken := list[:0]
	for _, k := range list {
		if vs.tryAcquire(k) {
			taken = append(taken, k)
		}
	}
	if len(taken) == 0 {
		return 0
	}
	sent := time.Now()
	ended, o, renewed := c.heartbeats(vs, taken)
	for _, k := range taken {
		reason, out := ended[k]
		switch {
		case out:
			vs.recordEnd(k, reason)
		case renewed:
			vs.setRenewed(k, sent)
		default:
			vs.state[k].Store(idle)
		}
	}
	if o != outcomeOK {
		return 0
	}
	return int64(len(taken))
}

// startAll starts the streams of all viewers as fast as the target answers. It renews
// the streams that have started until the last one has.
func (vs *viewers) startAll(ctx context.Context, connections int) {
	stop := vs.keepAlive(ctx)
	defer stop()
	cs, closeAll := vs.tr.callers(ctx, connections)
	defer closeAll()
	load.Plan{Count: vs.count(), Workers: connections}.Run(ctx, func(w int, k int64, _ time.Time) {
		if k%256 == 0 {
			vs.tr.setPhase("starting viewers: %d of %d", k, vs.count())
		}
		vs.startOne(ctx, cs[w], k)
	})
}

// startOne starts the stream of viewer k. It retries if the target is overloaded. It
// reports whether the stream was started.
func (vs *viewers) startOne(ctx context.Context, c *caller, k int64) bool {
	const tries = 20
	for range tries {
		sent := time.Now()
		id, o := c.start(vs.user(k), nil)
		switch o {
		case outcomeOK:
			vs.setStarted(k, id, sent)
			return true
		case outcomeLimit:
			vs.tr.countWrongRefusal(vs.user(k), 1)
			return false
		case outcomeOverload:
			if retry.Sleep(ctx, 250*time.Millisecond) != nil {
				return false
			}
		default:
			return false // unknown outcome, which has been counted as a fault
		}
	}
	return false
}

// stopOne stops the stream of viewer k, which the caller has acquired. It reports
// whether the stream was stopped.
func (vs *viewers) stopOne(c *caller, k int64) bool {
	o := c.stop(vs.user(k), vs.id(k))
	if o == outcomeGone {
		vs.recordEnd(k, "the stop was answered 404 or 410")
	}
	vs.state[k].Store(noStream) // after an unknown outcome the stream may exist or not
	return o == outcomeOK
}

const (
	// keepAliveConnections is the number of connections for the heartbeats that a
	// scenario does not measure. It is large enough for them to be in time beside the
	// connections that start streams. checkConnections is the number of connections
	// that check the streams at the end.
	keepAliveConnections = 16
	checkConnections     = 8
	// keepAliveBatch is the number of heartbeats per request on these connections.
	keepAliveBatch = 500
)

// renewAll renews all streams, which finds those that are gone.
func (vs *viewers) renewAll(ctx context.Context) { vs.renewOlderThan(ctx, checkConnections, 0) }

// keepAlive renews streams whose last renewal is a third of the TTL ago, in the
// background, until stop is called.
func (vs *viewers) keepAlive(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for retry.Sleep(ctx, min(time.Second, vs.tr.ttl/12)) == nil {
			vs.renewOlderThan(ctx, keepAliveConnections, vs.tr.ttl/3)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// renewOlderThan sends heartbeats in batches for all streams whose last renewal is at
// least age ago.
func (vs *viewers) renewOlderThan(ctx context.Context, connections int, age time.Duration) {
	due := make(chan []int64, connections)
	var wg sync.WaitGroup
	cs, closeAll := vs.tr.callers(context.WithoutCancel(ctx), connections) // the end of ctx does not interrupt a batch
	defer closeAll()
	for _, c := range cs {
		wg.Go(func() {
			for list := range due {
				vs.heartbeatBatch(c, list)
			}
		})
	}
	list := make([]int64, 0, keepAliveBatch)
	for k := range vs.count() {
		if vs.state[k].Load() == idle && vs.sinceRenewal(k) >= age {
			list = append(list, k)
		}
		if len(list) == keepAliveBatch || k == vs.count()-1 && len(list) > 0 {
			if ctx.Err() != nil {
				break
			}
			due <- list
			list = make([]int64, 0, keepAliveBatch)
		}
	}
	close(due)
	wg.Wait()
}
