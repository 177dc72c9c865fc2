//go:build unix

package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	generate "streamcount/internal/bench/load"
)

// BenchmarkTraces measures the cost of traces for a start and its stop over HTTP: with no
// request traced, one in a hundred, and all, alternately on three nodes. An iteration is
// 3,000 starts and stops on each node; the reported ratios are of medians, and include the
// generator and the receiver of spans.
func BenchmarkTraces(b *testing.B) {
	r := newReceiver(b)
	kinds := []string{"off", "one-percent", "all"}
	var clients []*generate.Client
	for _, args := range [][]string{
		{}, {"--trace-endpoint=" + r.URL}, {"--trace-endpoint=" + r.URL, "--trace-sample=1"},
	} {
		_, c := serve(b, append(args, "--data-dir="+b.TempDir(), "--log-level=error")...)
		client, err := generate.NewClient(c.server, 10*time.Second)
		require.NoError(b, err)
		clients = append(clients, client)
		cycles(b, client) // warms up
	}
	took, used := make([][]float64, 3), make([][]float64, 3)
	b.ResetTimer()
	for range b.N {
		for i, client := range clients {
			wall, cpu := cycles(b, client)
			took[i], used[i] = append(took[i], wall), append(used[i], cpu)
		}
	}
	b.StopTimer()
	median := func(v []float64) float64 { slices.Sort(v); return v[len(v)/2] }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(used[0])/cyclesEach*1e6, "off-cpu-us")
	for i := 1; i < 3; i++ {
		b.ReportMetric(median(used[i])/median(used[0]), kinds[i]+"-cpu-ratio")
		b.ReportMetric(median(took[i])/median(took[0]), kinds[i]+"-time-ratio")
	}
}

const cyclesEach = 3000

// cycles starts and stops streams over 32 connections, and returns the wall time and the CPU
// time in seconds.
func cycles(b *testing.B, client *generate.Client) (wall, cpu float64) {
	b.Helper()
	began, used := time.Now(), processor(b)
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			conn := client.Conn(b.Context())
			defer conn.Close()
			for n := next.Add(1); n <= cyclesEach; n = next.Add(1) {
				if !startAndStop(conn, fmt.Sprint("user-", n)) {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(b, failed.Load(), "calls failed")
	return time.Since(began).Seconds(), processor(b) - used
}

func processor(b *testing.B) float64 {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
