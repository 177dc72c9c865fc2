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

// The whole of docker-compose.yml is broken in one way after the other, while
// viewers start, keep and stop streams through all its parts. Nobody is ever over
// the limit, no stream is lost, and a start fails only while etcd has no leader or takes
// nobody's writes.
func TestCompose_BrokenUnderLoad(t *testing.T) {
	need(t)
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

	c := newCrowd(t, append(urls, d.url("lb"), d.url("lb"), d.url("lb"))...)
	load, stop := context.WithCancel(t.Context())
	var everybody sync.WaitGroup
	defer everybody.Wait()
	defer stop()
	for range starters {
		everybody.Go(func() { c.starter(load) })
	}
	for i := range keepers {
		everybody.Go(func() { c.keeper(load, fmt.Sprint("keeper-", i)) })
	}
	store := watchStore(t, etcd)
	wait(t.Context(), 3*time.Second)
	for _, f := range faults(d, etcd) {
		c.reset()
		began := time.Now()
		f.run()
		wait(t.Context(), 2*time.Second)
		got := c.reset()
		t.Logf("| %s | %.0f s | %d | %d | %v | %d | %.2f s | etcd itself %.2f s |", f.name, time.Since(began).Seconds(),
			got.admitted, got.refused, got.failed, got.unanswered, got.longest.Seconds(),
			store.still(began, time.Now()).Seconds())
		assert.Less(t, got.longest, f.gap, "%s: without an answered start", f.name)
		for _, fail := range got.failures {
			if !store.away(fail.at) {
				t.Errorf("%s: a start failed at %s, when etcd took others' writes: %s", f.name, fail.at.Format("05.000"), fail.why)
			}
		}
	}
	stop()
	everybody.Wait()
	assert.Empty(t, c.ends, "streams were lost")
	most, revisions, who := history(t, etcd, begin.Header.Revision+1)
	t.Logf("%d revisions, at most %d streams of one user (%s)", revisions, most, who)
	assert.Equal(t, limit, most, "users were at their limit, and never over it")

	d.awaitTargets(append(append([]string{"lb"}, etcds...), nodes...)...)
	for _, region := range []string{"eu", "us", "ap"} {
		assert.Contains(t, d.query("streamcount_node_info"), `"region":"`+region+`"`)
		assert.Contains(t, d.query("streamcount_region_streams"), `"region":"`+region+`"`)
	}
}

// A fault is one way to break a deployment, and to mend it.
type fault struct {
	name string
	run  func()
	gap  time.Duration // the longest without an answered start
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
	const brief, election = 2 * time.Second, 6 * time.Second
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
