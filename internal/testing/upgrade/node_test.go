// Package upgrade tests a rolling upgrade: the binary of an earlier version and this one serve
// the same users from one etcd.
package upgrade

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
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

	"streamcount/api/apitype"
	"streamcount/internal/bench/child"
	"streamcount/internal/retry"
	"streamcount/internal/testing/testlog"
)

// oldCommit is the commit of the earlier version, which has no plans with several limits and
// ignores members of plans that it does not have. .ci/run fetches it.
//
//go:embed testdata/commit
var oldCommit string

// patience is how long a test waits for a condition.
const patience = 2 * time.Minute

// root is the directory of the module.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// command runs a program in dir, and returns its output.
func command(t *testing.T, dir, name string, args ...string) ([]byte, error) {
	t.Helper()
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errOut
	err := cmd.Run()
	if err != nil {
		t.Logf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &errOut)
	}
	return out.Bytes(), err
}

// oldSource returns a directory with the source of the earlier version. It skips the test in
// a clone without its history.
func oldSource(t *testing.T) string {
	t.Helper()
	commit := strings.TrimSpace(oldCommit)
	if _, err := command(t, root(), "git", "cat-file", "-e", commit+"^{commit}"); err != nil {
		t.Skipf("the clone has no commit %s: fetch its history", commit)
	}
	archive, err := command(t, root(), "git", "archive", "--format=tar", commit)
	require.NoError(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, "source.tar")
	require.NoError(t, os.WriteFile(file, archive, 0o600))
	_, err = command(t, dir, "tar", "xf", file)
	require.NoError(t, err)
	return dir
}

// build builds the service from the source in dir.
func build(t *testing.T, dir string) (binary string) {
	t.Helper()
	binary = filepath.Join(t.TempDir(), "streamcount")
	_, err := command(t, dir, "go", "build", "-buildvcs=false", "-o", binary, "./cmd/streamcount")
	require.NoError(t, err)
	return binary
}

// A node is a process of the service.
type node struct {
	t       *testing.T
	url     string
	process *child.Process
	out     *testlog.Buffer
}

var servingAt = regexp.MustCompile(`serving (http://\S+) on`)

// serve runs a node with a binary until the test ends.
func serve(t *testing.T, binary, name, etcd string) *node {
	t.Helper()
	n := &node{t: t, out: &testlog.Buffer{}}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, "serve", "--listen=127.0.0.1:0",
		"--etcd-endpoints="+etcd, "--node="+name, "--region=eu", "--limit=3", "--ttl=60s")
	cmd.Stdout, cmd.Stderr = n.out, n.out
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // a node rejects the variables for tests
		return strings.HasPrefix(v, "STREAMCOUNT_")
	})
	var err error
	n.process, err = child.Start(cmd)
	require.NoError(t, err)
	t.Cleanup(func() {
		n.process.Stop(patience)
		if t.Failed() {
			t.Logf("output of %s:\n%s", name, n.out)
		}
	})
	n.eventually(func() bool {
		if found := servingAt.FindStringSubmatch(n.out.String()); found != nil {
			n.url = found[1]
		}
		return n.url != ""
	}, "%s is ready", name)
	return n
}

// try makes one request. It returns the status, or 0 without an answer, and the body.
func (n *node) try(method, path, body string) (int, []byte) {
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, n.url+path, strings.NewReader(body))
	if err != nil {
		return 0, nil
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	var out bytes.Buffer
	if _, err := out.ReadFrom(resp.Body); err != nil {
		return 0, nil
	}
	return resp.StatusCode, out.Bytes()
}

// call makes one request, checks its status, and decodes the answer into out unless out is
// nil. It repeats a request that had no answer in time, unless that is expected.
func (n *node) call(want int, out any, method, path, body string) {
	n.t.Helper()
	status, answer := n.try(method, path, body)
	for began := time.Now(); status != want && (status == 503 || status == 0) && time.Since(began) < patience; {
		if retry.Sleep(n.t.Context(), 100*time.Millisecond) != nil {
			break
		}
		status, answer = n.try(method, path, body)
	}
	require.Equal(n.t, want, status, "%s %s %s: %s", method, path, body, answer)
	if out != nil {
		require.NoError(n.t, json.Unmarshal(answer, out), "%s", answer)
	}
}

// stats returns the statistics, or zero if the node does not answer.
func (n *node) stats() (s apitype.Stats) {
	if status, body := n.try("GET", "/api/v1/stats", ""); status != 200 || json.Unmarshal(body, &s) != nil {
		return apitype.Stats{}
	}
	return s
}

// eventually waits for a condition.
func (n *node) eventually(condition func() bool, format string, args ...any) {
	n.t.Helper()
	require.Eventuallyf(n.t, condition, patience, 20*time.Millisecond, format, args...)
}
