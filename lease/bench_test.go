package lease_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/cluster"
	"streamcount/lease"
)

// These benchmarks run on the embedded server as a node runs it, with fsync:
//
//	go test -run xxx -bench . -benchtime 3s ./lease
//
// One operation of StartStop is a start and its stop. 256 callers, unless said.

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
	c, err := cluster.Dial(b.Context(), cluster.ClientConfig{Endpoints: e.Endpoints()})
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	on := lease.Over(c)
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
	if true {
		require.Eventually(b, func() bool {
			_, err := l.Totals(ctx)
			return err == nil
		}, time.Minute, 10*time.Millisecond)
	}
	return rig{l, on}
}

// parallel runs do from n callers at once, and reports operations a second.
func parallel(b *testing.B, n int, do func(caller int)) {
	b.Helper()
	b.ReportAllocs()
	var left atomic.Int64
	left.Store(int64(b.N))
	used := cpu(b)
	b.ResetTimer()
	done := make(chan struct{}, n)
	for c := range n {
		go func() {
			for left.Add(-1) >= 0 {
				do(c)
			}
			done <- struct{}{}
		}()
	}
	for range n {
		<-done
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cpu(b)-used).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is the processor time of this process so far: on a noisy machine it says
// more than the clock.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func each(b *testing.B, bench func(*testing.B, rig)) {
	b.Helper()
	for name, inProcess := range map[string]bool{"grpc": false, "inprocess": true} {
		b.Run(name, func(b *testing.B) { bench(b, newRig(b, inProcess)) })
	}
}

func BenchmarkPut(b *testing.B) {
	each(b, func(b *testing.B, r rig) { //nolint:thelper // it is the benchmark itself
		parallel(b, callers, func(c int) {
			_, err := r.etcd.KV.Put(context.Background(), &pb.PutRequest{Key: fmt.Append(nil, "/bench/", c), Value: []byte("x")})
			require.NoError(b, err)
		})
	})
}

func BenchmarkStartStop(b *testing.B) {
	each(b, func(b *testing.B, r rig) { //nolint:thelper // it is the benchmark itself
		var users atomic.Int64
		parallel(b, callers, func(int) {
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

// BenchmarkHeartbeat beats 20,000 streams in turn: nearly all of them rest.
func BenchmarkHeartbeat(b *testing.B) {
	each(b, func(b *testing.B, r rig) { //nolint:thelper // it is the benchmark itself
		beats := startMany(b, r, 20_000)
		var next atomic.Int64
		parallel(b, callers, func(int) {
			beat := beats[next.Add(1)%int64(len(beats))]
			s, err := r.Heartbeat(context.Background(), beat.User, beat.ID)
			require.NoError(b, err)
			require.False(b, s.Degraded)
		})
	})
}

func startMany(b *testing.B, r rig, n int) []lease.Beat {
	b.Helper()
	beats := make([]lease.Beat, n)
	var next atomic.Int64
	done := make(chan struct{}, callers)
	for range callers {
		go func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				user := fmt.Sprint("viewer-", i)
				st, err := r.Start(context.Background(), user, lease.Request{})
				if err == nil {
					beats[i] = lease.Beat{User: user, ID: st.Stream.ID}
				}
			}
			done <- struct{}{}
		}()
	}
	for range callers {
		<-done
	}
	for _, beat := range beats {
		require.NotEmpty(b, beat.ID)
	}
	return beats
}
