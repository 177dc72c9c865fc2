package lease_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/cluster"
	"streamcount/lease"
)

// These benchmarks run on the embedded etcd server with fsync, as in a node:
//
//	go test -run xxx -bench . -benchtime 3s ./lease
//
// One operation of StartStop is a start and its stop. Each benchmark has 128 concurrent
// callers.

const callers = 128

type rig struct {
	*lease.Limiter
	etcd lease.Etcd
}

func newRig(b *testing.B, inProcess bool) rig {
	b.Helper()
	e, err := cluster.StartEmbedded(b.Context(), cluster.EmbedConfig{DataDir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, e.Close()) })
	c, err := cluster.Dial(b.Context(), e.ClientConfig())
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	on := lease.FromClient(c)
	if inProcess {
		in := e.InProcess()
		on = lease.Etcd{KV: in.KV, Lease: in.Lease, Watch: in.Watch, MaxTxnOps: e.MaxTxnOps()}
	}
	return runRig(b, on, lease.DefaultTTL)
}

func runRig(b *testing.B, on lease.Etcd, ttl time.Duration) rig {
	b.Helper()
	l, err := lease.New(on, lease.Config{Limit: 3, TTL: ttl, Secret: make([]byte, 32)})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		require.NoError(b, <-done)
	})
	require.Eventually(b, func() bool {
		_, err := l.Totals(ctx)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	return rig{l, on}
}

// parallel calls do from all callers concurrently, and reports operations per second.
func parallel(b *testing.B, do func(caller int)) {
	b.Helper()
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	used := cpu(b)
	b.ResetTimer()
	done := make(chan struct{}, callers)
	for c := range callers {
		go func() {
			for left.Add(-1) >= 0 {
				do(c)
			}
			done <- struct{}{}
		}()
	}
	for range callers {
		<-done
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cpu(b)-used).Microseconds())/float64(b.N), "cpu-us/op")
}

func each(b *testing.B, bench func(*testing.B, rig)) {
	b.Helper()
	for name, inProcess := range map[string]bool{"grpc": false, "inprocess": true} {
		b.Run(name, func(b *testing.B) { bench(b, newRig(b, inProcess)) })
	}
}

func BenchmarkPut(b *testing.B) {
	each(b, func(b *testing.B, r rig) { //nolint:thelper // it is the benchmark itself
		parallel(b, func(c int) {
			_, err := r.etcd.KV.Put(context.Background(), &pb.PutRequest{Key: fmt.Append(nil, "/bench/", c), Value: []byte("x")})
			require.NoError(b, err)
		})
	})
}

func BenchmarkStartStop(b *testing.B) {
	each(b, func(b *testing.B, r rig) { //nolint:thelper // it is the benchmark itself
		var users atomic.Int64
		parallel(b, func(int) {
			user := fmt.Sprint("user-", users.Add(1))
			st, err := r.Start(context.Background(), user, lease.Request{Device: lease.Device{ID: "tv-1", Name: "TV", Type: "tv"}})
			require.NoError(b, err)
			_, err = r.Stop(context.Background(), user, st.Stream.ID)
			require.NoError(b, err)
		})
		for name, n := range r.Counters() {
			b.ReportMetric(n, name)
		}
	})
}

// BenchmarkHeartbeat sends heartbeats of 20,000 streams in turn. Nearly all of them need no
// renewal.
func BenchmarkHeartbeat(b *testing.B) {
	each(b, func(b *testing.B, r rig) { //nolint:thelper // it is the benchmark itself
		requests := startMany(b, r, 20_000)
		var next atomic.Int64
		parallel(b, func(int) {
			h := requests[next.Add(1)%int64(len(requests))]
			s, err := r.Heartbeat(context.Background(), h.User, h.ID)
			require.NoError(b, err)
			require.False(b, s.Degraded)
		})
	})
}

func startMany(b *testing.B, r rig, n int) []lease.HeartbeatRequest {
	b.Helper()
	requests := make([]lease.HeartbeatRequest, n)
	var next atomic.Int64
	done := make(chan struct{}, callers)
	for range callers {
		go func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				user := fmt.Sprint("viewer-", i)
				st, err := r.Start(context.Background(), user, lease.Request{})
				if err == nil {
					requests[i] = lease.HeartbeatRequest{User: user, ID: st.Stream.ID}
				}
			}
			done <- struct{}{}
		}()
	}
	for range callers {
		<-done
	}
	for _, h := range requests {
		require.NotEmpty(b, h.ID)
	}
	return requests
}
