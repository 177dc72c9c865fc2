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

// total is what a run has done.
type total struct {
	rounds, ops, unknown, revisions, streams, lapses, linear int
	faults                                                   map[string]int
	answers                                                  map[string]int
	latest                                                   time.Duration
	terms                                                    int
	starts, startsFailed                                     int
	gap                                                      time.Duration // without an answered start, at most
}

// play plays a round and adds it up.
func (s *total) play(t *testing.T, w *world, r round) []string {
	t.Helper()
	c, found := w.play(t, r)
	s.rounds++
	s.ops += len(c.ops)
	s.revisions += c.revisions
	s.streams += len(c.lives)
	s.lapses += c.lapses
	s.linear += c.linearOps
	s.terms += len(c.terms) - 1
	s.latest = max(s.latest, c.latest)
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
	return found
}

// countStarts finds the longest time without a start that was answered.
func (s *total) countStarts(ops []*op) {
	var answered []time.Duration
	for _, o := range ops {
		switch {
		case o.Kind != kindStart || o.Hung || strings.Contains(o.User, afterwards):
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

func (s *total) log(t *testing.T, seed uint64) {
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
		seed, s.rounds, s.ops, s.unknown, n, s.terms, s.revisions, s.streams, s.lapses, s.latest.Seconds(), s.linear)
	t.Logf("faults: %s", strings.Join(names, ", "))
	t.Logf("answers: %s", strings.Join(answers, ", "))
}

// chaos injects faults whose names contain only.
func (s *total) chaos(only string) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		if s.faults == nil {
			s.faults = map[string]int{}
		}
		return w.torment(ctx, rng, choose(faults, only), s.faults)
	}
}

// tidy takes away what a round leaves on purpose, and its history, so that long
// runs stay small.
func (w *world) tidy(ctx context.Context) error {
	for _, what := range []string{"/limits/", "/plans/"} {
		if err := retry(ctx, func(call context.Context) error {
			_, err := w.etcd.all.Delete(call, w.cfg.node.prefix+what, clientv3.WithPrefix())
			return err
		}); err != nil {
			return err
		}
	}
	if err := w.watcher.awaitNow(ctx); err != nil {
		return err
	}
	w.watcher.record()
	if err := w.etcd.checkAgree(ctx, w.watcher.done()); err != nil {
		return err
	}
	if err := w.etcd.compact(ctx, w.watcher.done()-5); err != nil {
		return err
	}
	for i := range w.etcd.members {
		if err := w.etcd.defragment(ctx, i); err != nil {
			return err
		}
	}
	return w.heal(ctx)
}

// checkAgree wants all members to hold the same at a revision.
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
			return fmt.Errorf("hash what a member holds: %w", err)
		}
	}
	if len(hashes) != 1 {
		return fmt.Errorf(brokenMark+": the members of etcd hold different things at revision %d", rev)
	}
	return nil
}

// checkNothingLeaks looks at what is left when nobody does anything: connections,
// and leases. A node keeps a few ready; when it ends it takes them along.
func (w *world) checkNothingLeaks(t *testing.T) {
	t.Helper()
	const ofOneNode = 16 // ready for starts, for tombstones, and its own
	leases := func() int {
		resp, err := w.etcd.all.Leases(t.Context())
		if err != nil {
			return -1
		}
		return len(resp.Leases)
	}
	for _, n := range w.nodes {
		assert.Eventually(t, func() bool { return descriptors(n.pid()) < 64 }, 20*time.Second, 100*time.Millisecond,
			"%s holds on to connections: it has %d descriptors", n.name, descriptors(n.pid()))
	}
	assert.Eventually(t, func() bool { n := leases(); return n >= 0 && n <= len(w.nodes)*ofOneNode },
		40*time.Second, 200*time.Millisecond, "leases pile up: there are %d", leases())
	for _, n := range w.nodes {
		assert.True(t, n.terminate(15*time.Second), "%s did not end by itself: see %s", n.name, n.log)
	}
	// The last ones are of nodes that were killed, and of tombstones.
	assert.Eventually(t, func() bool { return leases() == 0 }, 40*time.Second, 200*time.Millisecond,
		"leases are left when all nodes are gone")
}
