package leasepool

import (
	"context"
	"errors"
	"math"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/lease/internal/keepalive"
)

// noRenewals is a renewer that is not called.
type noRenewals struct{}

func (noRenewals) Renew(context.Context, int64) <-chan keepalive.Result { panic("not called") }

// While grants fail the pool backs off, and fills up when they succeed.
func TestPool_BacksOffWhileGrantsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var requests atomic.Int64
		var works atomic.Bool
		p := NewPool(fakeGranter(func(context.Context) (Lease, error) {
			if n := requests.Add(1); works.Load() {
				return Lease{ID: n, TTL: time.Hour, Renewed: time.Now()}, nil
			}
			return Lease{}, errors.New("etcd is full")
		}), noRenewals{}, time.Hour, 3*time.Second)
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		time.Sleep(10 * time.Second)
		want := minIdleLeases * 10 / grantRetryDelay.Seconds()
		assert.InDelta(t, want, requests.Load(), want/4)
		works.Store(true)
		time.Sleep(time.Second)
		ready, _ := p.Sizes()
		assert.GreaterOrEqual(t, ready, minIdleLeases)
		assert.Less(t, ready, 2*minIdleLeases)
		cancel()
		assert.NoError(t, <-done)
	})
}

// The target follows the rate of starts, up at once and down slowly, and the revocations
// stay within their budget.
func TestDemand_AgainstItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Now()
		p, now, revoked := &demand{updatedAt: begin}, begin, 0
		for range rapid.IntRange(1, 6).Draw(t, "phases") {
			rate := rapid.SampledFrom([]float64{0, 1, 40, 500, 5000, 50_000}).Draw(t, "starts a second")
			looks := rapid.IntRange(1, 300).Draw(t, "looks")
			want, left := 0, 0
			for range looks {
				step := time.Duration(rapid.IntRange(1, 500).Draw(t, "ms")) * time.Millisecond
				now = now.Add(step)
				taken := int64(math.Round(rate * step.Seconds()))
				want, left = p.update(now, taken)
				require.GreaterOrEqual(t, want, minIdleLeases)
				require.LessOrEqual(t, want, maxIdleLeases)
				atOnce := int(float64(taken) / step.Seconds() / 2 * poolHorizon.Seconds())
				require.GreaterOrEqual(t, want, min(maxIdleLeases, atOnce), "half of a burst counts at once")
				n := rapid.IntRange(0, left).Draw(t, "revoked")
				p.spendRevokes(n)
				revoked += n
				most := now.Sub(begin).Seconds()*revokesPerSecond + maxParallelGrants
				require.LessOrEqual(t, float64(revoked), most)
				granting := rapid.IntRange(0, maxParallelGrants).Draw(t, "granting")
				more := missingGrants(want, rapid.IntRange(0, 2*want).Draw(t, "waiting"), granting)
				require.True(t, more >= 0 && more+granting <= maxParallelGrants, "%d grants beside %d", more, granting)
			}
			if looks > 200 { // 50 s on average: long enough for the average to settle
				goal := max(minIdleLeases, min(maxIdleLeases, rate*poolHorizon.Seconds()))
				require.InDelta(t, goal, want, goal/2+2, "at %v a second", rate)
			}
		}
	})
}
