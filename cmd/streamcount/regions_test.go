package main

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/api/apitype"
	"streamcount/cluster"
	generate "streamcount/internal/bench/load"
	"streamcount/internal/testing/etcdtest"
)

const (
	europe  = "eu"
	america = "us"
	asia    = "ap"
)

var everywhere = []string{europe, america, asia}

// regionalNode is a node in a region, with separate links to the members of etcd.
type regionalNode struct {
	region string
	links  []*etcdtest.Link // to each member
	near   []string         // addresses of the links to the nearest members
	client *generate.Client // of the node
	conn   *generate.Conn   // to it
	puts   pb.KVClient      // over the same links to the same members

	rounds int
	took   timings
}

// serveIn runs a node in a region. If no member is in the region, all members except the
// first one, which is the leader, are near.
func serveIn(tb testing.TB, etcd *etcdtest.Regions, members []string, region string, args ...string) *regionalNode {
	tb.Helper()
	n := &regionalNode{region: region, links: etcd.Links(tb, region)}
	nearest := region
	if !slices.Contains(members, region) {
		nearest = members[0]
	}
	for i, link := range n.links {
		if members[i] == nearest {
			n.near = append(n.near, link.URL())
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
	tb.Cleanup(func() { _ = direct.Close() }) // its error does not matter
	n.puts = clientv3.RetryKVClient(direct)
	return n
}

func (n *regionalNode) endpoints() []string {
	var all []string
	for _, link := range n.links {
		all = append(all, link.URL())
	}
	return all
}

// passed returns the number of bytes that each link has transferred.
func (n *regionalNode) passed() []int64 {
	var all []int64
	for _, link := range n.links {
		all = append(all, link.Bytes())
	}
	return all
}

// start starts a stream and returns its path.
func (n *regionalNode) start(tb testing.TB, user string) string {
	tb.Helper()
	var a generate.Answer
	for began := time.Now(); ; {
		var err error
		a, err = n.conn.Do("POST", []byte("/api/v1/streams/users/"+user+"/start"), []byte(`{"session":"a"}`))
		require.NoError(tb, err)
		if a.Status != 503 { // otherwise etcd did not answer in time
			break
		}
		require.Less(tb, time.Since(began), time.Minute, "%s", a.Body)
	}
	require.Equal(tb, 200, a.Status, "%s", a.Body)
	id, found := generate.Text(a.Body, `"id":`)
	require.True(tb, found, "%s", a.Body)
	return "/api/v1/streams/users/" + user + "/streams/" + string(id)
}

// do sends a request and requires status 200.
func (n *regionalNode) do(tb testing.TB, method, path string) {
	tb.Helper()
	a, err := n.conn.Do(method, []byte(path), nil)
	require.NoError(tb, err)
	require.Equal(tb, 200, a.Status, "%s %s: %s", method, path, a.Body)
}

// Starts and stops of a node go to the member in its region, and heartbeats to the leader,
// which the test determines by the bytes on the links.
func TestRegions_Traffic(t *testing.T) {
	t.Parallel()
	members := everywhere // the leader's, the node's, and the third
	etcd := etcdtest.StartRegions(t, etcdtest.Config{}, members...)
	etcd.MoveLeader(t, 0)
	n := serveIn(t, etcd, members, america, "--ttl=1m")
	var streams apitype.Heartbeats
	// heartbeats sends one heartbeat for each stream. Only those of streams that were renewed a
	// quarter of a TTL ago renew.
	heartbeats := func() {
		body, err := json.Marshal(streams)
		require.NoError(t, err)
		a, err := n.conn.Do("POST", []byte("/api/v1/streams/heartbeats"), body)
		require.NoError(t, err)
		require.Equal(t, 200, a.Status, "%s", a.Body)
		var result apitype.HeartbeatsResult
		require.NoError(t, json.Unmarshal(a.Body, &result))
		require.Equal(t, len(streams.Heartbeats), result.Alive, "%s", a.Body)
	}
	starts := func() {
		for i := range 300 {
			user := fmt.Sprint("viewer-", i)
			streams.Heartbeats = append(streams.Heartbeats, apitype.Heartbeat{UserID: user, StreamID: path.Base(n.start(t, user))})
			if i%50 == 49 {
				heartbeats()
			}
		}
	}
	// until makes a member the leader, sends heartbeats until its link has transferred much
	// meanwhile, and returns the bytes of each link. Between the heartbeats, the node's background
	// work uses the near member. On a slow machine the leader may change.
	until := func(lead int) []int64 {
		during := make([]int64, len(members))
		for began := time.Now(); during[lead] < 20_000; <-time.After(50 * time.Millisecond) {
			require.Less(t, time.Since(began), 3*time.Minute, "heartbeats go to member %d: %v", lead, during)
			if etcd.Leader(t) != lead {
				etcd.MoveLeader(t, lead)
				clear(during)
			}
			before := n.passed()
			heartbeats()
			for i, now := range n.passed() {
				during[i] += now - before[i]
			}
		}
		return during
	}

	before := n.passed()
	starts()
	after := n.passed()
	lead, near, third := after[0]-before[0], after[1]-before[1], after[2]-before[2]
	t.Logf("300 starts: %d bytes to the leader, %d to the near member, %d to the third", lead, near, third)
	assert.Greater(t, near, 2*lead, "starts go to the near member")
	assert.Greater(t, near, third)

	during := until(0)
	t.Logf("heartbeats: %d bytes to the leader, %d to the near member, %d to the third", during[0], during[1], during[2])
	assert.Greater(t, during[0], during[1], "heartbeats go to the leader")
	assert.Greater(t, during[0], during[2])

	during = until(2)
	t.Logf("the third leads: %d bytes to the first, %d to the near member, %d to the third", during[0], during[1], during[2])
	assert.Greater(t, during[2], during[1], "heartbeats follow the leader")
}
