package api

import (
	"context"
	"hash/maphash"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// rates bounds how often each of many may do something. A nil one bounds nothing.
type rates struct {
	limit  rate.Limit
	burst  int
	seed   maphash.Seed
	shards [64]rateShard
}

type rateShard struct {
	mu    sync.Mutex
	of    map[string]*rate.Limiter
	swept time.Time
}

const (
	burstFactor  = 10
	maxRated     = 1 << 12 // in each shard
	sweepsApart  = time.Second
	maxRetrySecs = 60
)

// newRates allows perSecond on average, and ten times as many at once.
func newRates(perSecond float64) *rates {
	if perSecond <= 0 {
		return nil
	}
	r := &rates{limit: rate.Limit(perSecond), burst: max(1, int(burstFactor*perSecond)), seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].of = make(map[string]*rate.Limiter)
	}
	return r
}

// take counts one more for who, and returns how long he has to wait before it
// would be allowed; 0 if it is.
func (r *rates) take(who string) time.Duration {
	if r == nil {
		return 0
	}
	now := time.Now()
	s := &r.shards[maphash.String(r.seed, who)%uint64(len(r.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	l, known := s.of[who]
	if !known {
		if len(s.of) >= maxRated && !s.sweep(now, r.burst) {
			return 0 // so many are too fast at once that one more cannot be watched
		}
		l = rate.NewLimiter(r.limit, r.burst)
		s.of[who] = l
	}
	held := l.ReserveN(now, 1)
	wait := held.DelayFrom(now)
	if wait > 0 {
		held.CancelAt(now)
	}
	return wait
}

// sweep forgets those who have been idle for so long that forgetting them makes
// no difference. It reports whether there is room now.
func (s *rateShard) sweep(now time.Time, burst int) bool {
	if now.Sub(s.swept) < sweepsApart {
		return false
	}
	s.swept = now
	for who, l := range s.of {
		if l.TokensAt(now) >= float64(burst) {
			delete(s.of, who)
		}
	}
	return len(s.of) < maxRated
}

// Those who are too fast wait for their refusal: a client that asks again at once,
// whatever Retry-After says, would otherwise be the faster the more it is refused
// (16,000 times a second over 16 connections, measured, at three times the latency
// of everybody else).
const (
	refusalDelay = 250 * time.Millisecond
	maxDelayed   = 512 // at once; who comes on top is refused without a wait
)

// tooFast counts one more for who, and returns the refusal if he has to wait. It
// takes its time over that.
func (e *edge) tooFast(ctx context.Context, r *rates, who, whose string) *problem {
	wait := r.take(who)
	if wait <= 0 {
		return nil
	}
	select {
	case e.delayed <- struct{}{}:
		delay := time.NewTimer(e.delay)
		select {
		case <-delay.C:
		case <-ctx.Done():
			delay.Stop()
		}
		<-e.delayed
	default:
	}
	after := min(wholeSeconds(wait), maxRetrySecs)
	return tooManyRequests.problem("There are too many requests of this "+whose+". Play on, and try again after "+
		"the seconds in Retry-After.").with("Retry-After", strconv.Itoa(after))
}
