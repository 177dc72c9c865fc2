package main

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/bench"
	"streamcount/internal/bench/peer"
	"streamcount/internal/etcdtest"
)

// benchEnviron makes the targets of a benchmark be this test's own binary.
func benchEnviron() []string {
	return []string{asMain + "=1", "PATH=" + os.Getenv("PATH"), "STREAMCOUNT_LIMIT=1"} // the last must not matter
}

// benchmark runs one without fault, and wants it to leave nothing behind.
func benchmark(t *testing.T, scenario string, args ...string) bench.Report {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench") //nolint:usetesting // t.TempDir is too long for a socket's address
	require.NoError(t, err)
	defer func() { assert.NoError(t, os.RemoveAll(dir)) }()
	c := cli{t: t, environ: benchEnviron()}
	var out, errOut buffer
	got := run(t.Context(), append([]string{"bench", scenario, "--json", "--dir=" + dir}, args...), c.environ, &out, &errOut)
	require.Equal(t, exitOK, got, "%s%s", &out, &errOut)
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left, "directories are removed")
	var r bench.Report
	require.NoError(t, json.Unmarshal([]byte(out.String()), &r))
	return r
}

// Every scenario finds a real node without fault.
func TestBench_Scenarios(t *testing.T) {
	t.Parallel() // most of the time is spent waiting
	for scenario, args := range map[string]string{
		"lifecycle": "--duration=500ms --warmup=100ms --runs=1",
		"heartbeat": "--duration=500ms --warmup=0s --runs=1 --viewers=200 --rate=500",
		"refused":   "--duration=500ms --warmup=0s --runs=1 --users=50",
		"kickoff":   "--viewers=200 --over=500ms --runs=1 --per-user=4",
		"whistle":   "--viewers=200 --over=500ms --runs=1 --per-user=2",
		"blackout":  "--viewers=150 --over=500ms --others=20 --ttl=5s",
		"mixed":     "--viewers=200 --duration=1s --heartbeat=500ms --session=2s --batch=10",
		"overload":  "--viewers=200 --duration=1s --warmup=1s --heartbeat=1s",
		"soak":      "--viewers=200 --duration=1s --heartbeat=1s --others=20 --restart",
	} {
		t.Run(scenario, func(t *testing.T) {
			t.Parallel()
			r := benchmark(t, scenario, append(strings.Fields(args), "--connections=16")...)
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

// Peers are visited in the same runs, and compared.
func TestBench_Peers(t *testing.T) {
	t.Parallel()
	var args []string
	for _, name := range peer.Names() {
		if err := peer.Check(name); err != nil {
			if os.Getenv("STREAMCOUNT_REQUIRE_ALL") != "" {
				require.NoError(t, err)
			}
			t.Log("without", name, ":", err)
			continue
		}
		args = append(args, "--peer="+name)
	}
	plots := t.TempDir()
	r := benchmark(t, "lifecycle", append(args, "--connections=8", "--users=100", "--runs=1",
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

func TestBench_RunningServer(t *testing.T) {
	_, c := serve(t, "--data-dir="+t.TempDir(), "--limit=2")
	c.environ = benchEnviron()
	out, stderr := c.run(exitOK, "bench", "kickoff", "--server="+c.server, "--viewers=60", "--per-user=3",
		"--over=200ms", "--runs=2", "--connections=4")
	assert.Contains(t, out, "\nstreamcount  start  ")
	assert.Contains(t, out, "  none\n")
	assert.Contains(t, out, "streamcount bench kickoff --server="+c.server+" --viewers=60 --per-user=3 --over=200ms")
	assert.Contains(t, out, "Medians of 2 runs.")
	assert.Contains(t, stderr, "run 2 of 2, streamcount\n")
	_, stderr = c.run(exitUsage, "bench", "kickoff", "--server="+c.server, "--limit=2")
	assert.Contains(t, stderr, "--limit: is the server's own: leave it out")
}

// What a benchmark writes into somebody's etcd is gone afterwards.
func TestBench_OnAnotherEtcd(t *testing.T) {
	r := benchmark(t, "kickoff", "--etcd-endpoints="+strings.Join(etcdtest.Endpoints(t), ","),
		"--peer=naive", "--viewers=40", "--connections=4", "--over=200ms", "--runs=1")
	assert.Len(t, r.Targets, 2)
	resp, err := etcdtest.Client(t).Get(t.Context(), "/streamcount-bench-", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	assert.Zero(t, resp.Count)
}

func TestBench_Usage(t *testing.T) {
	for args, want := range map[string]string{
		"bench lifecycel":                        `there is no scenario "lifecycel" (did you mean lifecycle?): the scenarios are`,
		"bench lifecycle now":                    `want streamcount bench lifecycle`,
		"bench lifecycle --rate=0":               `want max, or arrivals a second such as 500`,
		"bench lifecycle --viewers=3":            `unknown flag: --viewers`,
		"bench lifecycle --peer=memcached":       `--peer: there is no peer "memcached"`,
		"bench refused --peer=noop":              `--peer: noop keeps no limit`,
		"bench soak --heartbeat=60s":             `--heartbeat: want at most half the TTL (1m30s)`,
		"bench kickoff --server=127.0.0.1":       `--server: server`,
		"bench soak --etcd-endpoints=u:pw@h:1":   `--etcd-endpoints: want no user in an address`,
		"bench peer noop":                        `--data-dir: want a directory`,
		"bench peer memcached --data-dir=/tmp/x": `there is no peer "memcached"`,
	} {
		_, stderr := cli{t: t}.run(exitUsage, strings.Fields(args)...)
		assert.Contains(t, stderr, want)
	}
	out, _ := cli{t: t}.run(exitOK, "bench")
	for _, s := range bench.Scenarios() {
		assert.Contains(t, out, s.Name+" ")
	}
	assert.NotContains(t, out, "Serve a benchmark's peer")
}

// Ctrl-C ends the benchmark and everything that it has started.
func TestBench_Interrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, _, stderr := process(t, "bench", "lifecycle", "--duration=1h", "--dir="+dir)
	require.Eventually(t, func() bool {
		data, err := filepath.Glob(filepath.Join(dir, "streamcount-bench-*", "data", "member"))
		return err == nil && len(data) == 1
	}, time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	wait(t, cmd, 20*time.Second)
	assert.Equal(t, exitError, cmd.ProcessState.ExitCode())
	assert.Contains(t, stderr.String(), "streamcount: interrupted\n")
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
	require.EqualError(t, verdict(r), "the node failed the benchmark's checks: 2 lost streams (such as: maya's)")
	assert.Equal(t, exitError, exitCode(verdict(r)))
}
