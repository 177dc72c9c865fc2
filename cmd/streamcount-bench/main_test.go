package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
)

// runAsMain makes the test binary run as streamcount-bench, which serves the peers.
const runAsMain = "RUN_AS_STREAMCOUNT_BENCH"

func TestMain(m *testing.M) {
	if os.Getenv(runAsMain) != "" {
		main()
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	defer func() { removeNode() }()
	return etcdtest.Main(m)
}

var removeNode = func() {} // set by buildOnce

var buildOnce = sync.OnceValues(func() (string, error) {
	path, remove, err := buildNode(context.Background(), "streamcount")
	removeNode = remove
	return path, err
})

// nodeBinary returns the path of a streamcount binary, which the first call builds.
func nodeBinary(t *testing.T) string {
	t.Helper()
	path, err := buildOnce()
	require.NoError(t, err)
	return path
}

// testEnviron is the environment of the targets. The setting in it must have no effect.
func testEnviron() []string {
	return []string{runAsMain + "=1", "PATH=" + os.Getenv("PATH"), "STREAMCOUNT_LIMIT=1"}
}

// runCommand runs a command line, requires its exit code, and returns its output.
func runCommand(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	got := run(t.Context(), args, testEnviron(), &out, &errOut)
	require.Equal(t, code, got, "streamcount-bench %s\n%s%s", strings.Join(args, " "), &out, &errOut)
	if code == exitUsage {
		assert.Equal(t, 1, strings.Count(errOut.String(), "\n"), "one line: %s", &errOut)
		assert.True(t, strings.HasPrefix(errOut.String(), "streamcount-bench: "))
	}
	return out.String(), errOut.String()
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"lifecycel":                                 `there is no scenario "lifecycel" (did you mean lifecycle?): the scenarios are lifecycle, `,
		"lifecycle now":                             `want streamcount-bench lifecycle`,
		"lifecycle --rate=0":                        `want max, or arrivals per second such as 500`,
		"lifecycle --viewers=3":                     `unknown flag: --viewers`,
		"lifecycle --peer=memcached":                `--peer: there is no peer "memcached"`,
		"lifecycle --binary=/no/such/file":          `--binary: `,
		"lifecycle --against=/no/such/file":         `--against: `,
		"refused --peer=noop":                       `--peer: noop enforces no limit`,
		"soak --heartbeat=60s":                      `--heartbeat: want at most half the TTL (1m30s)`,
		"startstorm --server=127.0.0.1":             `--server: server`,
		"soak --etcd-endpoints=u:pw@h:1":            `--etcd-endpoints: want no user in an address`,
		"peer noop":                                 `--data-dir: want a directory`,
		"peer memcached --data-dir=/tmp/x":          `there is no peer "memcached"`,
		"attack nothing":                            `there is no attack "nothing": the attacks are batch, `,
		"attack idle --server=http://10.0.0.1:3000": `want a loopback address`,
		"attack idle --duration=1s":                 `want more than 2s`,
		"edge all":                                  `want streamcount-bench edge`,
		"edge check --viewers=3":                    `--viewers: want 128, the number of connections, to 1000000`,
		"edge viewers --segment=2s":                 `--segment: want 3s to 30s`,
		"edge viewers --proxy=squid":                `--proxy: there is no proxy "squid"`,
	} {
		_, stderr := runCommand(t, exitUsage, strings.Fields(args)...)
		assert.Contains(t, stderr, want)
	}
}

func TestHelp(t *testing.T) {
	out, _ := runCommand(t, exitOK)
	for _, name := range []string{"lifecycle", "overload", "attack", "edge", "redis"} {
		assert.Contains(t, out, "\n  "+name+" ")
	}
	assert.NotContains(t, out, "Serve a peer")
	for _, cmd := range (&app{}).root().Commands() {
		for line := range strings.SplitSeq(cmd.Long, "\n") {
			assert.LessOrEqual(t, len(line), 115, "%s: %q", cmd.Name(), line)
		}
		if !cmd.Hidden {
			assert.NotEmpty(t, cmd.Example, cmd.Name())
		}
	}
	out, _ = runCommand(t, exitOK, "--version")
	assert.Regexp(t, `^streamcount-bench .*go1\.\d+.*\n$`, out)
}

func TestComplete(t *testing.T) {
	for line, want := range map[string]string{
		"lif":               "lifecycle\tStart and stop streams\n:4\n",
		"lifecycle --peer ": "redis\nredis-nofsync\nplain\nnaive\netcd\nnoop\nnoop-api\n:4\n",
		"lifecycle --out ":  ":16\n",
		"lifecycle ":        ":4\n",
		"attack i":          "idle\n:4\n",
	} {
		out, _ := runCommand(t, exitOK, append([]string{"__complete"}, strings.Split(line, " ")...)...)
		assert.Equal(t, want, out, line)
	}
}

func TestMan(t *testing.T) {
	dir := t.TempDir()
	runCommand(t, exitOK, "man", dir)
	for _, file := range []string{"streamcount-bench.1", "streamcount-bench-lifecycle.1", "streamcount-bench-attack.1"} {
		page, err := os.ReadFile(filepath.Join(dir, file))
		require.NoError(t, err)
		assert.Contains(t, string(page), ".SH EXIT STATUS\n", file)
	}
}

func TestFindNode(t *testing.T) {
	dir := t.TempDir()
	self, node := filepath.Join(dir, "streamcount-bench"), filepath.Join(dir, "streamcount")
	t.Setenv("PATH", "")
	_, _, err := findNode(t.Context(), "", self)
	require.ErrorContains(t, err, "go build -o bin/ ./cmd/streamcount ./cmd/streamcount-bench")
	require.NoError(t, os.WriteFile(node, nil, 0o700)) //nolint:gosec // it must be executable
	path, _, err := findNode(t.Context(), "", self)
	require.NoError(t, err)
	assert.Equal(t, node, path, "beside the binary")
	t.Setenv("PATH", dir)
	path, _, err = findNode(t.Context(), "", "/elsewhere/streamcount-bench")
	require.NoError(t, err)
	assert.Equal(t, node, path, "in PATH")
	path, _, err = findNode(t.Context(), node, "/elsewhere/streamcount-bench")
	require.NoError(t, err)
	assert.Equal(t, node, path)
}
