package lease

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/etcdtest"
)

// A breakable watcher can be cut off from etcd.
type breakable struct {
	clientv3.Watcher
	mu   sync.Mutex
	ends []context.CancelFunc
	cut  bool
}

func (b *breakable) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	b.mu.Lock()
	defer b.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	b.ends = append(b.ends, cancel)
	if b.cut {
		cancel()
	}
	return b.Watcher.Watch(ctx, key, opts...)
}

func (b *breakable) set(cut bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cut = cut
	for _, end := range b.ends {
		end()
	}
	b.ends = nil
}

// A watch that breaks is no gap while etcd has its history. A compaction meanwhile
// is one, and nothing that is then listed is told as if it had started now.
func TestFeed_ABrokenWatchAndACompaction(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	f, on := NewFeed(), Over(c)
	broken := &breakable{Watcher: on.Watch}
	on.Watch = broken
	l := runLimiter(t, on, Config{Prefix: "/t", Limit: 2, Feed: f})
	writer := runLimiter(t, Over(c), Config{Prefix: "/t", Limit: 2})
	fo := follow(t, f, "", "")
	for _, compacted := range []bool{false, true} {
		broken.set(true)
		st := mustStart(t, writer, "meanwhile", Request{}).Stream
		mustStart(t, writer, "also", Request{Session: "x"})
		_, err := writer.Stop(t.Context(), "meanwhile", st.ID)
		require.NoError(t, err)
		now, err := c.Get(t.Context(), "x")
		require.NoError(t, err)
		require.Nil(t, fo.Next())
		if compacted {
			_, err = c.Compact(t.Context(), now.Header.Revision)
			require.NoError(t, err)
		}
		broken.set(false)
		if compacted {
			assert.Equal(t, []string{"gap the node has read all streams anew"}, take(t, fo, 1))
		} else {
			assert.Equal(t, []string{"start meanwhile 1/2", "start also 1/2", "stop meanwhile 0/2 stopped"}, take(t, fo, 3))
		}
		require.Eventually(t, l.view.current, time.Minute, time.Millisecond)
		require.Nil(t, fo.Next())
	}
	mustStart(t, writer, "after", Request{})
	assert.Equal(t, []string{"start after 1/2"}, take(t, fo, 1))
}

// A record that is written anew for the same stream is nothing that happens; a key
// that is none of ours is no stream.
func TestFeed_WhatIsNoEvent(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	f, l := feedOf(t, c, prefix)
	fo := follow(t, f, "", "")
	st := mustStart(t, l, "maya", Request{}).Stream
	assert.Equal(t, []string{"start maya 1/2"}, take(t, fo, 1))
	key, lease := l.keys.slot("maya", 0), clientv3.WithLease(clientv3.LeaseID(leaseOfID(t, l, st).lease))
	now, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	_, err = c.Put(t.Context(), key, string(now.Kvs[0].Value), lease)
	require.NoError(t, err)
	_, err = c.Put(t.Context(), l.keys.user("maya")+"junk", "junk")
	require.NoError(t, err)
	_, err = c.Delete(t.Context(), l.keys.user("maya")+"junk")
	require.NoError(t, err)
	mustStart(t, l, "ben", Request{})
	assert.Equal(t, []string{"start ben 1/2"}, take(t, fo, 1))

	// Another stream in its place, and nobody says why: it had lapsed.
	_, err = c.Put(t.Context(), key, string(recordValue(nonce{9}, "")), lease)
	require.NoError(t, err)
	assert.Equal(t, []string{"expiry maya 0/2", "start maya 1/2"}, take(t, fo, 2))
}

// Two shards in one feed: each has its own place in the cursor, one that goes away
// leaves the other as it is, and one that comes is a gap for those who did not know
// it.
func TestFeed_ShardsComeAndGo(t *testing.T) {
	c := etcdtest.Client(t)
	f, here := NewFeed(), NewFeed()
	prefixes := map[string]string{"a": etcdtest.Prefix(t) + "a", "b": etcdtest.Prefix(t) + "b"}
	run := func(t *testing.T, f *Feed, name string) *Limiter {
		t.Helper()
		return newLimiter(t, c, Config{Prefix: prefixes[name], Limit: 2, Feed: f, Shard: name})
	}
	a := run(t, f, "a")
	run(t, here, "a")
	run(t, here, "b")
	fo := follow(t, f, "", "")
	onlyA := fo.Cursor()
	t.Run("both", func(t *testing.T) {
		b := run(t, f, "b")
		assert.Equal(t, []string{"gap the node has read all streams anew"}, take(t, fo, 1))
		mustStart(t, a, "ann", Request{})
		take(t, fo, 1)
		mustStart(t, b, "bob", Request{})
		assert.Equal(t, []string{"start bob 1/2"}, take(t, fo, 1))
		both, _, _ := strings.Cut(fo.Cursor(), "~")
		assert.Regexp(t, `^a:[0-9]+(\.\d+)?,b:[0-9]+$`, both)
		mustStart(t, a, "amy", Request{})
		other := follow(t, here, both, "")
		assert.Equal(t, []string{"start amy 1/2"}, take(t, other, 1))
		require.Nil(t, other.Next())
		bare, _, _ := strings.Cut(onlyA, "~")
		assert.Contains(t, take(t, follow(t, here, bare, ""), 1)[0], "gap ")
		take(t, fo, 1)
	})
	assert.Regexp(t, `^a:[0-9]+~`, fo.Cursor(), "b is gone")
	mustStart(t, a, "art", Request{})
	assert.Equal(t, []string{"start art 1/2"}, take(t, fo, 1))
	mustStart(t, a, "alf", Request{})
	assert.Equal(t, []string{"start alf 1/2"}, take(t, follow(t, f, fo.Cursor(), ""), 1))
}

func TestFollower_WaitEndsWithItsContext(t *testing.T) {
	fo := follow(t, NewFeed(), "", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	assert.ErrorIs(t, fo.Wait(ctx), context.Canceled)
	assert.Equal(t, "0~", fo.Cursor()[:2])
}
