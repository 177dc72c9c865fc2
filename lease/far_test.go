package lease_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/cluster"
	"streamcount/lease"
)

// BenchmarkFarAway is a node whose etcd is 40 ms away and back: the medians of a
// start, a stop, a heartbeat that renews, and of one put over the same link.
//
//	go test -run xxx -bench FarAway -benchtime 50x ./lease
func BenchmarkFarAway(b *testing.B) {
	e, err := cluster.StartEmbedded(b.Context(), cluster.EmbedConfig{DataDir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, e.Close()) })
	at, err := url.Parse(e.Endpoints()[0])
	require.NoError(b, err)
	c, err := cluster.Dial(b.Context(), cluster.ClientConfig{Endpoints: []string{delayed(b, at.Host, 20*time.Millisecond)}})
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	r := runRig(b, lease.Over(c), lease.MinTTL)
	took := map[string][]time.Duration{}
	timed := func(name string, do func() error) {
		began := time.Now()
		require.NoError(b, do())
		took[name] = append(took[name], time.Since(began))
	}
	ctx := context.Background()
	for i := range b.N + 10 {
		if i == 10 { // the first ones meet an empty pool
			clear(took)
		}
		user := fmt.Sprint("user-", i)
		var st lease.Started
		timed("start", func() (err error) { st, err = r.Start(ctx, user, lease.Request{}); return err })
		timed("put", func() error {
			_, err := r.etcd.KV.Put(ctx, &pb.PutRequest{Key: []byte("/bench/x"), Value: []byte("x")})
			return err
		})
		if i%10 == 9 { // rested for a quarter of a TTL, so that it renews
			<-time.After(lease.MinTTL/4 + 100*time.Millisecond)
			timed("heartbeat", func() error { _, err := r.Heartbeat(ctx, user, st.Stream.ID); return err })
		}
		timed("stop", func() error { _, err := r.Stop(ctx, user, st.Stream.ID); return err })
	}
	for name, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-ms")
	}
}

// delayed forwards connections to addr, each byte later by delay, both ways.
func delayed(b *testing.B, addr string, delay time.Duration) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	b.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", addr)
			if err != nil {
				_ = near.Close()
				continue
			}
			go forward(near, far, delay)
			go forward(far, near, delay)
		}
	}()
	return ln.Addr().String()
}

func forward(from, to net.Conn, delay time.Duration) {
	type piece struct {
		due  time.Time
		data []byte
	}
	pieces := make(chan piece, 1<<16)
	go func() {
		defer func() { _ = to.Close() }()
		for p := range pieces {
			<-time.After(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				return
			}
		}
	}()
	defer close(pieces)
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if n > 0 {
			pieces <- piece{time.Now().Add(delay), buf[:n]}
		}
		if err != nil {
			_ = from.Close()
			return
		}
	}
}
