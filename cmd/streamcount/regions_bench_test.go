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

	"streamcount/internal/testing/etcdtest"
)

// memberPlacements are the regions of etcd's members. The first member is the leader.
var memberPlacements = []struct {
	name    string
	members []string
}{
	{"one_in_each", []string{europe, america, asia}},
	{"two_and_one_led_from_the_two", []string{europe, europe, america}},
	{"two_and_one_led_from_the_one", []string{america, europe, europe}},
	{"all_in_one", []string{europe, europe, europe}},
}

// BenchmarkRegions has an etcd member and a node in each of three regions, with round trips of
// 40 or 120 ms between regions, also between members. It reports the medians of a start, a
// stop, a heartbeat that renews, and a list of streams, over HTTP from the region of the
// node, and of a put to the members that the node uses.
//
//	go test -run xxx -bench Regions/.*/RTT=40 -benchtime 20x ./cmd/streamcount
func BenchmarkRegions(b *testing.B) {
	for _, placement := range memberPlacements {
		for _, roundTrip := range []time.Duration{40 * time.Millisecond, 120 * time.Millisecond} {
			b.Run(fmt.Sprintf("%s/RTT=%d", placement.name, roundTrip.Milliseconds()), func(b *testing.B) {
				benchmarkPlacement(b, placement.members, roundTrip)
			})
		}
	}
}

const regionalTTL = 12 * time.Second

func benchmarkPlacement(b *testing.B, members []string, roundTrip time.Duration) {
	b.Helper()
	// Timeouts are longer, so that the leader does not change.
	etcd := etcdtest.StartRegions(b, etcdtest.Config{TickMs: 150, ElectionMs: 1500}, members...)
	etcd.MoveLeader(b, 0)
	var nodes []*regionalNode
	for _, region := range everywhere {
		nodes = append(nodes, serveIn(b, etcd, members, region, fmt.Sprint("--ttl=", regionalTTL)))
	}
	etcd.RoundTrip(roundTrip)
	for range 5 { // the first starts have an empty pool
		inEachRegion(nodes, func(n *regionalNode) { n.round(b) })
	}
	for _, n := range nodes {
		clear(n.took)
	}
	rounds := 0
	for b.Loop() {
		inEachRegion(nodes, func(n *regionalNode) { n.round(b) })
		rounds++
	}
	inEachRegion(nodes, func(n *regionalNode) { n.measureHeartbeats(b, min(rounds, 20)) })
	require.Zero(b, etcd.Leader(b), "the leader has not changed")
	b.ReportMetric(0, "ns/op")
	b.Logf("leader in %s, members in %s, %s", members[0], strings.Join(members, ", "), roundTrip)
	b.Log("| node in | put | start | start / put | stop | heartbeat | list |")
	for _, n := range nodes {
		ms := func(what string) float64 { return n.took.median(what).Seconds() * 1000 }
		b.Logf("| %s | %.1f | %.1f | %.2f | %.1f | %.1f | %.1f |", n.region, ms("put"), ms("start"), ms("start")/ms("put"),
			ms("stop"), ms("heartbeat"), ms("list"))
		b.ReportMetric(ms("start")/ms("put"), n.region+"-start/put")
	}
}

// inEachRegion calls do for all regions concurrently.
func inEachRegion(nodes []*regionalNode, do func(*regionalNode)) {
	var all sync.WaitGroup
	for _, n := range nodes {
		all.Go(func() { do(n) })
	}
	all.Wait()
}

// timings are the durations of calls by name.
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

// round makes each call once.
func (n *regionalNode) round(b *testing.B) {
	b.Helper()
	n.rounds++
	user := fmt.Sprint(n.region, "-", n.rounds)
	var path string
	n.took.of("start", func() { path = n.start(b, user) })
	n.took.of("put", func() {
		_, err := n.puts.Put(context.Background(), &pb.PutRequest{Key: []byte("/bench/" + user), Value: []byte("x")})
		require.NoError(b, err)
	})
	n.took.of("list", func() { n.do(b, "GET", "/api/v1/streams/users/"+user) })
	n.took.of("stop", func() { n.do(b, "POST", path+"/stop") })
}

// measureHeartbeats waits for a quarter of a TTL before it sends heartbeats, so that they
// renew the leases.
func (n *regionalNode) measureHeartbeats(b *testing.B, streams int) {
	b.Helper()
	var paths []string
	for i := range streams {
		paths = append(paths, n.start(b, fmt.Sprint(n.region, "-rests-", i)))
	}
	<-time.After(regionalTTL/4 + 100*time.Millisecond)
	for _, path := range paths {
		n.took.of("heartbeat", func() { n.do(b, "POST", path+"/heartbeat") })
	}
}

// BenchmarkLeaderKilled has an etcd member and a node in each of three regions with round trips
// of 120 ms. Each iteration kills the leader while 24 viewers start and stop streams, and
// measures the longest time in which no start succeeded.
//
//	go test -run xxx -bench LeaderKilled -benchtime 3x ./cmd/streamcount
func BenchmarkLeaderKilled(b *testing.B) {
	for _, tick := range []uint{100, 150} {
		b.Run(fmt.Sprintf("Heartbeat=%d/Election=%d", tick, 10*tick), func(b *testing.B) {
			var gaps []time.Duration
			failed, elections := 0, uint64(0)
			for b.Loop() {
				gap, f, e := killLeader(b, tick)
				gaps, failed, elections = append(gaps, gap), failed+f, elections+e
			}
			slices.Sort(gaps)
			b.Logf("gaps %v, %d starts answered 503, %d elections with the leader alive", gaps, failed, elections)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(gaps[len(gaps)/2].Seconds(), "median-gap-s")
			b.ReportMetric(gaps[len(gaps)-1].Seconds(), "longest-gap-s")
		})
	}
}

// killLeader returns the longest time without a successful start, the number of starts that
// returned 5xx, and the number of elections in the 10 s before.
func killLeader(b *testing.B, tick uint) (gap time.Duration, failed int, elections uint64) {
	b.Helper()
	etcd := etcdtest.StartRegions(b, etcdtest.Config{TickMs: tick, ElectionMs: 10 * tick}, everywhere...)
	etcd.MoveLeader(b, 0)
	etcd.RoundTrip(120 * time.Millisecond)
	ctx, stop := context.WithCancel(b.Context())
	var all sync.WaitGroup
	var mu sync.Mutex
	var last time.Time // of an answer; zero until it counts
	for _, region := range everywhere {
		n := serveIn(b, etcd, everywhere, region)
		for i := range 8 {
			conn := n.client.Conn(b.Context())
			b.Cleanup(conn.Close)
			all.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					path := fmt.Sprintf("/api/v1/streams/users/%s-%d-%d", region, i, k)
					a, err := conn.Do("POST", []byte(path+"/start"), []byte("{}"))
					mu.Lock()
					switch now := time.Now(); {
					case last.IsZero():
					case err == nil && a.Status == 200:
						gap, last = max(gap, now.Sub(last)), now
					default:
						failed++
					}
					mu.Unlock()
				}
			})
		}
	}
	term := etcd.Members[1].Embed().Server.Term()
	<-time.After(10 * time.Second)
	elections = etcd.Members[1].Embed().Server.Term() - term
	mu.Lock()
	last = time.Now()
	mu.Unlock()
	etcd.Kill(etcd.Leader(b))
	<-time.After(10 * time.Second)
	stop()
	all.Wait()
	return max(gap, time.Since(last)), failed, elections
}
