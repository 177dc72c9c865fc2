package containers

import (
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// A container may use 128 MiB, less than the garbage that a node without a budget leaves
// until it collects. The node takes the limit of its cgroup as its budget, starts 20,000
// streams and is not killed.
func TestNode_MemoryLimitOfContainer(t *testing.T) {
	longtest.Require(t, "docker")
	const streams, callers = 20_000, 64
	address := freeAddress(t)
	id := strings.TrimSpace(output(t, "docker", "run", "--detach", "--memory=128m", "--memory-swap=128m",
		"--publish", address+":3000", nodeImage(t), "serve", "--auth-none", "--ttl=1h"))
	t.Cleanup(func() { output(t, "docker", "rm", "--force", "--volumes", id) })
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	call := func(method, path string) (status int, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+path, nil)
		if err != nil {
			return 0, err.Error()
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			return 0, err.Error()
		}
		return resp.StatusCode, string(text)
	}
	require.Eventually(t, func() bool {
		status, _ := call(http.MethodGet, "/readyz")
		return status == http.StatusOK
	}, time.Minute, 50*time.Millisecond)
	var all sync.WaitGroup
	for c := range callers {
		all.Go(func() {
			for user := c; user < streams; user += callers {
				path := fmt.Sprintf("/api/v1/streams/users/user-%d/start", user)
				status, body := call(http.MethodPost, path)
				for status == http.StatusServiceUnavailable { // the node sheds load
					status, body = call(http.MethodPost, path)
				}
				if !assert.Equal(t, http.StatusOK, status, body) {
					return
				}
			}
		})
	}
	all.Wait()
	_, metrics := call(http.MethodGet, "/metrics")
	assert.Contains(t, metrics, "\nstreamcount_memory_budget_bytes 1.34217728e+08\n")
	assert.Contains(t, metrics, fmt.Sprintf("\nstreamcount_streams{shard=\"default\"} %d\n", streams))
	state, err := exec.Command("docker", "inspect", "--format", "{{.State.OOMKilled}} {{.RestartCount}}", id).Output()
	require.NoError(t, err)
	assert.Equal(t, "false 0\n", string(state))
}
