package bench

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/load"
)

// idSize is what an id may take.
const idSize = 64

// viewers are many streams that are watched at the same time. A million of
// them take 72 MB.
type viewers struct {
	v       *visit
	perUser int64
	begin   time.Time

	ids   []byte          // idSize each, padded with zeros, which no id contains
	state []atomic.Uint32 // absent, playing or held
	seen  []atomic.Int32  // when the last answered start or heartbeat was sent: ms since begin
}

// The states of a viewer.
const (
	absent  uint32 = iota // no stream
	playing               // a stream that nobody talks about just now
	held                  // by one goroutine, which alone touches its id
)

// viewers makes room for n viewers, perUser of them for one user.
func (v *visit) viewers(n, perUser int64) *viewers {
	return &viewers{
		v: v, perUser: perUser, begin: time.Now(),
		ids: make([]byte, n*idSize), state: make([]atomic.Uint32, n), seen: make([]atomic.Int32, n),
	}
}

func (vs *viewers) count() int64 { return int64(len(vs.state)) }

func (vs *viewers) user(k int64) int64 { return k / vs.perUser }

// users is how many users the viewers belong to.
func (vs *viewers) users() int64 { return (vs.count() + vs.perUser - 1) / vs.perUser }

// id is viewer k's, for who holds it.
func (vs *viewers) id(k int64) []byte {
	id := vs.ids[k*idSize : (k+1)*idSize]
	if n := bytes.IndexByte(id, 0); n >= 0 {
		id = id[:n]
	}
	return id
}

// hold takes a playing viewer, unless another goroutine has.
func (vs *viewers) hold(k int64) bool { return vs.state[k].CompareAndSwap(playing, held) }

// wait is hold that waits for who has the viewer. It reports false where there
// is no stream.
func (vs *viewers) wait(ctx context.Context, k int64) bool {
	for !vs.hold(k) {
		if vs.state[k].Load() == absent || ctx.Err() != nil {
			return false
		}
		time.Sleep(100 * time.Microsecond)
	}
	return true
}

// begun notes viewer k's new stream, whose start was sent at sent.
func (vs *viewers) begun(k int64, id []byte, sent time.Time) {
	room := vs.ids[k*idSize : (k+1)*idSize]
	clear(room[copy(room, id):])
	vs.beaten(k, sent)
}

// beaten gives a held viewer back, renewed by what was sent at sent.
func (vs *viewers) beaten(k int64, sent time.Time) {
	vs.seen[k].Store(int32(sent.Sub(vs.begin).Milliseconds()))
	vs.state[k].Store(playing)
}

// age is how long ago viewer k was renewed.
func (vs *viewers) age(k int64) time.Duration {
	return time.Since(vs.begin) - time.Duration(vs.seen[k].Load())*time.Millisecond
}

// ended takes a held viewer out whose stream turned out to be gone. That is
// the target's fault if the stream should have lasted: players beat three times
// a TTL, so a node owes nothing to one that was not heard for most of a TTL.
func (vs *viewers) ended(k int64, what string) {
	age := vs.age(k)
	vs.state[k].Store(absent)
	switch {
	case !vs.v.counts || vs.v.ctx.Err() != nil:
	case age < vs.v.ttl*3/4:
		vs.v.tally.add(lost, 1, "%s %s was gone %v after it was renewed (%s)",
			vs.v.appendUser(nil, vs.user(k)), vs.id(k), age.Round(time.Millisecond), what)
	default:
		vs.v.tally.add(late, 1, "%s was renewed %v ago, the TTL is %v: the server, or this machine, is too slow",
			vs.v.appendUser(nil, vs.user(k)), age.Round(time.Millisecond), vs.v.ttl)
	}
}

