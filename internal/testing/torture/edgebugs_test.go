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
			_, found, failed := strings.Cut(out, "[rapid] failed after ")
			require.True(t, failed, "it failed otherwise: %s", out)
			first, _, _ := strings.Cut(found, "\n")
			t.Log(first)
		})
	}
	for _, scene := range []string{simEdge, simEdgeCost} {
		out, err := run(t, scene, 0)
		require.NoError(t, err, "without a mutant: %s", out)
	}
}
