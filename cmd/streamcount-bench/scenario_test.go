package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/bench"
	"streamcount/internal/bench/child"
	"streamcount/internal/bench/peer"
	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/longtest"
)

// runScenario runs a scenario on a node, requires that all checks pass, and checks that
// no files are left.
func runScenario(t *testing.T, scenario string, args ...string) bench.Report {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench") //nolint:usetesting // the path of t.TempDir is too long for a socket
	require.NoError(t, err)
	defer func() { assert.NoError(t, os.RemoveAll(dir)) }()
	out, _ := runCommand(t, exitOK, append([]string{scenario, "--json", "--dir=" + dir, "--binary=" + nodeBinary(t)}, args...)...)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "directories are removed")
	var r bench.Report
	require.NoError(t, json.Unmarshal([]byte(out), &r))
	assert.Contains(t, r.Version, "streamcount ")
	return r
}

func TestScenarios(t *testing.T) {
	longtest.Require(t) // on a slow machine the targets have faults
	t.Parallel()        // the scenarios wait most of the time
	for scenario, args := range map[string]string{
		"lifecycle":  "--duration=500ms --warmup=100ms --runs=1",
		"heartbeat":  "--duration=500ms --warmup=0s --runs=1 --viewers=200 --rate=500",
		"refused":    "--duration=500ms --warmup=0s --runs=1 --users=50",
		"startstorm": "--viewers=200 --over=500ms --runs=1 --per-user=4",
		"stopstorm":  "--viewers=200 --over=500ms --runs=1 --per-user=2",
		"blackout":   "--viewers=150 --over=500ms --others=20 --ttl=5s",
		"mixed":      "--viewers=200 --duration=1s --heartbeat=500ms --session=2s --batch=10",
		"overload":   "--viewers=200 --duration=1s --warmup=1s --heartbeat=1s",
		"soak":       "--viewers=200 --duration=1s --heartbeat=1s --others=20 --restart",
	} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			r := runScenario(t, scenario, append(strings.Fields(args), "--connections=16")...)
			require.Len(t, r.Targets, 1)
			for _, f := range r.Targets[0].Faults {
				assert.True(t, scenario == "overload" && f.Harmless, "%+v", f)
			}
			require.NotEmpty(t, r.Targets[0].Calls)
			for _, c := range r.Targets[0].Calls {
				assert.Positive(t, c.Figures["perSecond"].Median, c.Call)
			}
			assert.Equal(t, scenario == "soak", r.Targets[0].Ready != nil)
			if g := r.Targets[0].Goodput; assert.Equal(t, scenario == "overload", g != nil) && g != nil {
				for _, of := range []bench.Stat{g.Before, g.Under, g.After, g.Share} {
					assert.Positive(t, of.Median, "%+v", g)
				}
			}
			assert.NotNil(t, r.Targets[0].TargetCPU)
			assert.Greater(t, r.Targets[0].Memory.Resident.Median, 1e6)
		})
	}
}

// Peers are measured in the same runs, and compared with the node.
func TestPeers(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	var args []string
	for _, name := range peer.Names() {
		if err := peer.Check(name); err != nil {
			longtest.Missing(t, err.Error())
		}
		args = append(args, "--peer="+name)
	}
	plots := t.TempDir()
	r := runScenario(t, "lifecycle", append(args, "--connections=8", "--users=100", "--runs=1",
		"--duration=200ms", "--warmup=0s", "--out="+plots)...)
	require.Len(t, r.Targets, 1+len(args))
	for _, target := range r.Targets {
		assert.Empty(t, target.Faults, target.Name)
		require.Len(t, target.Calls, 3, target.Name)
	}
	assert.Len(t, r.Ratios, 3*len(args))
	files, err := filepath.Glob(filepath.Join(plots, "*.svg"))
	require.NoError(t, err)
	assert.Len(t, files, 6)
	for _, f := range files {
		text, err := os.ReadFile(f)
		require.NoError(t, err)
		require.NoError(t, xml.Unmarshal(text, new(struct{})), f)
	}
}