// beat sends viewer k's heartbeat. Who holds it meanwhile has just been heard.
func (vs *viewers) beat(c *caller, k int64) outcome {
	if !vs.hold(k) {
		return failed
	}
	sent := time.Now()
	o, renewed := c.beat(vs.user(k), vs.id(k))
	switch {
	case renewed:
		vs.beaten(k, sent)
	case o == gone:
		vs.ended(k, "a heartbeat was answered 404 or 410")
	default:
		vs.state[k].Store(playing) // not known: the next heartbeat will tell
	}
	return o
}

// batch sends the heartbeats of those in list that nobody holds, in one
// request, and returns how many were answered.
func (vs *viewers) batch(c *caller, list []int64) int64 {
	taken := make([]int64, 0, len(list))
	for _, k := range list {
		if vs.hold(k) {
			taken = append(taken, k)
		}
	}
	if len(taken) == 0 {
		return 0
	}
	sent := time.Now()
	ended, o, renewed := c.beats(vs, taken)
	for _, k := range taken {
		reason, out := ended[k]
		switch {
		case out:
			vs.ended(k, reason)
		case renewed:
			vs.beaten(k, sent)
		default:
			vs.state[k].Store(playing)
		}
	}
	if o != done {
		return 0
	}
	return int64(len(taken))
}

// fill starts every viewer, as fast as the target can, and keeps those alive
// that wait for the rest.
func (vs *viewers) fill(ctx context.Context, connections int) {
	stop := vs.keep(ctx)
	defer stop()
	cs, hangUp := vs.v.callers(ctx, connections)
	defer hangUp()
	load.Plan{Count: vs.count(), Workers: connections}.Run(ctx, func(w int, k int64, _ time.Time) {
		if k%256 == 0 {
			vs.v.phase("starting viewers: %d of %d", k, vs.count())
		}
		vs.fillOne(ctx, cs[w], k)
	})
}

// fillOne starts viewer k, and tries again when the target has too much to do.
func (vs *viewers) fillOne(ctx context.Context, c *caller, k int64) {
	const tries = 20
	for range tries {
		sent := time.Now()
		id, o := c.start(vs.user(k), nil)
		switch o {
		case done:
			vs.begun(k, id, sent)
			return
		case full:
			vs.v.wronglyRefused(vs.user(k), 1)
			return
		case swamped:
			wait(ctx, 250*time.Millisecond)
		default:
			return // its outcome is not known, and it has been counted
		}
	}
}

const (
	// keepers are the connections that keep alive what a scenario does not
	// beat, and checkers those that look whether everybody is alive. Players
	// beat whatever else goes on, so the keepers must be enough to get through
	// beside the connections that start streams.
	keepers  = 16
	checkers = 8
	// keptAtOnce is how many heartbeats they send in one request.
	keptAtOnce = 500
)

// check renews everybody, so that whoever is gone is found out.
func (vs *viewers) check(ctx context.Context) { vs.renew(ctx, checkers, 0) }

// keep renews in the background whoever was not heard for a third of a TTL,
// until the function returned is called.
func (vs *viewers) keep(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for wait(ctx, min(time.Second, vs.v.ttl/12)) {
			vs.renew(ctx, keepers, vs.v.ttl/3)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// renew sends heartbeats in batches for all that were not heard for age.
func (vs *viewers) renew(ctx context.Context, connections int, age time.Duration) {
	due := make(chan []int64, connections)
	var wg sync.WaitGroup
	cs, hangUp := vs.v.callers(context.WithoutCancel(ctx), connections) // a batch under way is finished
	defer hangUp()
	for _, c := range cs {
		wg.Go(func() {
			for list := range due {
				vs.batch(c, list)
			}
		})
	}
	list := make([]int64, 0, keptAtOnce)
	for k := range vs.count() {
		if vs.state[k].Load() == playing && vs.age(k) >= age {
			list = append(list, k)
		}
		if len(list) == keptAtOnce || k == vs.count()-1 && len(list) > 0 {
			if ctx.Err() != nil {
				break
			}
			due <- list
			list = make([]int64, 0, keptAtOnce)
		}
	}
	close(due)
	wg.Wait()
}

// wait sleeps for d and reports whether ctx goes on.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
