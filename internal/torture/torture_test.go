// Package torture breaks the service in every way it can think of while clients
// use it, and holds what they were told, and what etcd saw, against the promises
// in docs/correctness.md.
//
//	go test ./internal/torture -run TestTorture -v -torture.duration=10m -torture.seed=7
//
// etcd's members and the nodes are processes, so that they can be killed and
// paused. All random choices come from the seed; what the machine makes of them
// does not.
package torture

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

var (
	duration  = flag.Duration("torture.duration", 8*time.Second, "how long to torture")
	seedFlag  = flag.Uint64("torture.seed", 0, "where all random choices come from; 0 for a new one")
	artifacts = flag.String("torture.artifacts", "", "directory for logs and histories; a temporary one if empty")
	onlyFault = flag.String("torture.fault", "", "inject only faults whose names contain this")
	eachFault = flag.Duration("torture.each", 0, "how long each fault is tried by itself")
	nodesRace = flag.Bool("torture.race", false, "build the nodes with the race detector")
	roundLen  = flag.Duration("torture.round", 45*time.Second, "how long users play before they are looked at")
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

// artifactDir is kept if the test fails.
func artifactDir(t *testing.T) string {
	t.Helper()
	if *artifacts != "" {
		require.NoError(t, os.MkdirAll(*artifacts, 0o755))
		return *artifacts
	}
	dir, err := os.MkdirTemp("", "streamcount-torture-") //nolint:usetesting // it outlives a test that fails
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("logs, histories and what porcupine shows: %s", dir)
			return
		}
		assert.NoError(t, os.RemoveAll(dir))
	})
	return dir
}

func need(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("it pauses processes and looks into /proc: it needs Linux")
	}
}

// mixed are the users of a round of the torture test.
func mixed(name string, seed uint64, load time.Duration) round {
	return round{
		name: name, seed: seed, load: load, busy: 12, quiet: 16, demand: true,
		style: style{
			players: 3, think: 150 * time.Millisecond, hangUp: 0.03, beats: 1200 * time.Millisecond, sessions: 2,
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

// Everything at once, for as long as you like.
func TestTorture(t *testing.T) {
	need(t)
	before := goleak.IgnoreCurrent()
	seed := newSeed(t)
	binary, err := build()
	require.NoError(t, err)
	logs := artifactDir(t)
	c := newEtcd(t, quota, false, logs)
	w := newWorld(t, c, worldConfig{logs: logs, node: usual(binary)})
	stopped := false
	defer func() {
		if !stopped {
			w.stop()
		}
	}()
	sum := &total{}
	until := now() + *duration
	for i := 0; now() < until && !t.Failed(); i++ {
		r := mixed(fmt.Sprintf("r%d", i), seed+uint64(i)*1_000_003, min(*roundLen, max(until-now(), 2*time.Second)))
		r.chaos = sum.chaos(*onlyFault)
		report(t, fmt.Sprint("round ", i), sum.play(t, w, r))
		if !t.Failed() {
			require.NoError(t, w.tidy(t.Context()))
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

// quota is of etcd's database: small enough to be filled in a moment.
const quota = 64 << 20

func usual(binary string) nodeConfig {
	return nodeConfig{binary: binary, prefix: "/torture", ttl: 5 * time.Second, limit: 2}
}

// Each fault by itself, again and again, with what it does to those who start.
func TestEachFault(t *testing.T) {
	need(t)
	if *eachFault == 0 {
		t.Skip("it takes minutes: -torture.each says how long each fault is to last")
	}
	seed := newSeed(t)
	binary, err := build()
	require.NoError(t, err)
	logs := artifactDir(t)
	w := newWorld(t, newEtcd(t, quota, false, logs), worldConfig{logs: logs, node: usual(binary)})
	defer w.stop()
	t.Log("| fault | times | starts | failed | longest without an answer | leader changes |")
	for i, f := range choose(faults, *onlyFault) {
		sum := &total{}
		r := mixed(fmt.Sprintf("f%d", i), seed+uint64(i), *eachFault)
		r.chaos = sum.chaos(f.name)
		report(t, f.name, sum.play(t, w, r))
		t.Logf("| %s | %d | %d | %d | %.1f s | %d |", f.name, sum.faults[f.name], sum.starts, sum.startsFailed,
			sum.gap.Seconds(), sum.terms)
		require.NoError(t, w.tidy(t.Context()))
	}
}