// The scenario scale measures the CPU time and the memory of nodes and of peers.
func TestScale(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	if err := peer.Check("plain"); err != nil {
		longtest.Missing(t, err.Error())
	}
	r := runScenario(t, "scale", "--viewers=4000", "--connections=16", "--duration=500ms", "--heartbeat=1s", "--ttl=60s", "--others=20",
		"--against="+nodeBinary(t), "--peer=plain")
	assert.Contains(t, r.BaseVersion, "streamcount ")
	require.Len(t, r.Targets, 3)
	for _, target := range r.Targets {
		assert.Empty(t, target.Faults, target.Name)
		require.Len(t, target.Steps, 1, target.Name)
		figures := target.Steps[0].Figures
		assert.InDelta(t, 4000, figures["streams"].Median, 0)
		for _, name := range []string{
			"startsPerSecond", "startCPUMicros", "stopCPUMicros", "heartbeatCPUMicros", "residentBytes",
			"startP50Millis", "stopP50Millis", "heartbeatP50Millis", "batchedP99Millis", "generatorShare",
		} {
			assert.Positive(t, figures[name].Median, "%s of %s", name, target.Name)
		}
	}
	assert.NotContains(t, r.Targets[2].Steps[0].Figures, "liveBytes", "Redis has most of it")
	assert.Len(t, r.StepRatios, 2)
}

// startNode starts a node and returns its URL.
func startNode(t *testing.T, args ...string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it returns at once
	require.NoError(t, err)
	addr := ln.Addr().String()
	require.NoError(t, ln.Close())
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), nodeBinary(t),
		append([]string{"serve", "--listen=" + addr, "--data-dir=" + t.TempDir(), "--log-level=error"}, args...)...)
	cmd.Env = withoutSettings(os.Environ())
	node, err := child.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() { node.Stop(time.Minute) })
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + addr + "/readyz") //nolint:noctx // bounded by Eventually
		return err == nil && resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	}, time.Minute, 10*time.Millisecond)
	return "http://" + addr
}

func TestRunningServer(t *testing.T) {
	server := startNode(t, "--limit=2")
	out, stderr := runCommand(t, exitOK, "startstorm", "--server="+server, "--viewers=60", "--per-user=3",
		"--over=200ms", "--runs=2", "--connections=4")
	assert.Contains(t, out, "\nstreamcount  start  ")
	assert.Contains(t, out, "  none\n")
	assert.Contains(t, out, "streamcount-bench startstorm --server="+server+" --viewers=60 --per-user=3 --over=200ms")
	assert.Contains(t, out, "Medians of 2 runs.")
	assert.Contains(t, stderr, "run 2 of 2, streamcount\n")
	_, stderr = runCommand(t, exitUsage, "startstorm", "--server="+server, "--limit=2")
	assert.Contains(t, stderr, "--limit: cannot be combined with --server")
}

func TestAttack(t *testing.T) {
	longtest.Require(t)
	out, _ := runCommand(t, exitOK, "attack", "idle", "--server="+startNode(t), "--connections=3", "--duration=3s")
	assert.Contains(t, out, "idle over 3 connections for 3s\n  from 127.0.0.1  start ")
	assert.Contains(t, out, "\n  from 127.0.0.2  stop ")
}

// The keys that a benchmark writes to an external etcd are deleted.
func TestExternalEtcd(t *testing.T) {
	r := runScenario(t, "startstorm", "--etcd-endpoints="+strings.Join(etcdtest.Endpoints(t), ","),
		"--peer=naive", "--viewers=40", "--connections=4", "--over=200ms", "--runs=1")
	assert.Len(t, r.Targets, 2)
	resp, err := etcdtest.Client(t).Get(t.Context(), "/streamcount-bench-", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	assert.Zero(t, resp.Count)
}

// An interrupt ends the benchmark and every process that it has started.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0],
		"lifecycle", "--duration=1h", "--dir="+dir, "--binary="+nodeBinary(t))
	cmd.Env = testEnviron()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	process, err := child.Start(cmd)
	require.NoError(t, err)
	defer process.Kill()
	require.Eventually(t, func() bool {
		data, err := filepath.Glob(filepath.Join(dir, "streamcount-bench-*", "data", "member"))
		return err == nil && len(data) == 1
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	select {
	case <-process.Done():
	case <-time.After(time.Minute):
		require.Fail(t, "the process does not exit")
	}
	assert.Equal(t, exitError, cmd.ProcessState.ExitCode())
	assert.Contains(t, stderr.String(), "streamcount-bench: interrupted\n")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}

func TestVerdict(t *testing.T) {
	r := &bench.Report{Targets: []bench.TargetReport{{Faults: []bench.Fault{
		{Kind: "overload answers", Count: 9, Harmless: true},
	}}}}
	require.NoError(t, verdict(r))
	r.Targets[0].Faults = append(r.Targets[0].Faults, bench.Fault{Kind: "lost streams", Count: 2, Example: "maya's"})
	require.EqualError(t, verdict(r), "the node failed the benchmark's checks: 2 lost streams (for example: maya's)")
}
