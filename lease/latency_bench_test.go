package lease_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/cluster"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

// BenchmarkRemoteEtcd measures a node with a round trip of 40 ms to etcd. It reports the
// medians of a start, a stop, a heartbeat that renews, and a put over the same link.
//
//	go test -run xxx -bench RemoteEtcd -benchtime 50x ./lease
func BenchmarkRemoteEtcd(b *testing.B) {
	e, err := cluster.StartEmbedded(b.Context(), cluster.EmbedConfig{DataDir: b.TempDir()})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, e.Close()) })
	link := etcdtest.NewLink(b, func(string) time.Duration { return 20 * time.Millisecond })
	link.To(e.Endpoints()[0])
	c, err := cluster.Dial(b.Context(), cluster.ClientConfig{Endpoints: []string{link.URL()}})
	require.NoError(b, err)
	b.Cleanup(func() { _ = c.Close() })
	r := runRig(b, lease.FromClient(c), lease.MinTTL)
	took := map[string][]time.Duration{}
	timed := func(name string, do func() error) {
		began := time.Now()
		require.NoError(b, do())
		took[name] = append(took[name], time.Since(began))
	}
	ctx := context.Background()
	for i := range b.N + 10 {
		if i == 10 { // the first starts have an empty pool
			clear(took)
		}
		user := fmt.Sprint("user-", i)
		var st lease.Started
		timed("start", func() (err error) { st, err = r.Start(ctx, user, lease.Request{}); return err })
		timed("put", func() error {
			_, err := r.etcd.KV.Put(ctx, &pb.PutRequest{Key: []byte("/bench/x"), Value: []byte("x")})
			return err
		})
		if i%10 == 9 { // after a quarter of a TTL, so that it renews
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
