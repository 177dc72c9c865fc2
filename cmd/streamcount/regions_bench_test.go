package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/cluster"
	"streamcount/internal/etcdtest"
)

// placements are where etcd's members stand. The first one leads.
var placements = []struct {
	name    string
	members []string
}{
	{"one_in_each", []string{europe, america, asia}},
	{"two_and_one_led_from_the_two", []string{europe, europe, america}},
	{"two_and_one_led_from_the_one", []string{america, europe, europe}},
	{"all_in_one", []string{europe, europe, europe}},
}

// BenchmarkRegions has three members and a node in each of three regions, between
// which everything takes a round trip of 40 or 120 ms, also what members say to each
// other. It prints the medians of a start, a stop, a heartbeat that renews and a list
// of a user's streams, over HTTP from the node's own region, beside that of a put from
// there to the members that the node uses.
//
//	go test -run xxx -bench Regions/.*/RTT=40 -benchtime 20x ./cmd/streamcount
func BenchmarkRegions(b *testing.B) {
	for _, placement := range placements {
		for _, roundTrip := range []time.Duration{40 * time.Millisecond, 120 * time.Millisecond} {
			b.Run(fmt.Sprintf("%s/RTT=%d", placement.name, roundTrip.Milliseconds()), func(b *testing.B) {
				placed(b, placement.members, roundTrip)
			})
		}
	}
}

const regionalTTL = 12 * time.Second

func placed(b *testing.B, members []string, roundTrip time.Duration) {
	b.Helper()
	// With timeouts that suit the longer way, so that the leader stays.
	etcd := etcdtest.StartRegions(b, etcdtest.Config{TickMs: 150, ElectionMs: 1500}, members...)
	etcd.MoveLeader(b, 0)
	var nodes []*regional
	for _, region := range everywhere {
		nodes = append(nodes, serveIn(b, etcd, members, region, fmt.Sprint("--ttl=", regionalTTL)))
	}
	etcd.RoundTrip(roundTrip)
	took := make([]timings, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() { took[i] = n.measure(b, b.N) })
	}
	all.Wait()
	require.Zero(b, etcd.Leader(b), "the leader has stayed")
	b.ReportMetric(0, "ns/op")
	b.Logf("leader in %s, members in %s, %s", members[0], strings.Join(members, ", "), roundTrip)
	b.Log("| node in | put | start | start / put | stop | heartbeat | list |")
	for i, n := range nodes {
		ms := func(what string) float64 { return took[i].median(what).Seconds() * 1000 }
		b.Logf("| %s | %.1f | %.1f | %.2f | %.1f | %.1f | %.1f |", n.region, ms("put"), ms("start"), ms("start")/ms("put"),
			ms("stop"), ms("heartbeat"), ms("list"))
		b.ReportMetric(ms("start")/ms("put"), n.region+"-start/put")
	}
}

// timings are how long each call took, by its name.
type timings map[string][]time.Duration

func (t timings) of(name string, do func()) {
	began := time.Now()
	do()
	t[name] = append(t[name], time.Since(began))
}

func (t timings) median(name string) time.Duration {
	all := slices.Sorted(slices.Values(t[name]))
	return all[len(all)/2]
}

// measure makes each call n times, one after the other as one viewer does.
func (n *regional) measure(b *testing.B, times int) timings {
	b.Helper()
	endpoints := n.near
	if len(endpoints) == 0 {
		endpoints = n.endpoints()
	}
	c, err := cluster.Dial(b.Context(), cluster.ClientConfig{Endpoints: endpoints})
	require.NoError(b, err)
	defer c.Close()
	kv := clientv3.RetryKVClient(c)
	took := timings{}
	const warmUp = 5 // the first ones meet an empty pool
	for i := range times + warmUp {
		if i == warmUp {
			clear(took)
		}
		user := fmt.Sprint(n.region, "-", times, "-", i)
		var path string
		took.of("start", func() { path = n.start(b, user) })
		took.of("put", func() {
			_, err := kv.Put(context.Background(), &pb.PutRequest{Key: []byte("/bench/" + user), Value: []byte("x")})
			require.NoError(b, err)
		})
		took.of("list", func() { n.do(b, "GET", "/api/v1/streams/users/"+user) })
		took.of("stop", func() { n.do(b, "POST", path+"/stop") })
	}
	n.measureHeartbeats(b, took, times)
	return took
}

// measureHeartbeats lets streams rest for a quarter of a TTL, so that they renew.
func (n *regional) measureHeartbeats(b *testing.B, took timings, times int) {
	b.Helper()
	var paths []string
	for i := range min(times, 20) {
		paths = append(paths, n.start(b, fmt.Sprint(n.region, "-rests-", times, "-", i)))
	}
	<-time.After(regionalTTL/4 + 100*time.Millisecond)
	for _, path := range paths {
		took.of("heartbeat", func() { n.do(b, "POST", path+"/heartbeat") })
	}
	for _, path := range paths {
		n.do(b, "POST", path+"/stop")
	}
}
