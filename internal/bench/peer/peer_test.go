package peer

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"streamcount/internal/testing/longtest"
	"streamcount/lease"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// serve runs a peer and returns its address.
func serve(t *testing.T, name string, ttl time.Duration) string {
	t.Helper()
	if err := Check(name); err != nil {
		longtest.Missing(t, err.Error())
	}
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "peer") //nolint:usetesting // the path of t.TempDir is too long for a socket
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{
			Name: name, Dir: dir, Limit: 2, TTL: ttl, EtcdPrefix: "/peer", Log: slog.New(slog.DiscardHandler),
		}, ln, func() { close(ready) })
	}()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		assert.NoError(t, <-ended)
		assert.NoError(t, os.RemoveAll(dir))
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		require.NoError(t, err)
	}
	return "http://" + ln.Addr().String()
}

type answer struct {
	Streams, Limit int
	Stream         struct {
		ID         string
		TTLSeconds int
	}
	Alive int
	Ended []struct{ StreamID, Reason string }
}

// ask makes one HTTP call and requires a status.
func ask(t *testing.T, status int, method, url, body string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	require.NoError(t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, status, resp.StatusCode, "%s %s: %s", method, url, text)
	var a answer
	if !strings.HasSuffix(url, "/readyz") {
		require.NoError(t, json.Unmarshal(text, &a))
	}
	return a
}

const users = "/api/v1/streams/users/"

// The peers that enforce the limit answer as streamcount does.
func TestPeers_EnforceLimit(t *testing.T) {
	for _, name := range Names() {
		if !EnforcesLimit(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			url := serve(t, name, 90*time.Second)
			maya := url + users + "maya"
			ask(t, 404, "GET", maya, "")
			first := ask(t, 200, "POST", maya+"/start", "")
			assert.Equal(t, 1, first.Streams)
			assert.Equal(t, 2, first.Limit)
			assert.Equal(t, 90, first.Stream.TTLSeconds)
			second := ask(t, 200, "POST", maya+"/start", "")
			assert.Equal(t, 2, second.Streams)
			assert.NotEqual(t, first.Stream.ID, second.Stream.ID)
			ask(t, 403, "POST", maya+"/start", "")
			third := ask(t, 200, "POST", maya+"/start", `{"replaces":"`+first.Stream.ID+`"}`)
			assert.Equal(t, 2, third.Streams)
			assert.Equal(t, 2, ask(t, 200, "GET", maya, "").Streams)

			streams := maya + "/streams/"
			ask(t, 200, "POST", streams+second.Stream.ID+"/heartbeat", "")
			ask(t, 410, "POST", streams+first.Stream.ID+"/heartbeat", "")
			batch := ask(t, 200, "POST", url+"/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"maya","streamId":"`+
				third.Stream.ID+`"},{"userId":"maya","streamId":"`+first.Stream.ID+`"}]}`)
			assert.Equal(t, 1, batch.Alive)
			require.Len(t, batch.Ended, 1)
			assert.Equal(t, first.Stream.ID, batch.Ended[0].StreamID)

			assert.Equal(t, 1, ask(t, 200, "POST", streams+second.Stream.ID+"/stop", "").Streams)
			ask(t, 410, "POST", streams+second.Stream.ID+"/stop", "")
			assert.Equal(t, 0, ask(t, 200, "POST", streams+third.Stream.ID+"/stop", "").Streams)
			ask(t, 404, "GET", maya, "")
			if name != "plain" { // it has no route for this call
				ask(t, 500, "DELETE", maya, "")
			}
		})
	}
}

