//go:build linux

package torture

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// summary has the totals of a run.
type summary struct {
	rounds, ops, unknown, revisions, streams, unrequestedEnds, linear int
	faults                                                            map[string]int
	answers                                                           map[string]int
	maxLate                                                           time.Duration
	terms                                                             int
	starts, startsFailed                                              int
	gap                                                               time.Duration // longest time without an answered start
}

// playRound runs a round and adds its numbers to the summary.
func (s *summary) playRound(t *testing.T, w *testbed, r round) []string {
	t.Helper()
	c, found := w.playRound(t, r)
	s.rounds++
	s.ops += len(c.ops)
	s.revisions += c.revisions
	s.streams += len(c.streams)
	s.unrequestedEnds += c.unrequestedEnds
	s.linear += c.linearOps
	s.terms += len(c.terms) - 1
	s.maxLate = max(s.maxLate, c.maxLate)
	if s.answers == nil {
		s.answers = map[string]int{}
	}
	for _, o := range c.ops {
		if o.unknown() {
			s.unknown++
		}
		s.answers[fmt.Sprintf("%s %d", o.Kind, o.Status)]++
	}
	s.countStarts(c.ops)
	return c.stall.judge(t, found)
}

// countStarts counts starts, and finds the longest time without an answered one.
func (s *summary) countStarts(ops []*op) {
	var answered []time.Duration
	for _, o := range ops {
		switch {
		case o.Kind != kindStart || o.Disconnected || strings.Contains(o.User, serviceCheckSuffix):
		case o.unknown():
			s.startsFailed++
			s.starts++
		default:
			s.starts++
			answered = append(answered, o.Return)
		}
	}
	slices.Sort(answered)
	for i := 1; i < len(answered); i++ {
		s.gap = max(s.gap, answered[i]-answered[i-1])
	}
}

func (s *summary) log(t *testing.T, seed uint64) {
	t.Helper()
	n := 0
	var names, answers []string
	for _, name := range slices.Sorted(maps.Keys(s.faults)) {
		n += s.faults[name]
		names = append(names, fmt.Sprintf("%s %d", name, s.faults[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(s.answers)) {
		answers = append(answers, fmt.Sprintf("%s: %d", name, s.answers[name]))
	}
	t.Logf("seed %d: %d rounds, %d operations (%d of unknown outcome), %d faults, %d leader changes, %d revisions, "+
		"%d streams, %d that ended by themselves or were cleaned up (at most %.1f s late), %d operations put in order",
		seed, s.rounds, s.ops, s.unknown, n, s.terms, s.revisions, s.streams, s.unrequestedEnds, s.maxLate.Seconds(), s.linear)
	t.Logf("faults: %s", strings.Join(names, ", "))
	t.Logf("answers: %s", strings.Join(answers, ", "))
}

// chaos injects faults whose names contain only.
func (s *summary) chaos(only string) func(context.Context, *testbed, *rand.Rand) error {
	return func(ctx context.Context, w *testbed, rng *rand.Rand) error {
		if s.faults == nil {
			s.faults = map[string]int{}
		}
		return w.injectFaults(ctx, rng, choose(faults, only), s.faults)
	}
}

// cleanUp deletes the rules of a round and compacts its history, so that long runs need
// little space.
func (w *testbed) cleanUp(ctx context.Context) error {
	for _, what := range []string{"/limits/", "/plans/"} {
		if err := retry(ctx, func(call context.Context) error {
			_, err := w.etcd.all.Delete(call, w.cfg.node.prefix+what, clientv3.WithPrefix())
			return err
		}); err != nil {
			return err
		}
	}
	if err := w.watcher.awaitLatest(ctx); err != nil {
		return err
	}
	w.watcher.record()
	if err := w.etcd.checkAgree(ctx, w.watcher.lastRevision()); err != nil {
		return err
	}
	if err := w.etcd.compact(ctx, w.watcher.lastRevision()-5); err != nil {
		return err
	}
	for i := range w.etcd.members {
		if err := w.etcd.defragment(ctx, i); err != nil {
			return err
		}
	}
	return w.heal(ctx)
}

// checkAgree checks that all members have the same keys and values at a revision.
func (c *cluster) checkAgree(ctx context.Context, rev int64) error {
	hashes := map[uint32]bool{}
	for i := range c.members {
		if err := retry(ctx, func(call context.Context) error {
			resp, err := c.clients[i].HashKV(call, c.members[i].cfg.Client, rev)
			if err == nil {
				hashes[resp.Hash] = true
			}
			return err
		}); err != nil {
			return fmt.Errorf("hash the keys of a member: %w", err)
		}
	}
	if len(hashes) != 1 {
		return fmt.Errorf(brokenMark+": the members of etcd differ at revision %d", rev)
	}
	return nil
}

// checkNothingLeaks checks the connections and leases of nodes without load. A node has a few
// idle leases, and revokes them when it exits.
func (w *testbed) checkNothingLeaks(t *testing.T) {
	t.Helper()
	const ofOneNode = 16 // idle leases, leases of tombstones, and its own
	leases := func() int {
		resp, err := w.etcd.all.Leases(t.Context())
		if err != nil {
			return -1
		}
		return len(resp.Leases)
	}
	for _, n := range w.nodes {
		assert.Eventually(t, func() bool { return descriptors(n.pid()) < 64 }, patience, 100*time.Millisecond,
			"%s leaks connections: it has %d descriptors", n.name, descriptors(n.pid()))
	}
	assert.Eventually(t, func() bool { n := leases(); return n >= 0 && n <= len(w.nodes)*ofOneNode },
		patience, 200*time.Millisecond, "nodes leak leases: there are %d", leases())
	for _, n := range w.nodes {
		assert.True(t, n.terminate(patience), "%s did not exit after SIGTERM: see %s", n.name, n.log)
	}
	// The leases of killed nodes and of tombstones expire.
	assert.Eventually(t, func() bool { return leases() == 0 }, patience, 200*time.Millisecond,
		"leases are left after all nodes have exited")
}
