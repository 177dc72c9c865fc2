package containers

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestCompose_BrokenUnderLoad injects one fault after the other into the deployment of
// docker-compose.yml, while clients start, keep and stop streams. No user may exceed the limit,
// no stream may be lost, and a start may fail only while etcd has no leader or accepts no writes.
func TestCompose_BrokenUnderLoad(t *testing.T) {
	need(t, "haproxy", "prometheus")
	d := up(t)
	var endpoints, urls []string
	for _, service := range etcds {
		d.awaitReady(service)
		endpoints = append(endpoints, d.url(service))
	}
	for _, service := range nodes {
		d.awaitReady(service)
		urls = append(urls, d.url(service))
	}
	d.awaitReady("lb")
	d.awaitReady("prometheus")
	etcd, err := clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second})
	require.NoError(t, err)
	defer func() { assert.NoError(t, etcd.Close()) }()
	begin, err := etcd.Get(t.Context(), "x")
	require.NoError(t, err)

	c := newViewers(t, append(urls, d.url("lb"), d.url("lb"), d.url("lb"))...)
	load, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	defer clients.Wait()
	defer stop()
	for range starterCount {
		clients.Go(func() { c.starter(load) })
	}
	for i := range keeperCount {
		clients.Go(func() { c.keeper(load, fmt.Sprint("keeper-", i)) })
	}
	store := watchStore(t, etcd)
	wait(t.Context(), 3*time.Second)
	for _, f := range faults(d, etcd) {
		breakOnce(t, f, c, store)
	}
	stop()
	clients.Wait()
	assert.Empty(t, c.ends, "streams were lost")
	maxStreams, revisions, who := replayHistory(t, etcd, begin.Header.Revision+1)
	t.Logf("%d revisions, at most %d streams of one user (%s)", revisions, maxStreams, who)
	assert.Equal(t, limit, maxStreams, "users reached their limit, and did not exceed it")

	d.awaitTargets(append(append([]string{"lb"}, etcds...), nodes...)...)
	for _, region := range []string{"eu", "us", "ap"} {
		assert.Contains(t, d.query("streamcount_node_info"), `"region":"`+region+`"`)
		assert.Contains(t, d.query("streamcount_region_streams"), `"region":"`+region+`"`)
	}
	assert.Contains(t, d.query("streamcount_memory_budget_bytes"), `"536870912"`, "mem_limit of docker-compose.yml")
}

// breakOnce injects a fault. Starts may fail only while etcd accepts no writes. The time
// without an answered start may exceed that of the fault only by as much as the time in which
// etcd accepted no writes, because a member may also stall on a busy machine.
func breakOnce(t *testing.T, f fault, c *viewers, etcd *store) {
	t.Helper()
	c.reset()
	began := time.Now()
	f.run()
	wait(t.Context(), 2*time.Second)
	got := c.reset()
	unavailable := etcd.longestGap(began, time.Now())
	t.Logf("| %s | %.0f s | %d | %d | %v | %d | %.2f s | etcd itself %.2f s |", f.name, time.Since(began).Seconds(),
		got.admitted, got.refused, got.failed, got.unanswered, got.longest.Seconds(), unavailable.Seconds())
	for _, fail := range got.failures {
		if !etcd.unavailableBefore(fail.at) {
			t.Errorf("%s: a start failed at %s, when etcd accepted writes: %s", f.name, fail.at.Format("05.000"), fail.why)
		}
	}
	assert.Less(t, got.longest, max(f.gap, brief+unavailable), "%s: time without an answered start", f.name)
}

// The maximum times without an answered start: while etcd has a leader, and with an election.
const brief, election = 2 * time.Second, 6 * time.Second

// A fault is a kind of failure of a deployment. run injects and ends it.
type fault struct {
	name string
	run  func()
	gap  time.Duration // maximum time without an answered start
}

func faults(d *deployment, etcd *clientv3.Client) []fault {
	ctx := d.t.Context()
	during := func(begin, end func(service string), which func() string, length time.Duration) func() {
		return func() {
			service := which()
			begin(service)
			wait(ctx, length)
			end(service)
			d.awaitReady(service)
		}
	}
	leader := func() string { l, _ := d.roles(etcd); return l }
	follower := func() string { _, f := d.roles(etcd); return f }
	kill := func(s string) { d.do(s, "kill") }
	begin := func(s string) { d.do(s, "start") }
	pause := func(s string) { d.do(s, "pause") }
	resume := func(s string) { d.do(s, "unpause") }
	return []fault{
		{"nothing", func() { wait(ctx, 3*time.Second) }, brief},
		{"node killed", during(kill, begin, func() string { return "node-us" }, 5*time.Second), brief},
		{"etcd follower killed", during(kill, begin, follower, 5*time.Second), brief},
		{"etcd leader killed", during(kill, begin, leader, 5*time.Second), election},
		{"etcd leader paused", during(pause, resume, leader, 8*time.Second), election},
		{"etcd leader cut off", during(d.cut, d.join, leader, 8*time.Second), election},
		{"etcd follower paused", during(pause, resume, follower, 5*time.Second), election},
		{"rolling restart of everything", func() {
			for _, service := range append(append([]string{}, etcds...), nodes...) {
				d.do(service, "restart", "--time", "20")
				d.awaitReady(service)
			}
		}, election},
	}
}
