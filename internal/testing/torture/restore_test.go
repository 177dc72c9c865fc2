//go:build linux

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

	"streamcount/internal/testing/longtest"
)

// TestRestore restores all of etcd from a snapshot, as docs/operations.md describes, while
// the nodes run. The nodes recover without an operator. The limits are those of the snapshot,
// its streams continue unless a node had recorded their end, and a round after it finds
// nothing.
func TestRestore(t *testing.T) {
	longtest.Require(t)
	binary, err := build()
	require.NoError(t, err)
	logs := artifactDir(t)
	c := newEtcd(t, 0, true, logs)
	w := newTestbed(t, c, testbedConfig{
		logs: logs, node: nodeConfig{binary: binary, prefix: "/restored", ttl: 10 * time.Minute, limit: 2},
	})
	defer w.stop()
	calls := newCaller(w.nodes, &history{})
	defer calls.close()
	for _, h := range calls.http {
		h.Timeout = time.Minute
	}
	maya := &userClients{user: "maya", caller: calls, heartbeating: map[int]bool{}}
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
	maya.stop(maya.known[1], 0, 0) // its lease is then idle on node0
	lost := start(1)
	require.Equal(t, 200, lost.Status)
	restored, missing := maya.known[0], maya.known[1]
	require.Equal(t, []int{kept.N, lost.N}, []int{restored.op, missing.op})

	c.restore(t, backup)
	require.NoError(t, w.heal(t.Context()))
	for i := range w.nodes {
		assert.Eventually(t, func() bool { return maya.heartbeat(missing, i, 0).Status == 410 }, patience, 100*time.Millisecond,
			"node%d: the stream that began after the snapshot does not exist", i)
		assert.Eventually(t, func() bool { return maya.heartbeat(restored, i, 0).Status == 200 }, patience, 100*time.Millisecond, "node%d: the stream in the snapshot continues", i)
	}
	assert.Eventually(t, func() bool {
		list := &op{Kind: kindList, User: maya.user}
		calls.do(t.Context(), list, request{http.MethodGet, maya.path() + "?consistency=linearizable", "", 0})
		return slices.Equal(list.Active, []int{kept.N})
	}, patience, 100*time.Millisecond, "the stream that was stopped after the snapshot is removed, long before its TTL")
	for node, want := range []int{200, 200, 403} {
		o := start(node)
		assert.Equal(t, want, o.Status, "the limit of the snapshot is 3: %v", o)
	}
	remove := &op{Kind: kindRemove, User: maya.user}
	calls.do(t.Context(), remove, request{http.MethodDelete, maya.path(), "", 0})
	require.Equal(t, 200, remove.Status)

	require.NoError(t, w.watchAgain(t.Context()))
	r := round{
		name: "after-restore", seed: rand.Uint64(), load: 4 * time.Second, busy: 6, quiet: 4, checkService: true, skipDrain: true,
		behavior: behavior{players: 3, think: 80 * time.Millisecond, heartbeatInterval: 1200 * time.Millisecond, sessions: 2},
	}
	checked, found := w.playRound(t, r)
	assert.Empty(t, checked.stall.judge(t, found))
}

// backup saves a snapshot of etcd.
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

// restore replaces the data of all members by the snapshot.
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
			PeerURLs: []string{"http://" + m.cfg.Advertised}, InitialCluster: m.cfg.Cluster,
			InitialClusterToken: "etcd-cluster", RevisionBump: 1_000_000_000, MarkCompacted: true,
		})
		require.NoError(t, err)
	}
	for _, m := range c.members {
		require.NoError(t, m.start())
	}
}

// watchAgain starts a new watcher at the present revision. There must be no stream.
func (w *testbed) watchAgain(ctx context.Context) error {
	w.unwatch()
	left, err := w.etcd.all.Get(ctx, w.cfg.node.prefix+"/none")
	if err != nil {
		return err
	}
	w.watch(left.Header.Revision)
	return nil
}
