package lease

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdsim"
)

// edgeCost is a cluster without faults, in which one session plays.
type edgeCost struct {
	etcd     *etcdsim.Etcd
	nodes    []*Limiter
	ttl      time.Duration
	delay    time.Duration // maximum, of a message in one direction
	interval time.Duration // between two requests to a node
	parallel int

	writes   atomic.Int64 // revisions that calls have written
	degraded atomic.Bool  // the answer to a request that did not disconnect was

	mu       sync.Mutex
	renewals map[string][]time.Time // by link and lease
}

func runEdgeCost(t *testing.T, c *edgeCost, seed uint64, nodes int, lag time.Duration, play func() string) (wrong string) {
	t.Helper()
	c.etcd, c.renewals = etcdsim.New(), map[string][]time.Time{}
	c.etcd.Audit = func(_ *etcdsim.Etcd, cause etcdsim.Cause) {
		if cause == etcdsim.Written {
			c.writes.Add(1)
		}
	}
	c.etcd.AuditRenewal = func(l *etcdsim.Link, lease int64) {
		c.mu.Lock()
		defer c.mu.Unlock()
		by := fmt.Sprintf("%p %d", l, lease)
		c.renewals[by] = append(c.renewals[by], time.Now())
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i := range nodes {
		link := &etcdsim.Link{Etcd: c.etcd, Seed: seed + uint64(i), Delay: c.delay, Lag: lag}
		l, err := New(Etcd{KV: link.KV(), Lease: link.Lease(), Watch: link.Watcher()}, Config{
			Prefix: "/p", Limit: 1, TTL: c.ttl, Secret: []byte("0123456789abcdef"),
		})
		require.NoError(t, err)
		c.nodes = append(c.nodes, l)
		running.Go(func() { assert.NoError(t, l.Run(ctx)) })
	}
	running.Go(func() {
		for !sleep(ctx, 500*time.Millisecond) {
			c.etcd.Tick()
		}
	})
	time.Sleep(5 * time.Second) // every replica is current, and has its leases
	wrong = play()              // it does not end the test, because the nodes must end first
	stop()
	running.Wait()
	return wrong
}

// request sends requests of the session to all nodes at once, and returns the ids of the
// streams in the answers.
// If one disconnects, another request to each node ends before its answer.
func (c *edgeCost) request(t *testing.T, oneDisconnects bool) map[string]int {
	t.Helper()
	var mu sync.Mutex
	ids := map[string]int{}
	var all sync.WaitGroup
	for _, l := range c.nodes {
		if oneDisconnects {
			ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
			defer cancel()
			all.Go(func() { _, _ = l.Attend(ctx, "maya", "tab", false) })
			synctest.Wait() // it waits for its renewal, if there is one
		}
		for range c.parallel {
			all.Go(func() {
				a, err := l.Attend(t.Context(), "maya", "tab", false)
				if a.Stream.Degraded {
					c.degraded.Store(true)
				}
				id := a.Stream.ID
				if assert.NoError(t, err) && a.Stream.User == "" {
					assert.Nil(t, a.Bar)
					assert.True(t, a.Current)
					st, err := l.Start(t.Context(), "maya", edge)
					assert.NoError(t, err)
					assert.Empty(t, st.Ended)
					id = st.Stream.ID
				}
				mu.Lock()
				defer mu.Unlock()
				ids[id]++
			})
		}
	}
	all.Wait()
	return ids
}

// Without a fault, the first requests of a session on all nodes put one key. Then its requests
// change no key, and each node renews the lease at most once per third of the TTL.
func TestSimulation_EdgeCost(t *testing.T) {
	t.Parallel()
	runs := 0
	rapid.Check(t, func(rt *rapid.T) {
		if runs++; runs > 2*defaultRuns && !checksAreSet() {
			return
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		ms := func(name string, from, to int) time.Duration {
			return time.Duration(rapid.IntRange(from, to).Draw(rt, name)) * time.Millisecond
		}
		nodes := rapid.IntRange(1, 5).Draw(rt, "nodes")
		c := &edgeCost{
			ttl: time.Duration(rapid.IntRange(10, 90).Draw(rt, "ttl")) * time.Second, delay: ms("delay", 0, 60),
			interval: ms("interval", 20, 4000), parallel: rapid.IntRange(1, 4).Draw(rt, "parallel"),
		}
		if rapid.IntRange(0, 3).Draw(rt, "slow") == 0 { // each request waits for a renewal
			c.interval = c.ttl * 9 / 10
		}
		lag := ms("lag", 0, 200) // so that every replica is current
		wrong := ""
		etcdsim.Bubble(t, func(t *testing.T) {
			t.Helper()
			wrong = runEdgeCost(t, c, seed, nodes, lag, func() string { return c.play(t) })
		})
		if wrong != "" {
			rt.Fatalf("%s", wrong)
		}
	})
}

// play returns what is wrong.
func (c *edgeCost) play(t *testing.T) string {
	t.Helper()
	ids := c.request(t, false)
	if len(ids) != 1 {
		return fmt.Sprintf("the first requests have started %d streams", len(ids))
	}
	keys := c.etcd.Read("/p/users/")
	if len(keys) != 1 || keys[0].Version != 1 {
		return fmt.Sprintf("the first requests have put %v", keys)
	}
	time.Sleep(max(5*time.Second, c.ttl/2)) // every replica contains the stream, and the next requests renew it
	writes, from := c.writes.Load(), time.Now()
	for time.Since(from) < 3*c.ttl {
		for id := range c.request(t, true) {
			if ids[id] == 0 {
				return fmt.Sprintf("the session has had the streams %v and %v", ids, id)
			}
		}
		if c.degraded.Load() {
			return "a request was answered as degraded"
		}
		time.Sleep(c.interval)
	}
	if n := c.writes.Load() - writes; n != 0 {
		return fmt.Sprintf("checks have written %d revisions", n)
	}
	lease := keys[0].Lease
	c.mu.Lock()
	defer c.mu.Unlock()
	total := 0
	for by, at := range c.renewals {
		var link string
		var of int64
		_, err := fmt.Sscan(by, &link, &of)
		require.NoError(t, err)
		for i := range at {
			if of != lease || at[i].Before(from) {
				continue
			}
			total++
			if i > 0 && at[i].Sub(at[i-1]) < c.ttl/3-4*c.delay { // the first waits for its keep-alive stream
				return fmt.Sprintf("a node has renewed the lease after %v, the TTL is %v", at[i].Sub(at[i-1]), c.ttl)
			}
		}
	}
	if total == 0 {
		return "no node has renewed the lease"
	}
	return ""
}
