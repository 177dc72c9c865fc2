package events

import (
	"context"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

// A breakableWatcher can be disconnected from etcd.
type breakableWatcher struct {
	clientv3.Watcher
	mu           sync.Mutex
	cancels      []context.CancelFunc // of the watches
	disconnected bool
}

// Watch implements Watcher.
func (b *breakableWatcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	b.cancels = append(b.cancels, cancel)
	if b.disconnected {
		cancel()
	}
	return b.Watcher.Watch(ctx, key, opts...)
}

func (b *breakableWatcher) setDisconnected(disconnected bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.disconnected = disconnected
	for _, cancel := range b.cancels {
		cancel()
	}
	b.cancels = nil
}

// A broken watch is no gap while etcd has its history. After a compaction of that
// history there is a gap, and the streams that are then listed publish no start.
func TestFeed_BrokenWatchAndCompaction(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	f, on := NewFeed(), lease.FromClient(c)
	watcher := &breakableWatcher{Watcher: on.Watch}
	on.Watch = watcher
	l := runLimiter(t, on, lease.Config{Prefix: "/t", Limit: 2, Observer: f.Publisher("")})
	writer := newLimiter(t, c, lease.Config{Prefix: "/t", Limit: 2})
	fo := follow(t, f, "", "")
	for _, compacted := range []bool{false, true} {
		watcher.setDisconnected(true)
		st := mustStart(t, writer, "ann", lease.Request{}).Stream
		mustStart(t, writer, "ben", lease.Request{Session: "x"})
		_, err := writer.Stop(t.Context(), "ann", st.ID)
		require.NoError(t, err)
		now, err := c.Get(t.Context(), "x")
		require.NoError(t, err)
		require.Nil(t, fo.Next())
		if compacted {
			_, err = c.Compact(t.Context(), now.Header.Revision)
			require.NoError(t, err)
		}
		watcher.setDisconnected(false)
		if compacted {
			assert.Equal(t, []string{"gap the node has listed all streams again"}, next(t, fo, 1))
		} else {
			assert.Equal(t, []string{"start ann 1/2", "start ben 1/2", "stop ann 0/2 stopped"}, next(t, fo, 3))
		}
		requireCurrent(t, l)
		require.Nil(t, fo.Next())
	}
	mustStart(t, writer, "eve", lease.Request{})
	assert.Equal(t, []string{"start eve 1/2"}, next(t, fo, 1))
}
