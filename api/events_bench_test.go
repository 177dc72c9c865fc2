//go:build unix

package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/cluster"
	"streamcount/events"
	"streamcount/lease"
)

// BenchmarkEvents measures a start and its stop on the embedded etcd server in process, with a
// number of clients that follow events over HTTP; "none" is without a feed. The clients run
// in the same process, and their CPU time counts.
//
//	go test -run xxx -bench Events -benchtime 40000x ./api
func BenchmarkEvents(b *testing.B) {
	e, err := cluster.StartEmbedded(b.Context(), cluster.EmbedConfig{DataDir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, e.Close()) })
	in := e.InProcess()
	on := lease.Etcd{KV: in.KV, Lease: in.Lease, Watch: in.Watch, MaxTxnOps: e.MaxTxnOps()}
	for _, followers := range []int{-1, 0, 1, 100} {
		name := fmt.Sprint(followers)
		var feed *events.Feed
		if followers < 0 {
			name = "none"
		} else {
			feed = events.NewFeed()
		}
		b.Run(name, func(b *testing.B) {
			l := benchLimiter(b, on, feed)
			received := &atomic.Int64{}
			benchFollowers(b, l, feed, followers, received)
			startAndStop(b, l)
			b.ReportMetric(float64(received.Load())/float64(b.N), "B-received/op")
		})
	}
}

func benchLimiter(b *testing.B, on lease.Etcd, feed *events.Feed) *lease.Limiter {
	b.Helper()
	l, err := lease.New(on, lease.Config{Limit: 3, Secret: make([]byte, 32), Observer: feed.Publisher("")})
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	b.Cleanup(func() { cancel(); require.NoError(b, <-done) })
	require.Eventually(b, func() bool {
		_, err := l.Totals(ctx)
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	return l
}

func benchFollowers(b *testing.B, l *lease.Limiter, feed *events.Feed, n int, received *atomic.Int64) {
	b.Helper()
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	s.SetBackend(Backend{Limiter: l, Feed: feed})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	b.Cleanup(func() { cancel(); require.NoError(b, <-done) })
	for range n {
		c, err := net.Dial("tcp", ln.Addr().String())
		require.NoError(b, err)
		b.Cleanup(func() { _ = c.Close() })
		_, err = io.WriteString(c, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		require.NoError(b, err)
		go func() {
			buf := make([]byte, 32<<10)
			for {
				k, err := c.Read(buf)
				received.Add(int64(k))
				if err != nil {
					return
				}
			}
		}()
	}
	require.Eventually(b, func() bool { return s.load.EventStreams() == max(n, 0) }, time.Minute, time.Millisecond)
}

// startAndStop runs the benchmark's work from 128 callers.
func startAndStop(b *testing.B, l *lease.Limiter) {
	b.Helper()
	var left, users atomic.Int64
	left.Store(int64(b.N))
	used := cpuTime(b)
	b.ResetTimer()
	done := make(chan error, 128)
	for range cap(done) {
		go func() {
			for left.Add(-1) >= 0 {
				user := fmt.Sprint("user-", users.Add(1))
				st, err := l.Start(context.Background(), user, lease.Request{Device: lease.Device{ID: "tv-1", Name: "TV", Type: "tv"}})
				if err == nil {
					_, err = l.Stop(context.Background(), user, st.Stream.ID)
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range cap(done) {
		require.NoError(b, <-done)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric(float64((cpuTime(b)-used).Microseconds())/float64(b.N), "cpu-us/op")
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
