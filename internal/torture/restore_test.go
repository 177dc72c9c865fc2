package torture

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/etcdutl/v3/snapshot"
	"go.uber.org/zap"
)

// All of etcd is lost and restored from a snapshot, as docs/operations.md says,
// while the nodes run on: they find their way back without hands, the limits of the
// snapshot hold, streams of it go on unless the nodes had seen them end, and from
// then on everything is as it should be.
func TestRestore(t *testing.T) {
	need(t)
	binary, err := build()
	require.NoError(t, err)
	logs := artifactDir(t)
	c := newEtcd(t, 0, true, logs)
	w := newWorld(t, c, worldConfig{
		logs: logs, node: nodeConfig{binary: binary, prefix: "/restored", ttl: time.Minute, limit: 2},
	})
	defer w.stop()
	calls := newCaller(w.nodes, &history{})
	defer calls.close()
	maya := &crowd{user: "maya", caller: calls, kept: map[int]bool{}}
	setLimit := func(n int) {
		o := &op{Kind: kindLimit, User: maya.user, Limit: n}
		calls.do(t.Context(), o, request{http.MethodPut, "/limits/users/maya", fmt.Sprintf(`{"limit":%d}`, n), 0})
		require.Equal(t, 200, o.Status)
	}
	start := func(node int) *op {
		o := &op{User: maya.user, Node: node}
		maya.start(o, nil, false, 0)
		return o
	}
	setLimit(3)
	kept, stopped := start(0), start(0)
	require.Equal(t, []int{200, 200}, []int{kept.Status, stopped.Status})
	backup := c.backup(t)
	setLimit(2)
	maya.stop(maya.known[1], 0, 0) // whose lease then waits in node0
	lost := start(1)
	require.Equal(t, 200, lost.Status)
	living, gone := maya.known[0], maya.known[1]
	require.Equal(t, []int{kept.N, lost.N}, []int{living.op, gone.op})

	c.restore(t, backup)
	require.NoError(t, w.heal(t.Context()))
	for i := range w.nodes {
		assert.Eventually(t, func() bool { return maya.beat(gone, i, 0).Status == 410 }, 10*time.Second, 100*time.Millisecond,
			"node%d: the stream that began after the snapshot is gone", i)
		assert.Equal(t, 200, maya.beat(living, i, 0).Status, "node%d: who went on watching has his stream", i)
	}
	assert.Eventually(t, func() bool {
		list := &op{Kind: kindList, User: maya.user}
		calls.do(t.Context(), list, request{http.MethodGet, maya.path() + "?consistency=linearizable", "", 0})
		return slices.Equal(list.Active, []int{kept.N})
	}, 30*time.Second, 100*time.Millisecond, "the stream that was stopped after the snapshot goes again, long before its TTL")
	for node, want := range []int{200, 200, 403} {
		o := start(node)
		assert.Equal(t, want, o.Status, "the limit of the snapshot is 3: %v", o)
	}
	remove := &op{Kind: kindRemove, User: maya.user}
	calls.do(t.Context(), remove, request{http.MethodDelete, maya.path(), "", 0})
	require.Equal(t, 200, remove.Status)

	require.NoError(t, w.watchAgain(t.Context()))
	r := round{
		name: "afterwards", seed: rand.Uint64(), load: 4 * time.Second, busy: 6, quiet: 4, demand: true, brief: true,
		style: style{players: 3, think: 80 * time.Millisecond, beats: 1200 * time.Millisecond, sessions: 2},
	}
	_, found := w.play(t, r)
	assert.Empty(t, found)
}

// backup saves what etcd holds.
func (c *cluster) backup(t *testing.T) (path string) {
	t.Helper()
	from, err := c.clients[0].Snapshot(t.Context())
	require.NoError(t, err)
	defer from.Close()
	path = filepath.Join(c.dir, "backup.db")
	to, err := os.Create(path)
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
	return path
}

// restore replaces all members by ones that hold what was saved, and nothing else.
func (c *cluster) restore(t *testing.T, backup string) {
	t.Helper()
	for _, m := range c.members {
		m.kill()
	}
	for _, m := range c.members {
		require.NoError(t, os.RemoveAll(m.cfg.Dir))
		require.NoError(t, os.MkdirAll(m.cfg.Dir, 0o700))
		err := snapshot.NewV3(zap.NewNop()).Restore(snapshot.RestoreConfig{
			SnapshotPath: backup, Name: m.cfg.Name, OutputDataDir: filepath.Join(m.cfg.Dir, "data"),
			PeerURLs: []string{"http://" + m.cfg.Reached}, InitialCluster: m.cfg.Cluster,
			InitialClusterToken: "etcd-cluster", RevisionBump: 1_000_000_000, MarkCompacted: true,
		})
		require.NoError(t, err)
	}
	for _, m := range c.members {
		require.NoError(t, m.start())
	}
}

// watchAgain begins a new book at the present revision. Nothing may be there.
func (w *world) watchAgain(ctx context.Context) error {
	w.unwatch()
	left, err := w.etcd.all.Get(ctx, w.cfg.node.prefix+"/none")
	if err != nil {
		return err
	}
	w.watch(left.Header.Revision)
	return nil
}
