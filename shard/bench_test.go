//go:build unix

package shard

import (
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/lease"
)

// BenchmarkStartStop measures a start and its stop by 128 callers over 1, 2 and 4 etcd servers
// in this process, without fsync. The shards share the cores, so the benchmark reports the CPU
// time of the whole process.
func BenchmarkStartStop(b *testing.B) {
	for _, names := range [][]string{{"a"}, {"a", "b"}, {"a", "b", "c", "d"}} {
		b.Run(fmt.Sprintf("Shards=%d", len(names)), func(b *testing.B) {
			r := startShards(b, names...).node(b, 0, names...)
			var next, failed atomic.Int64
			call := func() {
				user := "user-" + strconv.FormatInt(next.Add(1)%100_000, 10)
				st, err := r.Start(b.Context(), user, lease.Request{})
				if err == nil {
					_, err = r.Stop(b.Context(), user, st.Stream.ID)
				}
				if err != nil {
					failed.Add(1)
				}
			}
			b.SetParallelism(64) // times GOMAXPROCS
			began := processorTime(b)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					call()
				}
			})
			b.StopTimer()
			require.Zero(b, failed.Load())
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "starts/s")
			b.ReportMetric(float64((processorTime(b)-began).Microseconds())/float64(b.N), "cpu-us/start")
		})
	}
}

// BenchmarkHeartbeats sends heartbeats that need no renewal, in batches of 500 that are spread
// over 1 and 4 shards. One operation is one heartbeat.
func BenchmarkHeartbeats(b *testing.B) {
	for _, names := range [][]string{{"a"}, {"a", "b", "c", "d"}} {
		b.Run(fmt.Sprintf("Shards=%d", len(names)), func(b *testing.B) {
			r := startShards(b, names...).node(b, 0, names...)
			requests := make([]lease.HeartbeatRequest, 500)
			for i := range requests {
				user := "user-" + strconv.Itoa(i)
				st, err := r.Start(b.Context(), user, lease.Request{})
				require.NoError(b, err)
				requests[i] = lease.HeartbeatRequest{User: user, ID: st.Stream.ID}
			}
			began := processorTime(b)
			b.ResetTimer()
			for n := 0; n < b.N; n += len(requests) {
				for _, res := range r.Heartbeats(b.Context(), requests) {
					if res.Err != nil || res.Degraded {
						b.Fatal(res)
					}
				}
			}
			b.StopTimer()
			b.ReportMetric(float64((processorTime(b)-began).Nanoseconds())/1e3/float64(b.N), "cpu-us/op")
		})
	}
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
