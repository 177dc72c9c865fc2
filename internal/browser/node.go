package browser

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/internal/bench/child"
)

// A Node is the service as a process of its own, with an etcd of its own.
type Node struct {
	// URL is where it is, also after it was started again.
	URL string

	tb      testing.TB
	args    []string
	process *child.Process
	out     *output
}

// StartNode runs "streamcount serve" with args on a free port until the test
// ends. Unless args say otherwise its TTL is the shortest there is, 5 s.
func StartNode(tb testing.TB, args ...string) *Node {
	tb.Helper()
	need(tb) // a node without a browser is of no use here, and takes a while to build
	dir := filepath.Join(tb.TempDir(), "data")
	n := &Node{tb: tb, args: append([]string{"serve", "--data-dir=" + dir, "--ttl=5s"}, args...)}
	n.start("127.0.0.1:0")
	tb.Cleanup(func() {
		n.Stop()
		if tb.Failed() {
			tb.Logf("the node wrote:\n%s", n.out)
		}
	})
	return n
}

// binary builds the program, once for all tests of a package.
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

// root is the folder of the module.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

var servingAt = regexp.MustCompile(`serving (http://\S+) on`)

func (n *Node) start(listen string) {
	n.tb.Helper()
	path, err := binary()
	require.NoError(n.tb, err)
	n.out = &output{}
	cmd := exec.CommandContext(context.Background(), path, append(n.args, "--listen="+listen)...)
	cmd.Stdout, cmd.Stderr = n.out, n.out
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { // those for tests mean nothing to a node
		return strings.HasPrefix(v, "STREAMCOUNT_")
	})
	n.process, err = child.Start(cmd)
	require.NoError(n.tb, err)
	deadline := time.Now().Add(Patience)
	for n.URL == "" || !servingAt.MatchString(n.out.String()) {
		if found := servingAt.FindStringSubmatch(n.out.String()); found != nil {
			n.URL = found[1]
			continue
		}
		select {
		case <-n.process.Done():
			require.Fail(n.tb, "the node has ended", "%v\n%s", n.process.Err(), n.out)
		case <-time.After(5 * time.Millisecond):
			require.False(n.tb, time.Now().After(deadline), "the node is not ready:\n%s", n.out)
		}
	}
}

// Stop ends the node as an operator does. It may be called more than once.
func (n *Node) Stop() {
	_ = n.signal(syscall.SIGCONT) // it may be frozen
	n.process.Stop(Patience)
}

// Kill ends the node without a word.
func (n *Node) Kill() {
	_ = n.signal(syscall.SIGKILL)
	<-n.process.Done()
}

// Restart starts the node again, at the same address and on the same data. It
// must have ended.
func (n *Node) Restart() {
	n.tb.Helper()
	n.start(strings.TrimPrefix(n.URL, "http://"))
}

// Freeze makes the node take connections and answer nothing, until it is thawed.
func (n *Node) Freeze() { require.NoError(n.tb, n.signal(syscall.SIGSTOP)) }

// Thaw ends a Freeze.
func (n *Node) Thaw() { require.NoError(n.tb, n.signal(syscall.SIGCONT)) }

func (n *Node) signal(s syscall.Signal) error { return syscall.Kill(n.process.PID(), s) }

// Call makes one request, beside the browser, and decodes the answer into out
// unless that is nil. It returns the status.
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

// An output may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
