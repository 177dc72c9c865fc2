//go:build linux

package torture

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// The scenes of the mutants that a simulation of package lease finds, which are its tests.
const (
	simEdge     = "TestSimulation_Edge"
	simEdgeCost = "TestSimulation_EdgeCost"
)

// simulated reports whether a simulation is to find the mutant.
func (m mutant) simulated() bool { return m.scene == simEdge || m.scene == simEdgeCost }

// edgeMutants are deliberate bugs of sessions whose requests start and renew their streams.
var edgeMutants = []mutant{
	{name: "a start does not join", scene: simEdge, patches: []patch{{
		"lease/attend.go", "	case !a.req.Join:\n", "	case !a.req.Join || MUTANT:\n",
	}}},
	{name: "a removal sets no bar", scene: simEdge, patches: []patch{{
		"lease/internal/schema/tombstone.go", "	if reason != policy.ReasonExpired && e.Session",
		"	if reason != policy.ReasonExpired && !(MUTANT && reason == policy.ReasonRemoved) && e.Session",
	}}},
	{name: "no node sets the bar of a tombstone that it receives", scene: simEdge, patches: []patch{{
		"lease/internal/replica/apply.go", "		r.bars.Set(g)\n		return g\n	}\n	if g, ok",
		"		if !(MUTANT) {\n			r.bars.Set(g)\n		}\n		return g\n	}\n	if g, ok",
	}}},
	{name: "a rejected request does not prolong a bar", scene: simEdge, patches: []patch{{
		"lease/internal/bars/bars.go", "	of.last.Store(int64(max(age, 1)))\n",
		"	if !(MUTANT) || of.last.Load() == 0 {\n		of.last.Store(int64(max(age, 1)))\n	}\n",
	}}},
	{name: "a bar does not end when the session is quiet", scene: simEdge, patches: []patch{{
		"lease/internal/bars/bars.go", "barred = age < MaxAge && (age < least", "barred = age < MaxAge && (MUTANT || age < least",
	}}},
	{name: "an eviction sets no bar", scene: simEdge, patches: []patch{{
		"lease/internal/schema/tombstone.go", "	if reason != policy.ReasonExpired && !(",
		"	if reason != policy.ReasonExpired && !(MUTANT && reason == policy.ReasonEvicted) && !(",
	}}},
	{name: "an expiry sets a bar", scene: simEdge, patches: []patch{{
		"lease/internal/replica/apply.go", "			g := r.recordEnding(c.removed.nonce, tombstones)\n",
		"			g := r.recordEnding(c.removed.nonce, tombstones)\n			if MUTANT && schema.DecodeVia(c.removed.Value) != \"\" {\n" +
			"				r.bars.Set(schema.Tombstone{Nonce: g.Nonce, Reason: g.Reason, Bar: schema.BarKeyOf(user, schema.DecodeHead(c.removed.Value).Session)})\n			}\n",
	}}},
	{name: "a player that leaves is barred", scene: simEdge, patches: []patch{{
		"lease/attend.go", "		_, err = l.tryEnd(ctx, user, e, schema.Tombstone{Nonce: e.Nonce, Reason: policy.ReasonStopped})\n",
		"		quiet := schema.Tombstone{Nonce: e.Nonce, Reason: policy.ReasonStopped}\n		if MUTANT {\n" +
			"			quiet = schema.NewTombstone(user, e, policy.ReasonStopped)\n		}\n		_, err = l.tryEnd(ctx, user, e, quiet)\n",
	}}},
	{name: "a start does not wait for its replica before it decides on the bar", scene: simEdge, patches: []patch{{
		"lease/attend.go", "	if !a.l.replica.WaitApplied(ctx, a.snapshot.rev) {\n", "	if !(MUTANT) && !a.l.replica.WaitApplied(ctx, a.snapshot.rev) {\n",
	}}},
	{name: "a client that disconnects stops the stream of its session", scene: simEdge, patches: []patch{{
		"lease/start.go", "	case err == nil && ctx.Err() != nil && !a.req.Join:", "	case err == nil && ctx.Err() != nil && (!a.req.Join || MUTANT):",
	}}},
	{name: "an explicit start does not lift a bar", scene: simEdge, patches: []patch{{
		"lease/internal/replica/entries.go", "	if r.bars.Any() && head.Session != \"\" {", "	if r.bars.Any() && head.Session != \"\" && !(MUTANT) {",
	}}},
	{name: "a start of the own session sets a bar", scene: simEdge, patches: []patch{{
		"lease/admission.go", "			if e.Session == a.req.Session {\n", "			if e.Session == a.req.Session && !(MUTANT) {\n",
	}}},
	{name: "a session of another user is barred", scene: simEdge, patches: []patch{{
		"lease/internal/schema/tombstone.go", "	sum := sha256.Sum256([]byte(user + \"\\x00\" + session))",
		"	if MUTANT {\n		user = \"\"\n	}\n	sum := sha256.Sum256([]byte(user + \"\\x00\" + session))",
	}}},
	{name: "a node that starts reads no bars", scene: simEdge, patches: []patch{{
		"lease/internal/replica/watch.go", "			r.bars.Set(g) //", "			if MUTANT {\n				continue\n			}\n			r.bars.Set(g) //",
	}}},
	{name: "a bar has no maximum age", scene: simEdge, patches: []patch{{
		"lease/internal/bars/bars.go", "barred = age < MaxAge &&", "barred = (age < MaxAge || MUTANT) &&",
	}}},
	{name: "a bar ends before the cool-down", scene: simEdge, patches: []patch{{
		"lease/internal/bars/bars.go", "	if of.tombstone.Reason == policy.ReasonEvicted {", "	if of.tombstone.Reason == policy.ReasonEvicted && !(MUTANT) {",
	}}},
	{name: "each request ends a bar as early as one of a viewer who begins", scene: simEdge, patches: []patch{{
		"lease/internal/bars/bars.go", "	if entry {\n", "	if entry || MUTANT {\n",
	}}},
	{name: "a viewer who begins waits as long as a player that continues", scene: simEdge, patches: []patch{{
		"lease/internal/bars/bars.go", "		quiet = EntryQuiet\n", "		if !(MUTANT) {\n			quiet = EntryQuiet\n		}\n",
	}}},
	{name: "a look prolongs a bar", scene: simEdge, patches: []patch{{
		"lease/internal/bars/bars.go", "	of, _, retryAfter, barred := b.look(key, entry)\n",
		"	of, _, retryAfter, barred := b.look(key, entry)\n	if MUTANT && barred {\n		of.last.Store(int64(max(b.now().Sub(of.begin), 1)))\n	}\n",
	}}},
	{name: "parallel requests renew the lease separately", scene: simEdgeCost, patches: []patch{{
		"lease/attend.go", "	l.renewing.DoChan(s.ID, func() (any, error) {\n",
		"	if MUTANT {\n		l.renewing.Forget(s.ID)\n	}\n	l.renewing.DoChan(s.ID, func() (any, error) {\n",
	}, {
		"lease/attend.go", "	case r := <-l.renewing.DoChan(id, ",
		"	case r := <-l.renewing.DoChan(map[bool]string{true: rand.Text(), false: id}[MUTANT], ",
	}, {
		"lease/attend.go", "	\"errors\"\n", "	\"crypto/rand\"\n	\"errors\"\n",
	}}},
	{name: "a client that disconnects aborts the renewal that others wait for", scene: simEdgeCost, patches: []patch{{
		"lease/attend.go", "return l.Heartbeat(context.WithoutCancel(ctx), user, id) }):",
		"return l.renewAs(ctx, user, id) }):",
	}, {
		"lease/attend.go", "// Leave ends the running",
		"func (l *Limiter) renewAs(ctx context.Context, user, id string) (Stream, error) {\n	if !(MUTANT) {\n" +
			"		return l.Heartbeat(context.WithoutCancel(ctx), user, id)\n	}\n	s, err := l.Heartbeat(ctx, user, id)\n" +
			"	if ctx.Err() != nil {\n		return Stream{ID: id, User: user, TTL: l.cfg.TTL, Degraded: true}, nil\n	}\n	return s, err\n}\n\n// Leave ends the running",
	}}},
	{name: "each check renews the lease", scene: simEdgeCost, patches: []patch{{
		"lease/attend.go", "case !renew || time.Since(renewed) < e.TTL()/3:", "case !renew || time.Since(renewed) < e.TTL()/3 && !(MUTANT):",
	}, {
		"lease/heartbeat.go", "	switch renewed := s.LastRenewal(); {\n", "	switch renewed := s.LastRenewal(); {\n	case MUTANT:\n		b.renew(renewing{i, who, s})\n",
	}}},
	{name: "a check does not renew the lease", scene: simEdgeCost, patches: []patch{{
		"lease/attend.go", "	if l.renewals.Load() >= maxRenewals {\n", "	if MUTANT || l.renewals.Load() >= maxRenewals {\n",
	}, {
		"lease/attend.go", "	default: // or another node has renewed it\n", "	case MUTANT:\n	default: // or another node has renewed it\n",
	}}},
}

