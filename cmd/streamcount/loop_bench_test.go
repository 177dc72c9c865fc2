package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	generate "streamcount/internal/bench/load"
)

// BenchmarkBesideALoop is what 500 starts and stops a second of other users cost
// while one user's client starts and stops as fast as it is answered, over 16
// connections: with the rate limit that a node has by default, and without. With no
// connection it shows the noise. Each iteration is 4 s without the client and 4 s with it.
func BenchmarkBesideALoop(b *testing.B) {
	for _, bm := range []struct {
		rate, conns int
	}{{50, 0}, {50, 16}, {0, 16}} {
		b.Run(fmt.Sprintf("RatePerUser=%d/Conns=%d", bm.rate, bm.conns), func(b *testing.B) {
			_, c := serve(b, "--data-dir="+b.TempDir(), "--log-level=error", fmt.Sprint("--rate-per-user=", bm.rate))
			generator, err := generate.NewClient(c.server, 10*time.Second)
			require.NoError(b, err)
			var alone, beside []time.Duration // p99 of each phase
			var answered, refused int64
			others(b, generator) // warms up
			b.ResetTimer()
			for range b.N {
				alone = append(alone, others(b, generator))
				stop := loop(b, generator, bm.conns)
				beside = append(beside, others(b, generator))
				a, r := stop()
				answered, refused = answered+a, refused+r
			}
			b.StopTimer()
			slices.Sort(alone)
			slices.Sort(beside)
			before, after := alone[len(alone)/2], beside[len(beside)/2]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(before.Seconds()*1000, "alone-p99-ms")
			b.ReportMetric(after.Seconds()*1000, "beside-p99-ms")
			b.ReportMetric(after.Seconds()/before.Seconds(), "ratio")
			b.ReportMetric(float64(answered)/b.Elapsed().Seconds()*2, "loop-starts/s")
			b.ReportMetric(float64(refused)/b.Elapsed().Seconds()*2, "loop-429s/s")
		})
	}
}

// others returns the 99th percentile of a start and its stop, from when it was due.
func others(b *testing.B, generator *generate.Client) time.Duration {
	b.Helper()
	const workers = 64
	var mu sync.Mutex
	var took []time.Duration
	conns := make([]*generate.Conn, workers)
	for i := range conns {
		conns[i] = generator.Conn(b.Context())
		defer conns[i].Close()
	}
	plan := generate.Plan{Rate: 500, For: 4 * time.Second, Workers: workers, Grace: time.Second}
	var failed atomic.Int64
	plan.Run(b.Context(), func(w int, n int64, due time.Time) {
		if !startAndStop(conns[w], fmt.Sprintf("other-%d", n)) {
			failed.Add(1)
		}
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(due))
	})
	require.Zero(b, failed.Load(), "calls failed")
	slices.Sort(took)
	return took[len(took)*99/100]
}

// loop starts and stops streams of one user until stop, which tells how many
// starts were admitted and how many calls were refused.
func loop(b *testing.B, generator *generate.Client, conns int) (stop func() (admitted, refused int64)) {
	b.Helper()
	var ending atomic.Bool
	var yes, no atomic.Int64
	var wg sync.WaitGroup
	for range conns {
		wg.Go(func() {
			conn := generator.Conn(b.Context())
			defer conn.Close()
			for !ending.Load() {
				if startAndStop(conn, "looping") {
					yes.Add(1)
				} else {
					no.Add(1)
				}
			}
		})
	}
	return func() (int64, int64) {
		ending.Store(true)
		wg.Wait()
		return yes.Load(), no.Load()
	}
}
