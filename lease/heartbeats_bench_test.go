package lease_test

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/lease"
)

// BenchmarkHeartbeats sends the heartbeats of 20,000 streams in batches of 500, in process.
// One operation is one heartbeat. Resting ones need no renewal, because the node that
// answers them has started the streams. Renewing ones are answered by new nodes, each of
// which renews every stream once.
//
//	go test -run '^$' -bench Heartbeats -benchtime 500000x ./lease
func BenchmarkHeartbeats(b *testing.B) {
	const batch = 500
	r := newRig(b, true)
	requests := startMany(b, r, 20_000)
	b.Run("resting", func(b *testing.B) {
		m := newMeter(b)
		for n := 0; n < b.N; n += batch {
			m.sendBatch(r.Limiter, requests[n%len(requests):][:batch])
		}
		m.report(b)
	})
	b.Run("renewing", func(b *testing.B) {
		m := newMeter(b)
		for m.sent < b.N {
			l, stop := runNode(b, r.etcd)
			for n := 0; n < len(requests) && m.sent < b.N; n += batch {
				m.sendBatch(l, requests[n:][:batch])
			}
			stop()
		}
		m.report(b)
	})
}

// A meter measures the CPU time and the allocations of the process during batches.
type meter struct {
	b    *testing.B
	sent int
	used time.Duration
	made uint64
}

func newMeter(b *testing.B) *meter {
	b.Helper()
	runtime.GC()
	return &meter{b: b}
}

func (m *meter) sendBatch(l *lease.Limiter, requests []lease.HeartbeatRequest) {
	m.b.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used := cpu(m.b)
	results := l.Heartbeats(context.Background(), requests)
	m.used += cpu(m.b) - used
	runtime.ReadMemStats(&after)
	m.made += after.Mallocs - before.Mallocs
	m.sent += len(requests)
	for _, res := range results {
		require.NoError(m.b, res.Err)
		require.False(m.b, res.Degraded)
	}
}

func (m *meter) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(m.used.Nanoseconds())/1e3/float64(m.sent), "cpu-us/op")
	b.ReportMetric(float64(m.made)/float64(m.sent), "allocations/op")
}

// runNode runs another node on etcd, and returns when its replica is current.
func runNode(b *testing.B, etcd lease.Etcd) (l *lease.Limiter, stop func()) {
	b.Helper()
	l, err := lease.New(etcd, lease.Config{Limit: 3, Secret: make([]byte, 32)})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	require.Eventually(b, func() bool {
		_, err := l.Totals(ctx)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	return l, func() {
		cancel()
		require.NoError(b, <-done)
	}
}
