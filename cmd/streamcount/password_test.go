package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/api/apitype"
	"streamcount/internal/testing/etcdtest"
)

// A poller sends requests to a node repeatedly, and counts the status codes.
type poller struct {
	mu      sync.Mutex
	codes   map[int]int
	slowest time.Duration
}

func (e *poller) run(ctx context.Context, url func(n int) string) {
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond):
		}
		began := time.Now()
		code := 0
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url(n), nil)
		if err != nil {
			return
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			code = resp.StatusCode
			_, _ = io.Copy(io.Discard, resp.Body) // so that the connection is used again
			_ = resp.Body.Close()
		}
		if ctx.Err() != nil {
			return
		}
		e.mu.Lock()
		e.codes[code]++
		e.slowest = max(e.slowest, time.Since(began))
		e.mu.Unlock()
	}
}

// take returns the counts since the last call.
func (e *poller) take() (codes map[int]int, slowest time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	codes, slowest = e.codes, e.slowest
	e.codes, e.slowest = map[int]int{}, 0
	return codes, slowest
}

// await waits until n more requests returned code.
func (e *poller) await(t *testing.T, n, code int) {
	t.Helper()
	e.take()
	require.Eventually(t, func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.codes[code] >= n
	}, time.Minute, 5*time.Millisecond, "answers %d", code)
}

// The password of the etcd user is changed while a node serves: first in the file and then in
// etcd, and in the other order. No stream is lost.
func TestServe_PasswordRotation(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.StartCluster(t, 3)
	flags, file := etcdAccount(t, etcd.Client(t), etcd.Endpoints()...)
	root, err := clientv3.New(clientv3.Config{
		Endpoints: etcd.Endpoints(), Username: "root", Password: "r", DialTimeout: 5 * time.Second,
	})
	require.NoError(t, err)
	defer root.Close()
	write := func(password string) {
		t.Helper()
		require.NoError(t, os.WriteFile(file+".new", []byte(password), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	change := func(password string) {
		t.Helper()
		_, err := root.UserChangePassword(t.Context(), "streamcount", password)
		require.NoError(t, err)
	}
	p, c := serve(t, append(flags, "--ttl=30s")...)
	var started apitype.User
	c.json(exitOK, &started, "start", "maya")
	users := c.server + "/api/v1/streams/users/"
	starts, heartbeats := &poller{codes: map[int]int{}}, &poller{codes: map[int]int{}}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { starts.run(ctx, func(n int) string { return fmt.Sprintf("%su%d/start", users, n) }) })
	running.Go(func() {
		heartbeats.run(ctx, func(int) string { return users + "maya/streams/" + started.Stream.ID + "/heartbeat" })
	})
	starts.await(t, 3, http.StatusOK)

	write("second")
	starts.await(t, 3, http.StatusOK)
	starts.take()
	change("second")
	require.Eventually(t, func() bool {
		starts.mu.Lock()
		defer starts.mu.Unlock()
		return starts.codes[http.StatusOK] >= 10
	}, time.Minute, 5*time.Millisecond)
	codes, slowest := starts.take()
	assert.NotContains(t, p.errOut.String(), "authentication failed", "the file first: etcd accepts each start")
	t.Log("file first: starts", codes, slowest)

	change("third")
	starts.await(t, 10, http.StatusServiceUnavailable)
	codes, slowest = starts.take()
	t.Log("etcd first: starts", codes, slowest)
	assert.Less(t, slowest, time.Minute, "503 after a bounded time")
	code, body := status(t, c.server+"/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, code)
	assert.Contains(t, body, "etcd does not accept this node's user or password")
	write("third")
	began := time.Now()
	starts.await(t, 3, http.StatusOK)
	t.Log("served again after", time.Since(began))
	code, _ = status(t, c.server+"/readyz")
	assert.Equal(t, http.StatusOK, code)

	etcd.MoveLeader(t, (etcd.Leader(t)+1)%3)
	starts.await(t, 10, http.StatusOK)
	codes, slowest = heartbeats.take()
	t.Log("heartbeats", codes, slowest)
	assert.Equal(t, map[int]int{http.StatusOK: codes[http.StatusOK]}, codes)
	var now apitype.User
	c.json(exitOK, &now, "ls", "maya")
	require.Len(t, now.Active, 1)
	assert.Equal(t, started.Stream.ID, now.Active[0].ID)
}
