package etcdtest

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/freeport"
)

// A Cluster is several etcd servers that form one cluster. Its methods are
// not for concurrent use with each other.
type Cluster struct {
	Members []*Member
}

// StartCluster runs a cluster of n members for this test and waits until all
// serve. Elections take about half a second.
func StartCluster(tb testing.TB, n int) *Cluster {
	tb.Helper()
	return StartClusterOf(tb, make([]Config, n)...)
}

// StartClusterOf is StartCluster with a configuration for each member. Dir is
// not used.
func StartClusterOf(tb testing.TB, members ...Config) *Cluster {
	tb.Helper()
	dirs := make([]string, len(members))
	for i := range dirs {
		dirs[i] = tb.TempDir()
	}
	c := &Cluster{}
	tb.Cleanup(c.stopAll)
	for try := 1; ; try++ {
		err := c.start(members, dirs)
		if err == nil {
			break
		}
		// The peer ports were chosen before they could be bound.
		if !errors.Is(err, syscall.EADDRINUSE) || try == 5 {
			require.NoError(tb, err, "start etcd cluster")
		}
		for i := range dirs {
			dirs[i] = tb.TempDir()
		}
	}
	c.Leader(tb)
	return c
}

// Client returns a new client of the members with the given indexes, or of all members if
// none is given. It is closed when the test ends.
func (c *Cluster) Client(tb testing.TB, members ...int) *clientv3.Client {
	tb.Helper()
	return FaultyClient(tb, c.Endpoints(members...), nil)
}

// Endpoints returns the client addresses of the members with the given indexes, or of all
// members if none is given.
func (c *Cluster) Endpoints(members ...int) []string {
	var eps []string
	for _, i := range members {
		eps = append(eps, c.Members[i].Endpoint())
	}
	if len(members) > 0 {
		return eps
	}
	for _, m := range c.Members {
		eps = append(eps, m.Endpoint())
	}
	return eps
}

// Leader waits until all running members agree on a leader and returns its
// index.
func (c *Cluster) Leader(tb testing.TB) int {
	tb.Helper()
	leader := -1
	require.Eventually(tb, func() bool {
		leader = c.leader()
		return leader >= 0
	}, startTimeout, 5*time.Millisecond, "no leader that all members agree on")
	return leader
}

// MoveLeader makes the member with index to the leader, and waits until all running members
// follow it. It repeats a transfer that fails, as on a slow machine.
func (c *Cluster) MoveLeader(tb testing.TB, to int) {
	tb.Helper()
	require.Eventually(tb, func() bool {
		switch leader := c.leader(); leader {
		case to:
			return true
		case -1:
			return false
		default:
			from := c.Members[leader].embed.Server
			err := from.MoveLeader(tb.Context(), uint64(from.MemberID()), uint64(c.Members[to].embed.Server.MemberID()))
			if err != nil {
				tb.Logf("move the leadership from member %d to member %d: %v", leader, to, err)
			}
			return c.leader() == to
		}
	}, startTimeout, 5*time.Millisecond, "member %d does not lead", to)
}

// AddLearner starts one more member, which has no vote, and waits until it serves. Members
// does not contain it.
func (c *Cluster) AddLearner(tb testing.TB) *Member {
	tb.Helper()
	port, err := freeport.Find()
	require.NoError(tb, err)
	first := c.Members[0]
	m := &Member{
		cfg: Config{Dir: tb.TempDir(), TickMs: first.cfg.TickMs}.withDefaults(), name: "learner", joins: true,
		peerURL: url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)},
	}
	m.peerVia = m.peerURL
	m.peers = first.peers + "," + m.name + "=" + m.peerURL.String()
	_, err = c.Client(tb).MemberAddAsLearner(tb.Context(), []string{m.peerURL.String()})
	require.NoError(tb, err, "add a learner")
	tb.Cleanup(m.Stop)
	require.NoError(tb, m.start(), "start the learner")
	return m
}

// Stop stops member i.
func (c *Cluster) Stop(i int) { c.Members[i].Stop() }

// Restart stops the members with the given indexes, starts them together and waits until they
// serve. That needs a quorum.
func (c *Cluster) Restart(tb testing.TB, members ...int) {
	tb.Helper()
	for _, i := range members {
		c.Members[i].Stop()
	}
	for _, i := range members {
		require.NoError(tb, c.Members[i].launch(), "restart etcd member %d", i)
	}
	for _, i := range members {
		require.NoError(tb, c.Members[i].awaitReady(), "restart etcd member %d", i)
	}
}

// leader returns -1 while the running members disagree.
func (c *Cluster) leader() int {
	leader, found := -1, uint64(0)
	for _, m := range c.Members {
		if m.embed == nil {
			continue
		}
		id := uint64(m.embed.Server.Leader())
		if id == 0 || (found != 0 && id != found) {
			return -1
		}
		found = id
	}
	for i, m := range c.Members {
		if m.embed != nil && uint64(m.embed.Server.MemberID()) == found {
			leader = i
		}
	}
	return leader
}

func (c *Cluster) start(members []Config, dirs []string) error {
	c.Members = nil
	var peers []string
	for i, cfg := range members {
		port, err := freeport.Find()
		if err != nil {
			return err
		}
		cfg.Dir, cfg.TickMs = dirs[i], cmp.Or(cfg.TickMs, 30)
		m := &Member{
			cfg:     cfg.withDefaults(),
			name:    fmt.Sprintf("m%d", i),
			peerURL: url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)},
		}
		m.peerVia = m.peerURL
		if cfg.peersVia != nil {
			m.peerVia = cfg.peersVia(m.peerURL)
		}
		peers = append(peers, m.name+"="+m.peerVia.String())
		c.Members = append(c.Members, m)
	}
	for _, m := range c.Members {
		m.peers = strings.Join(peers, ",")
		if err := m.launch(); err != nil {
			c.stopAll()
			return err
		}
	}
	for _, m := range c.Members {
		if err := m.awaitReady(); err != nil {
			c.stopAll()
			return err
		}
	}
	return nil
}

func (c *Cluster) stopAll() {
	for _, m := range c.Members {
		m.Stop()
	}
}
