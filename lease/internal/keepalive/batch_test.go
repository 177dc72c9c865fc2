package keepalive

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Batches of many sizes, which reuse each other's memory, run at the same time while streams
// break. Each renewal gets the result of its lease, or fails.
func TestBatch_DeliversEachResultToItsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{broke: func() bool { return rand.N(500) == 0 }})
		var callers sync.WaitGroup
		for caller := range 8 {
			callers.Go(func() {
				failed, n := 0, 0
				for range 30 {
					size := rand.N(3 * maxOutstanding >> rand.N(10))
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					b := r.NewBatch(ctx)
					for i := range size {
						b.WaitForRoom()
						b.Renew(int64(caller*10_000 + i + 1))
					}
					b.Wait()
					for i := range size {
						switch got := b.Result(i); {
						case got.Err != nil:
							failed++
						default:
							assert.Equal(t, time.Duration(caller*10_000+i+1)*time.Second, got.TTL)
						}
					}
					n += size
					b.Release()
					cancel()
				}
				assert.LessOrEqual(t, failed, n/2, "most succeed")
			})
		}
		callers.Wait()
	})
}

// A batch whose context ends has the results that have arrived. Results that arrive later
// do not reach a batch that is created later.
func TestBatch_ReturnsAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		r := runRenewer(t, &scriptedLease{answer: func(id int64) int64 {
			if id == 99 {
				<-answer
			}
			return id
		}})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		b := r.NewBatch(ctx)
		for _, id := range []int64{1, 2, 3, 99} { // one on each stream
			b.Renew(id)
		}
		began := time.Now()
		b.Wait()
		assert.Equal(t, 100*time.Millisecond, time.Since(began))
		for i := range 3 {
			require.NoError(t, b.Result(i).Err)
		}
		require.ErrorIs(t, b.Result(3).Err, context.DeadlineExceeded)
		b.Release()

		next := r.NewBatch(t.Context())
		defer next.Release()
		next.Renew(7)
		close(answer)
		next.Wait()
		assert.Equal(t, 7*time.Second, next.Result(0).TTL)
	})
}

func TestBatch_BoundsOutstandingRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{stuck: map[int64]bool{1: true}})
		ctx, cancel := context.WithCancel(t.Context())
		b := r.NewBatch(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range maxOutstanding {
				b.WaitForRoom()
				b.Renew(1)
			}
			b.WaitForRoom()
		}()
		synctest.Wait()
		select {
		case <-done:
			assert.Fail(t, "the batch does not wait for room")
		default:
		}
		cancel()
		<-done
		b.Release()
	})
}