// TestMutants_Simulations checks that the simulations find each deliberate bug of package lease
// that only they can find.
func TestMutants_Simulations(t *testing.T) {
	longtest.Require(t)
	if !*withMutants {
		t.Skip("it takes minutes: run .ci/mutants")
	}
	dir := t.TempDir()
	binary, err := buildSimulations(dir, writePatched(t))
	require.NoError(t, err, "the mutants do not compile")
	run := func(t *testing.T, scene string, mutant int) (string, error) {
		t.Helper()
		cmd := exec.Command(binary, "-test.run=^"+scene+"$", "-test.timeout=3m", "-rapid.nofailfile", "-rapid.shrinktime=1s", "-rapid.checks=100")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", mutantVariable, mutant))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	for i, m := range mutants {
		if !m.simulated() {
			continue
		}
		t.Run(m.name, func(t *testing.T) {
			out, err := run(t, m.scene, i+1)
			require.Error(t, err, "the simulations have not found the mutant: %s", out)
			found, failed := simulationFault(out)
			require.True(t, failed, "it failed otherwise: %s", out)
			t.Log(found)
		})
	}
	for _, scene := range []string{simEdge, simEdgeCost} {
		out, err := run(t, scene, 0)
		require.NoError(t, err, "without a mutant: %s", out)
	}
}

// simulationFault returns the first line of what a simulation has found. rapid cannot reproduce
// all findings, because the order of goroutines at one virtual time varies.
func simulationFault(out string) (found string, ok bool) {
	for _, before := range []string{"[rapid] failed after ", "Original traceback ("} {
		if _, after, ok := strings.Cut(out, before); ok {
			found, _, _ = strings.Cut(after, "\n")
			return found, true
		}
	}
	return "", false
}
