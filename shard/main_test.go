package shard

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/events"
	"streamcount/internal/retry"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

const (
	soon   = time.Minute
	testID = "0123456789abcdef" // the secret of the tests' stream ids
)

// etcds are etcd servers by the names of their shards.
type etcds map[string]*etcdtest.Member

func startShards(tb testing.TB, names ...string) etcds {
	tb.Helper()
	all := etcds{}
	for _, name := range names {
		all[name] = etcdtest.Start(tb, etcdtest.Config{})
	}
	return all
}

func (e etcds) shards(names ...string) []Shard {
	var out []Shard
	for _, name := range names {
		out = append(out, Shard{name, []string{e[name].Endpoint()}})
	}
	return out
}

// A lagging watcher receives events late.
type lagging struct {
	clientv3.Watcher
	by time.Duration
}

func (w lagging) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	type late struct {
		resp clientv3.WatchResponse
		at   time.Time
	}
	in, queue, out := w.Watcher.Watch(ctx, key, opts...), make(chan late, 1<<12), make(chan clientv3.WatchResponse)
	go func() {
		defer close(queue)
		for resp := range in {
			queue <- late{resp, time.Now().Add(w.by)}
		}
	}()
	go func() {
		defer close(out)
		for l := range queue {
			if retry.Sleep(ctx, time.Until(l.at)) == nil {
				out <- l.resp
			}
		}
	}()
	return out
}

// node starts a router on the shards whose watch events arrive lag late.
func (e etcds) node(tb testing.TB, lag time.Duration, names ...string) *Router {
	tb.Helper()
	return e.nodeWithFeed(tb, nil, lag, names...)
}

// nodeWithFeed starts a router that publishes events to a feed.
func (e etcds) nodeWithFeed(tb testing.TB, feed *events.Feed, lag time.Duration, names ...string) *Router {
	tb.Helper()
	return e.nodeOn(tb, lag, func(s Shard, cfg *lease.Config) { cfg.Observer = feed.Publisher(s.Name) }, names...)
}

// nodeWith starts a router with another configuration of the limiters.
func (e etcds) nodeWith(tb testing.TB, change func(Shard, *lease.Config), names ...string) *Router {
	tb.Helper()
	return e.nodeOn(tb, 0, change, names...)
}

func (e etcds) nodeOn(tb testing.TB, lag time.Duration, change func(Shard, *lease.Config), names ...string) *Router {
	tb.Helper()
	bars := lease.NewBars(0)
	r, err := New(Config{
		Shards: e.shards(names...), Mapped: true, TTL: lease.DefaultTTL, Log: slog.New(slog.DiscardHandler),
		Open: func(_ context.Context, s Shard, _ bool) (*Connection, error) {
			c := etcdtest.FaultyClient(tb, s.Endpoints, nil)
			on := lease.FromClient(c)
			if lag > 0 {
				on.Watch = lagging{on.Watch, lag}
			}
			cfg := lease.Config{Limit: 3, Bars: bars, Secret: []byte(testID), Timeout: 10 * time.Second, Shard: s.Name}
			change(s, &cfg)
			l, err := lease.New(on, cfg)
			return &Connection{Limiter: l}, err
		},
	})
	require.NoError(tb, err)
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	tb.Cleanup(func() {
		stop()
		require.NoError(tb, <-done)
	})
	select {
	case <-r.Ready():
	case <-time.After(soon):
		require.Fail(tb, "not ready")
	}
	return r
}
