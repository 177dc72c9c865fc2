package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"streamcount/internal/testing/longtest"
)

const patience = time.Minute

// A blockingFake is a fake whose List blocks until release.
type blockingFake struct {
	fake
	waiting atomic.Int32
	open    chan struct{}
	once    sync.Once
}

func newBlockingFake() *blockingFake {
	g := &blockingFake{open: make(chan struct{})}
	g.count = 1
	g.block = func(ctx context.Context) {
		g.waiting.Add(1)
		defer g.waiting.Add(-1)
		select {
		case <-g.open:
		case <-ctx.Done():
		}
	}
	return g
}

func (g *blockingFake) release() { g.once.Do(func() { close(g.open) }) }

func (g *blockingFake) waitBlocked(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return int(g.waiting.Load()) == n }, patience, time.Millisecond)
}

// When the context ends, the server is not ready, then it accepts no new requests, and the
// requests in flight finish.
func TestRun_Drains(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	g := newBlockingFake()
	s := newServer(t, Config{ShutdownDelay: 300 * time.Millisecond}, &g.fake)
	addr, stop := run(t, s)
	inFlight := make(chan answer, 1)
	go func() { inFlight <- send(t, addr, bare("GET", userBase), patience) }()
	g.waitBlocked(t, 1)

	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	require.Eventually(t, func() bool { return s.ready.Draining() }, patience, time.Millisecond)
	status, body := get(t, addr, "/readyz") // still accepted, within the notice
	assert.Equal(t, 503, status)
	assert.Equal(t, "not ready: the node is draining: it is about to stop\n", body)
	status, _ = get(t, addr, "/healthz")
	assert.Equal(t, 200, status)

	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	}, patience, time.Millisecond)
	assert.Empty(t, stopped, "Run must wait for the request in flight")
	g.release()
	assert.Equal(t, 200, (<-inFlight).status)
	assert.NoError(t, <-stopped)
}

// Requests that do not finish in time are aborted, and Run returns an error.
func TestRun_DrainTimeout(t *testing.T) {
	g := newBlockingFake()
	defer g.release()
	s := newServer(t, Config{Drain: 50 * time.Millisecond, RequestTimeout: 20 * time.Second}, &g.fake)
	addr, stop := run(t, s)
	inFlight := make(chan answer, 1)
	go func() { inFlight <- send(t, addr, bare("GET", userBase), patience) }()
	g.waitBlocked(t, 1)
	err := stop()
	assert.ErrorContains(t, err, "requests still in flight after 50ms")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	g.waitBlocked(t, 0) // its context ended with Run
	<-inFlight
}

// Run returns the error of the listener.
func TestRun_ListenerFails(t *testing.T) {
	s := newServer(t, Config{}, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	err = s.Run(t.Context(), ln)
	assert.ErrorIs(t, err, net.ErrClosed)
	assert.ErrorContains(t, err, ln.Addr().String())
}

// Requests beyond the limit are rejected at once. Health is still served.
func TestRun_InFlightLimit(t *testing.T) {
	g := newBlockingFake()
	s := newServer(t, Config{MaxInFlight: 3}, &g.fake)
	addr, _ := run(t, s)
	held := make(chan answer, 3)
	for range 3 {
		go func() { held <- send(t, addr, bare("GET", userBase), patience) }()
	}
	g.waitBlocked(t, 3)
	for range 5 {
		a := send(t, addr, bare("GET", userBase), patience)
		assert.Equal(t, 503, a.status)
		assert.Regexp(t, "^[1-5]$", a.header.Get("Retry-After"))
		assert.Contains(t, a.body, "/problems/overloaded")
		checkProblem(t, a)
	}
	assert.Equal(t, 200, send(t, addr, bare("GET", "/healthz"), patience).status)
	assert.Equal(t, 200, send(t, addr, bare("GET", "/readyz"), patience).status)
	g.release()
	for range 3 {
		assert.Equal(t, 200, (<-held).status)
	}
	assert.Equal(t, 200, send(t, addr, bare("GET", userBase), patience).status)
}

// A rejected request, or one whose handler panics, releases its slot.
func TestRun_InFlightReleased(t *testing.T) {
	s := newServer(t, Config{MaxInFlight: 1}, &fake{panics: true})
	for range 5 {
		assert.Equal(t, 500, call(s, "GET", userBase, "").Code)
		assert.Equal(t, 422, call(s, "GET", "/api/v1/streams/users/a%0ab", "").Code)
	}
	assert.Equal(t, 200, call(s, "GET", "/api/v1/stats", "").Code)
}

// A client that disconnects cancels its call.
func TestRun_ClientDisconnects(t *testing.T) {
	g := newBlockingFake()
	defer g.release()
	addr, _ := run(t, newServer(t, Config{RequestTimeout: 20 * time.Second}, &g.fake))
	ctx, disconnect := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+userBase, nil)
		assert.NoError(t, err)
		_, err = (&http.Client{Transport: &http.Transport{}}).Do(r)
		assert.ErrorIs(t, err, context.Canceled)
	}()
	g.waitBlocked(t, 1)
	disconnect()
	g.waitBlocked(t, 0)
	<-done
}

// A connection whose headers do not end is closed without a response.
func TestRun_SlowHeaders(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	addr, _ := run(t, newServer(t, Config{}, &fake{}))
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX: ")
	require.NoError(t, err)
	started := time.Now()
	require.NoError(t, c.SetReadDeadline(started.Add(readHeaderTimeout+patience)))
	_, err = io.ReadAll(c)
	require.NoError(t, err)
	assert.Greater(t, time.Since(started), readHeaderTimeout-time.Second)
}
