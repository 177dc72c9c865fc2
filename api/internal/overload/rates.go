package overload

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"
)

// A rateLimiter limits the rate of each key by a token bucket. A nil rateLimiter limits
// nothing.
type rateLimiter struct {
	limit   rate.Limit
	burst   int
	buckets *lru.Cache[string, *rate.Limiter]
}

const (
	// burstSeconds is how many seconds of the rate a key may use at once.
	burstSeconds = 10
	// maxBuckets limits the memory of a rateLimiter. Beyond it the least recently used
	// bucket is dropped, which returns its tokens: a client would have to use that many
	// keys between two requests of its own to gain by it.
	maxBuckets = 1 << 18
)

func newRateLimiter(perSecond float64) *rateLimiter {
	if perSecond <= 0 {
		return nil
	}
	buckets, err := lru.New[string, *rate.Limiter](maxBuckets)
	if err != nil {
		panic(err) // only for a size that is not positive
	}
	return &rateLimiter{limit: rate.Limit(perSecond), burst: max(1, int(burstSeconds*perSecond)), buckets: buckets}
}

// take takes a token of key and returns 0, or returns the time until there is one.
func (l *rateLimiter) take(key string, now time.Time) time.Duration {
	if l == nil {
		return 0
	}
	bucket, ok := l.buckets.Get(key)
	if !ok {
		bucket = rate.NewLimiter(l.limit, l.burst)
		if other, ok, _ := l.buckets.PeekOrAdd(key, bucket); ok {
			bucket = other
		}
	}
	if bucket.AllowN(now, 1) {
		return 0
	}
	missing := (1 - bucket.TokensAt(now)) / float64(l.limit)
	return max(1, time.Duration(missing*float64(time.Second)))
}
