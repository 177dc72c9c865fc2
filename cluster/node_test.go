package cluster

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/testlog"
)

func TestRegistration_ComesAndGoes(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	a := Node{ID: "a", Region: "eu", Address: "10.0.0.1:8080", Version: "1.0", StartedAt: time.Now().UTC()}
	b := Node{ID: "b", StartedAt: time.Now().UTC(), Supports: []string{"limits"}}
	put(t, c, prefix+"/nodes/c", "of a later version")
	stopB := register(t, c, prefix, b)
	stopA := register(t, c, prefix, a)
	eventuallyNodes(t, c, prefix, "a", "b", "c")
	nodes, err := Nodes(t.Context(), c, prefix)
	require.NoError(t, err)
	assert.Equal(t, []Node{a, b, {ID: "c"}}, nodes)

	resp, err := c.Get(t.Context(), prefix+"/nodes/a")
	require.NoError(t, err)
	ttl, err := c.TimeToLive(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
	require.NoError(t, err)
	assert.EqualValues(t, 15, ttl.GrantedTTL, "a node that dies is listed for no longer")

	stopA()
	nodes, err = Nodes(t.Context(), c, prefix)
	require.NoError(t, err)
	assert.Len(t, nodes, 2, "off the list when Run returns")
	stopB()
}

func TestRegistration_AgainAfterItsLeaseOrKeyIsLost(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	register(t, c, prefix, Node{ID: "a"})
	eventuallyNodes(t, c, prefix, "a")
	for _, lose := range []func(lease clientv3.LeaseID) error{
		func(lease clientv3.LeaseID) error { _, err := c.Revoke(t.Context(), lease); return err },
		func(clientv3.LeaseID) error { _, err := c.Delete(t.Context(), prefix+"/nodes/a"); return err },
	} {
		before, err := c.Get(t.Context(), prefix+"/nodes/a")
		require.NoError(t, err)
		require.NoError(t, lose(clientv3.LeaseID(before.Kvs[0].Lease)))
		require.Eventually(t, func() bool {
			now, err := c.Get(t.Context(), prefix+"/nodes/a")
			return err == nil && len(now.Kvs) == 1 &&
				now.Kvs[0].CreateRevision > before.Kvs[0].CreateRevision && now.Kvs[0].Lease != 0
		}, time.Minute, time.Millisecond)
	}
}

func TestRegistration_SurvivesEtcd(t *testing.T) {
	t.Parallel()
	for name, forget := range map[string]bool{"restarted": false, "restarted-without-its-data": true} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := etcdtest.Start(t, etcdtest.Config{Dir: dir})
			c := m.Client(t)
			log := &testlog.Buffer{}
			r := NewRegistration(c, "/p", Node{ID: "a"}, slog.New(slog.NewTextHandler(log, nil)))
			r.every = 20 * time.Millisecond
			runs(t, r)
			eventuallyNodes(t, c, "/p", "a")

			m.Stop()
			require.Eventually(t, func() bool { return strings.Contains(log.String(), "retrying") },
				time.Minute, time.Millisecond)
			if forget {
				require.NoError(t, os.RemoveAll(dir))
			}
			m.Restart(t)
			require.Eventually(t, func() bool { return strings.Contains(log.String(), "registered again") },
				time.Minute, time.Millisecond)
			eventuallyNodes(t, c, "/p", "a")
			assert.Equal(t, 1, strings.Count(log.String(), "retrying"), log)
			assert.Equal(t, 1, strings.Count(log.String(), "registered again"), log)
		})
	}
}

func TestRegistration_LostMessages(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*etcdtest.Faults){
		"grant-request":      func(f *etcdtest.Faults) { f.CutRequest(etcdtest.Grant, 1) },
		"grant-reply":        func(f *etcdtest.Faults) { f.CutReply(etcdtest.Grant, 1) },
		"put-request":        func(f *etcdtest.Faults) { f.CutRequest(etcdtest.Put, 1) },
		"put-reply":          func(f *etcdtest.Faults) { f.CutReply(etcdtest.Put, 1) },
		"keep-alive-request": func(f *etcdtest.Faults) { f.CutRequest(etcdtest.KeepAlive, 1) },
		"keep-alive-reply":   func(f *etcdtest.Faults) { f.CutReply(etcdtest.KeepAlive, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			var f etcdtest.Faults
			prefix := etcdtest.Prefix(t)
			cut(&f)
			register(t, etcdtest.FaultyClient(t, etcdtest.Endpoints(t), &f), prefix, Node{ID: "a"})
			require.Eventually(t, func() bool { return f.Calls(etcdtest.KeepAlive) >= 3 },
				time.Minute, time.Millisecond)
			eventuallyNodes(t, etcdtest.Client(t), prefix, "a")
		})
	}
}

func TestRegistration_LeavesInTimeWithoutEtcd(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	stop := register(t, c, "/p", Node{ID: "a"})
	eventuallyNodes(t, c, "/p", "a")
	m.Stop()
	began := time.Now()
	stop()
	assert.Less(t, time.Since(began), soon)
}

func TestRegistration_WarnsOfAnIDUsedTwice(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	log := &testlog.Buffer{}
	r := NewRegistration(c, prefix, Node{ID: "a"}, slog.New(slog.NewTextHandler(log, nil)))
	r.every = 10 * time.Millisecond
	runs(t, r)
	eventuallyNodes(t, c, prefix, "a")
	register(t, c, prefix, Node{ID: "a", Region: "other"})
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "another process") },
		time.Minute, time.Millisecond)
}

// register runs a registration that renews quickly, until stop or the end of
// the test.
func register(t *testing.T, c *clientv3.Client, prefix string, n Node) (stop func()) {
	t.Helper()
	r := NewRegistration(c, prefix, n, nil)
	r.every = 20 * time.Millisecond
	return runs(t, r)
}

func runs(t *testing.T, r *Registration) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // t.Context ends before Cleanup
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	t.Cleanup(stop)
	return stop
}

func eventuallyNodes(t *testing.T, c *clientv3.Client, prefix string, ids ...string) {
	t.Helper()
	require.Eventually(t, func() bool {
		nodes, err := Nodes(t.Context(), c, prefix)
		if err != nil || len(nodes) != len(ids) {
			return false
		}
		for i, n := range nodes {
			if n.ID != ids[i] {
				return false
			}
		}
		return true
	}, time.Minute, time.Millisecond, "nodes %v", ids)
}
