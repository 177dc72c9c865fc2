//go:build linux

// Package torture injects faults while clients use the service. It checks the answers of the
// clients and the history of etcd against the promises in docs/correctness.md.
//
//	STREAMCOUNT_LONG=1 go test ./internal/testing/torture -run TestTorture -v -torture.duration=10m -torture.seed=7
//
// Members of etcd and nodes are processes, so that they can be killed and paused. All random
// choices come from the seed. The timing depends on the machine.
package torture

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"streamcount/internal/testing/longtest"
)

var (
	duration  = flag.Duration("torture.duration", 8*time.Second, "how long to inject faults")
	seedFlag  = flag.Uint64("torture.seed", 0, "seed of all random choices; 0 for a new one")
	artifacts = flag.String("torture.artifacts", "", "directory for logs and histories; a temporary one if empty")
	onlyFault = flag.String("torture.fault", "", "inject only faults whose names contain this")
	eachFault = flag.Duration("torture.each", 0, "how long to inject each fault alone")
	nodesRace = flag.Bool("torture.race", false, "build the nodes with the race detector")
	roundLen  = flag.Duration("torture.round", 45*time.Second, "length of a round")
)

func TestMain(m *testing.M) {
	if text := os.Getenv(memberVariable); text != "" {
		if err := runMember(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	code := m.Run()
	for _, dir := range binaries {
		_ = os.RemoveAll(dir)
	}
	os.Exit(code)
}

// artifactDir returns a directory for logs and histories. It is removed if the test passes.
func artifactDir(t *testing.T) string {
	t.Helper()
	if *artifacts != "" {
		require.NoError(t, os.MkdirAll(*artifacts, 0o755))
		return *artifacts
	}
	dir, err := os.MkdirTemp("", "streamcount-torture-") //nolint:usetesting // it is kept after a failure
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs, histories and porcupine's diagrams: %s", dir)
			return
		}
		assert.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

// mixed returns a round of the torture test, with busy and quiet users, and users with
// several limits.
func mixed(name string, seed uint64, load time.Duration) round {
	return round{
		name: name, seed: seed, load: load, busy: 12, quiet: 16, several: 6, checkService: true,
		behavior: behavior{
			players: 3, think: 150 * time.Millisecond, disconnects: 0.03, heartbeatInterval: 1200 * time.Millisecond, sessions: 2,
			batches: 0.5,
		},
	}
}

func newSeed(t *testing.T) uint64 {
	t.Helper()
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()>>40 + 1
	}
	t.Logf("seed %d: to repeat the choices, -torture.seed=%d", seed, seed)
	return seed
}

// TestTorture injects all faults for the time in -torture.duration.
func TestTorture(t *testing.T) {
	longtest.Require(t)
	before := goleak.IgnoreCurrent()
	seed := newSeed(t)
	binary, err := build()
	require.NoError(t, err)
	logs := artifactDir(t)
	c := newEtcd(t, quota, false, logs)
	w := newTestbed(t, c, testbedConfig{logs: logs, node: testNodes(binary)})
	stopped := false
	defer func() {
		if !stopped {
			w.stop()
		}
	}()
	sum := &summary{}
	until := now() + *duration
	for i := 0; now() < until && !t.Failed(); i++ {
		r := mixed(fmt.Sprintf("r%d", i), seed+uint64(i)*1_000_003, min(*roundLen, max(until-now(), 2*time.Second)))
		r.chaos = sum.chaos(*onlyFault)
		report(t, fmt.Sprint("round ", i), sum.playRound(t, w, r))
		if !t.Failed() {
			require.NoError(t, w.cleanUp(t.Context()))
		}
	}
	sum.log(t, seed)
	if t.Failed() {
		return
	}
	w.checkNothingLeaks(t)
	if t.Failed() {
		t.Error(brokenMark)
	}
	stopped = true
	w.stop()
	c.close()
	operators.CloseIdleConnections()
	goleak.VerifyNone(t, before)
}

// quota is the quota of etcd's database. It is small, so that a fault can fill it.
const quota = 64 << 20

func testNodes(binary string) nodeConfig {
	return nodeConfig{binary: binary, prefix: "/torture", ttl: 5 * time.Second, limit: 2}
}

// TestEachFault injects each fault alone, and prints how many starts failed.
func TestEachFault(t *testing.T) {
	longtest.Require(t)
	if *eachFault == 0 {
		t.Skip("it takes minutes: set -torture.each to the time for each fault")
	}
	seed := newSeed(t)
	binary, err := build()
	require.NoError(t, err)
	logs := artifactDir(t)
	w := newTestbed(t, newEtcd(t, quota, false, logs), testbedConfig{logs: logs, node: testNodes(binary)})
	defer w.stop()
	t.Log("| fault | times | starts | failed | longest without an answer | leader changes |")
	for i, f := range choose(faults, *onlyFault) {
		sum := &summary{}
		r := mixed(fmt.Sprintf("f%d", i), seed+uint64(i), *eachFault)
		r.chaos = sum.chaos(f.name)
		report(t, f.name, sum.playRound(t, w, r))
		t.Logf("| %s | %d | %d | %d | %.1f s | %d |", f.name, sum.faults[f.name], sum.starts, sum.startsFailed,
			sum.gap.Seconds(), sum.terms)
		require.NoError(t, w.cleanUp(t.Context()))
	}
}
