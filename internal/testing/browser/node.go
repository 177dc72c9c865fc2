package browser

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/internal/bench/child"
	"streamcount/internal/testing/longtest"
	"streamcount/internal/testing/testlog"
)

// A Node is a process of the service with an embedded etcd.
type Node struct {
	// URL is the node's address, which a restart does not change.
	URL string

	tb      testing.TB
	args    []string
	process *child.Process
	out     *testlog.Buffer
}

// StartNode runs "streamcount serve" with args on a free port until the test ends. The
// default TTL is the minimum, 5 s.
func StartNode(tb testing.TB, args ...string) *Node {
	tb.Helper()
	longtest.Require(tb) // before the slow build of the binary
	dir := filepath.Join(tb.TempDir(), "data")
	n := &Node{tb: tb, args: append([]string{"serve", "--data-dir=" + dir, "--ttl=5s"}, args...)}
	n.start("127.0.0.1:0")
	tb.Cleanup(func() {
		n.Stop()
		if tb.Failed() {
			tb.Logf("output of the node:\n%s", n.out)
		}
	})
	return n
}

// binary builds the service's binary, once for all tests of a package.
func binary() (string, error) {
	return shared.binary.get(func() (string, error) {
		path := filepath.Join(shared.dir, "streamcount")
		build := exec.CommandContext(context.Background(), "go", "build", "-o", path, "./cmd/streamcount")
		build.Dir = root()
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build streamcount: %w\n%s", err, out)
		}
		return path, nil
	})
}

// root returns the directory of the module.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

var servingAt = regexp.MustCompile(`serving (http://\S+) on`)

func (n *Node) start(listen string) {
	n.tb.Helper()
	path, err := binary()
	require.NoError(n.tb, err)
	n.out = &testlog.Buffer{}
	cmd := exec.CommandContext(context.Background(), path, append(n.args, "--listen="+listen)...)
	cmd.Stdout, cmd.Stderr = n.out, n.out
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // a node rejects the variables for tests
		return strings.HasPrefix(v, "STREAMCOUNT_")
	})
	n.process, err = child.Start(cmd)
	require.NoError(n.tb, err)
	deadline := time.Now().Add(Timeout)
	for n.URL == "" || !servingAt.MatchString(n.out.String()) {
		if found := servingAt.FindStringSubmatch(n.out.String()); found != nil {
			n.URL = found[1]
			continue
		}
		select {
		case <-n.process.Done():
			require.Fail(n.tb, "the node has exited", "%v\n%s", n.process.Err(), n.out)
		case <-time.After(5 * time.Millisecond):
			require.False(n.tb, time.Now().After(deadline), "the node is not ready:\n%s", n.out)
		}
	}
}

// Stop shuts the node down in an orderly way. It may be called more than once.
func (n *Node) Stop() {
	_ = thaw(n.process.PID()) // it may be frozen
	n.process.Stop(Timeout)
}

// Kill kills the node.
func (n *Node) Kill() {
	n.process.Kill()
}

// Restart starts the node again with the same address and data. The node must not be
// running.
func (n *Node) Restart() {
	n.tb.Helper()
	n.start(strings.TrimPrefix(n.URL, "http://"))
}

// Freeze stops the node's process until Thaw, so that it accepts connections and does not
// answer. It skips the test on systems that cannot stop a process.
func (n *Node) Freeze() {
	n.tb.Helper()
	err := freeze(n.process.PID())
	if errors.Is(err, errors.ErrUnsupported) {
		n.tb.Skip("this system cannot stop and continue a process")
	}
	require.NoError(n.tb, err)
}

// Thaw continues the node's process after Freeze.
func (n *Node) Thaw() { require.NoError(n.tb, thaw(n.process.PID())) }

// Call makes one request without the browser, decodes the answer into out unless out is
// nil, and returns the status.
func (n *Node) Call(method, path, body string, out any) int {
	n.tb.Helper()
	req, err := http.NewRequestWithContext(n.tb.Context(), method, n.URL+path, strings.NewReader(body))
	require.NoError(n.tb, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(n.tb, err)
	defer func() { _ = resp.Body.Close() }()
	if out != nil {
		require.NoError(n.tb, json.NewDecoder(resp.Body).Decode(out))
	}
	return resp.StatusCode
}
