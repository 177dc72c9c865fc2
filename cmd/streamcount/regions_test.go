package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/cluster"
	generate "streamcount/internal/bench/load"
	"streamcount/internal/etcdtest"
)

const (
	europe  = "eu"
	america = "us"
	asia    = "ap"
)

var everywhere = []string{europe, america, asia}

// regional is a node in a region, with its own links to etcd's members.
type regional struct {
	region string
	ways   []*etcdtest.Link // to each member
	near   []string         // the ends of those to members in its region, or nearest to it
	client *generate.Client // of the node
	conn   *generate.Conn   // to it
	puts   pb.KVClient      // over the same links to the same members

	rounds int
	took   timings
}

// serveIn runs a node in a region. Where none of the members is, those beside the
// first one, which leads, are near to it.
func serveIn(tb testing.TB, etcd *etcdtest.Regions, members []string, region string, args ...string) *regional {
	tb.Helper()
	n := &regional{region: region, ways: etcd.Ways(tb, region)}
	nearest := region
	if !slices.Contains(members, region) {
		nearest = members[0]
	}
	for i, way := range n.ways {
		if members[i] == nearest {
			n.near = append(n.near, way.URL())
		}
	}
	args = append(args, "--region="+region, "--node=node-"+region, "--log-level=error",
		"--etcd-endpoints="+strings.Join(n.endpoints(), ","), "--etcd-near="+strings.Join(n.near, ","))
	_, c := serve(tb, args...)
	client, err := generate.NewClient(c.server, 10*time.Second)
	require.NoError(tb, err)
	n.client, n.conn, n.took = client, client.Conn(tb.Context()), timings{}
	tb.Cleanup(n.conn.Close)
	direct, err := cluster.Dial(tb.Context(), cluster.ClientConfig{Endpoints: n.near})
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = direct.Close() }) // nothing of it is needed any more
	n.puts = clientv3.RetryKVClient(direct)
	return n
}

func (n *regional) endpoints() []string {
	var all []string
	for _, way := range n.ways {
		all = append(all, way.URL())
	}
	return all
}

// passed is how many bytes each of its links has passed.
func (n *regional) passed() []int64 {
	var all []int64
	for _, way := range n.ways {
		all = append(all, way.Bytes())
	}
	return all
}

// start starts a stream and returns its path.
func (n *regional) start(tb testing.TB, user string) string {
	tb.Helper()
	a, err := n.conn.Do("POST", []byte("/api/v1/streams/users/"+user+"/start"), []byte("{}"))
	require.NoError(tb, err)
	require.Equal(tb, 200, a.Status, "%s", a.Body)
	id, found := generate.Text(a.Body, `"id":`)
	require.True(tb, found, "%s", a.Body)
	return "/api/v1/streams/users/" + user + "/streams/" + string(id)
}

// do wants 200.
func (n *regional) do(tb testing.TB, method, path string) {
	tb.Helper()
	a, err := n.conn.Do(method, []byte(path), nil)
	require.NoError(tb, err)
	require.Equal(tb, 200, a.Status, "%s %s: %s", method, path, a.Body)
}

// A node's starts and stops go to the member of its own region, and its heartbeats to
// the leader, wherever that is: the bytes tell.
func TestRegions_WhereBytesGo(t *testing.T) {
	members := everywhere // the leader's, the node's, and the third
	etcd := etcdtest.StartRegions(t, etcdtest.Config{}, members...)
	etcd.MoveLeader(t, 0)
	n := serveIn(t, etcd, members, america, "--ttl=15s") // on a slow machine a round of heartbeats takes seconds
	started := 0
	starts := func() []string {
		var paths []string
		for range 300 {
			started++
			paths = append(paths, n.start(t, fmt.Sprint("viewer-", started)))
		}
		return paths
	}
	heartbeats := func(paths []string) {
		for _, path := range paths {
			n.do(t, "POST", path+"/heartbeat")
		}
	}
	// until sends heartbeats until one link has carried much, and returns what each has.
	until := func(paths []string, link int) []int64 {
		before := n.passed()
		during := make([]int64, len(before))
		for began := time.Now(); during[link] < 60_000; {
			require.Less(t, time.Since(began), time.Minute, "heartbeats go to member %d: %v", link, during)
			heartbeats(paths)
			for i, now := range n.passed() {
				during[i] = now - before[i]
			}
		}
		return during
	}

	before := n.passed()
	paths := starts()
	after := n.passed()
	lead, near, third := after[0]-before[0], after[1]-before[1], after[2]-before[2]
	t.Logf("300 starts: %d bytes to the leader, %d to the near member, %d to the third", lead, near, third)
	assert.Greater(t, near, 2*lead, "starts go to the near member")
	assert.Greater(t, near, 5*third)

	during := until(paths, 0)
	t.Logf("heartbeats: %d bytes to the leader, %d to the near member, %d to the third", during[0], during[1], during[2])
	assert.Greater(t, during[0], 2*during[1], "heartbeats go to the leader")
	assert.Greater(t, during[0], 2*during[2])

	etcd.MoveLeader(t, 2)
	during = until(paths, 2)
	t.Logf("the third leads: %d bytes to the first, %d to the near member, %d to the third", during[0], during[1], during[2])
	assert.Greater(t, during[2], 2*during[1], "heartbeats follow the leader")
}
