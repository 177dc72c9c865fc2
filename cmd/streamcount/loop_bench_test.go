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

// BenchmarkOtherUsersDuringLoop measures the latency of 500 starts and stops per second of
// other users while one user starts and stops without a pause on 16 connections, with the
// default rate limit and without one. With 0 connections it shows the noise. An iteration is
// 4 s without and 4 s with this user.
func BenchmarkOtherUsersDuringLoop(b *testing.B) {
	for _, bm := range []struct {
		rate, conns int
	}{{50, 0}, {50, 16}, {0, 16}} {
		b.Run(fmt.Sprintf("RatePerUser=%d/Conns=%d", bm.rate, bm.conns), func(b *testing.B) {
			_, c := serve(b, "--data-dir="+b.TempDir(), "--log-level=error", fmt.Sprint("--rate-per-user=", bm.rate))
			generator, err := generate.NewClient(c.server, 10*time.Second)
			require.NoError(b, err)
			var without, with []time.Duration // p99 of each phase
			var answered, refused int64
			otherUsersP99(b, generator) // warms up
			b.ResetTimer()
			for range b.N {
				without = append(without, otherUsersP99(b, generator))
				stop := startInLoop(b, generator, bm.conns)
				with = append(with, otherUsersP99(b, generator))
				a, r := stop()
				answered, refused = answered+a, refused+r
			}
			b.StopTimer()
			slices.Sort(without)
			slices.Sort(with)
			p99Without, p99With := without[len(without)/2], with[len(with)/2]
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(p99Without.Seconds()*1000, "without-p99-ms")
			b.ReportMetric(p99With.Seconds()*1000, "with-p99-ms")
			b.ReportMetric(p99With.Seconds()/p99Without.Seconds(), "ratio")
			b.ReportMetric(float64(answered)/b.Elapsed().Seconds()*2, "loop-starts/s")
			b.ReportMetric(float64(refused)/b.Elapsed().Seconds()*2, "loop-429s/s")
		})
	}
}

// otherUsersP99 returns the 99th percentile of a start and its stop, measured from when it
// was due.
func otherUsersP99(b *testing.B, generator *generate.Client) time.Duration {
	b.Helper()
	const workers = 64
	var mu sync.Mutex
	var took []time.Duration
	conns := make([]*generate.Conn, workers)
	for i := range conns {
		conns[i] = generator.Conn(b.Context())
		defer conns[i].Close()
	}
	plan := generate.Plan{Rate: 500, Duration: 4 * time.Second, Workers: workers, Grace: time.Second}
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

// startInLoop starts and stops streams of one user until stop is called, which returns the
// numbers of admitted starts and rejected calls.
func startInLoop(b *testing.B, generator *generate.Client, conns int) (stop func() (admitted, refused int64)) {
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