// The plain service rejects bodies that it cannot read, and reports what its process
// uses.
func TestPlain(t *testing.T) {
	url := serve(t, "plain", 90*time.Second)
	ask(t, 400, "POST", url+users+"maya/start", `{"replaces":1}`)
	heartbeats := url + "/api/v1/streams/heartbeats"
	ask(t, 400, "POST", heartbeats, `{"heartbeats":[]}`)
	ask(t, 400, "POST", heartbeats, `[`)
	ask(t, 200, "GET", url+"/readyz", "")
	resp, err := http.Get(url + "/metrics") //nolint:noctx // the peer is ready
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	assert.Contains(t, string(text), "\ngo_cpu_classes_gc_total_cpu_seconds_total ")
	assert.Contains(t, string(text), "\ngo_gc_heap_live_bytes ")
}

func TestPeers_Expiry(t *testing.T) {
	for _, name := range []string{"redis", "plain", "naive"} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, name, 2*time.Second)
			maya := url + users + "maya"
			began := time.Now()
			id := ask(t, 200, "POST", maya+"/start", "").Stream.ID
			ask(t, 200, "POST", maya+"/start", "")
			require.Eventually(t, func() bool {
				resp, err := http.Post(maya+"/start", "", nil) //nolint:noctx // bounded by Eventually
				if err != nil {
					return false
				}
				return resp.Body.Close() == nil && resp.StatusCode == 200
			}, time.Minute, 50*time.Millisecond)
			assert.GreaterOrEqual(t, time.Since(began), 2*time.Second)
			ask(t, 410, "POST", maya+"/streams/"+id+"/heartbeat", "")
		})
	}
}

// The other peers answer every call.
func TestPeers_WithoutLimit(t *testing.T) {
	for _, name := range Names() {
		if EnforcesLimit(name) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			url := serve(t, name, 90*time.Second)
			maya := url + users + "maya"
			id := ask(t, 200, "POST", maya+"/start", "").Stream.ID
			require.NotEmpty(t, id)
			ask(t, 200, "GET", maya, "")
			ask(t, 200, "POST", maya+"/streams/"+id+"/heartbeat", "")
			batch := ask(t, 200, "POST", url+"/api/v1/streams/heartbeats",
				`{"heartbeats":[{"userId":"maya","streamId":"`+id+`"}]}`)
			assert.Empty(t, batch.Ended)
			ask(t, 200, "POST", maya+"/streams/"+id+"/stop", "")
			ask(t, 200, "GET", url+"/readyz", "")
		})
	}
}

func TestCheck(t *testing.T) {
	require.ErrorContains(t, Check("memcached"), `there is no peer "memcached": the peers are redis, redis-nofsync, plain, naive`)
	t.Setenv("PATH", "")
	require.ErrorContains(t, Check("redis"), "install it (Debian, Ubuntu: apt-get install redis-server)")
	require.Error(t, Check("plain"))
	require.NoError(t, Check("naive"))
	for _, name := range Names() {
		assert.NotEmpty(t, About(name))
	}
	assert.Empty(t, About("memcached"))
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	for _, name := range []string{"redis", "plain", "memcached"} {
		require.Error(t, Run(t.Context(), Config{Name: name, Dir: t.TempDir()}, ln, func() { t.Error("ready") }))
	}
}

// A Redis server that exits ends the peer, and its calls fail.
func TestRedis_ServerExits(t *testing.T) {
	if err := Check("redis"); err != nil {
		longtest.Missing(t, err.Error())
	}
	dir, err := os.MkdirTemp("", "peer") //nolint:usetesting // the path of t.TempDir is too long for a socket
	require.NoError(t, err)
	defer func() { assert.NoError(t, os.RemoveAll(dir)) }()
	l, died, stop, err := openRedis(t.Context(), Config{Name: "redis", Dir: dir, Limit: 2, TTL: time.Minute})
	require.NoError(t, err)
	_, err = l.Start(t.Context(), "maya", lease.Request{})
	require.NoError(t, err)
	l.(*redisLimiter).rdb.Do(t.Context(), "SHUTDOWN", "NOSAVE")
	require.ErrorContains(t, <-died, "redis-server exited")
	_, err = l.Start(t.Context(), "maya", lease.Request{})
	require.ErrorIs(t, err, lease.ErrUnavailable)
	require.NoError(t, stop())
}
