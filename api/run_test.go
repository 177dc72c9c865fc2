package api

import (
	"context"
	"errors"
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
)

const patience = 10 * time.Second

// gate is a fake whose List waits to be let through.
type gate struct {
	fake
	waiting atomic.Int32
	open    chan struct{}
	once    sync.Once
}

func newGate() *gate {
	g := &gate{open: make(chan struct{})}
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

func (g *gate) let() { g.once.Do(func() { close(g.open) }) }

func (g *gate) holds(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return int(g.waiting.Load()) == n }, patience, time.Millisecond)
}

// When the context ends, readiness goes first, then what is in flight finishes,
// and nothing new is accepted.
func TestRun_Drains(t *testing.T) {
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	g := newGate()
	s := newServer(t, Config{Notice: 300 * time.Millisecond}, &g.fake)
	addr, stop := run(t, s)
	inFlight := make(chan answer, 1)
	go func() { inFlight <- send(t, addr, bare("GET", userBase), patience) }()
	g.holds(t, 1)

	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	require.Eventually(t, func() bool { return s.draining.Load() }, patience, time.Millisecond)
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
	g.let()
	assert.Equal(t, 200, (<-inFlight).status)
	assert.NoError(t, <-stopped)
}

// What does not finish in time is cut off, and Run says so.
func TestRun_DrainIsBounded(t *testing.T) {
	g := newGate()
	defer g.let()
	s := newServer(t, Config{Drain: 50 * time.Millisecond, RequestTimeout: 20 * time.Second}, &g.fake)
	addr, stop := run(t, s)
	inFlight := make(chan answer, 1)
	go func() { inFlight <- send(t, addr, bare("GET", userBase), patience) }()
	g.holds(t, 1)
	err := stop()
	assert.ErrorContains(t, err, "requests still in flight after 50ms")
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	g.holds(t, 0) // its context ended with Run
	<-inFlight
}

// A listener that fails ends Run with the reason.
func TestRun_ListenerFails(t *testing.T) {
	s := newServer(t, Config{}, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	err = s.Run(t.Context(), ln)
	assert.ErrorIs(t, err, net.ErrClosed)
	assert.ErrorContains(t, err, ln.Addr().String())
}

// Requests beyond the cap are told at once to come back; health still answers.
func TestRun_InFlightCap(t *testing.T) {
	g := newGate()
	s := newServer(t, Config{MaxInFlight: 3}, &g.fake)
	addr, _ := run(t, s)
	held := make(chan answer, 3)
	for range 3 {
		go func() { held <- send(t, addr, bare("GET", userBase), patience) }()
	}
	g.holds(t, 3)
	for range 5 {
		a := send(t, addr, bare("GET", userBase), patience)
		assert.Equal(t, 503, a.status)
		assert.Regexp(t, "^[1-5]$", a.header.Get("Retry-After"))
		assert.Contains(t, a.body, "/problems/overloaded")
		checkProblem(t, a)
	}
	assert.Equal(t, 200, send(t, addr, bare("GET", "/healthz"), patience).status)
	assert.Equal(t, 200, send(t, addr, bare("GET", "/readyz"), patience).status)
	g.let()
	for range 3 {
		assert.Equal(t, 200, (<-held).status)
	}
	assert.Equal(t, 200, send(t, addr, bare("GET", userBase), patience).status)
}

// A refused or crashed request gives its place back.
func TestRun_InFlightCapComesBack(t *testing.T) {
	s := newServer(t, Config{MaxInFlight: 1}, &fake{panics: true})
	for range 5 {
		assert.Equal(t, 500, call(s, "GET", userBase, "").Code)
		assert.Equal(t, 422, call(s, "GET", "/api/v1/streams/users/a,b", "").Code)
	}
	assert.Equal(t, 200, call(s, "GET", "/api/v1/stats", "").Code)
}

// Connections beyond the cap wait for one to close.
func TestRun_ConnectionCap(t *testing.T) {
	addr, _ := run(t, newServer(t, Config{MaxConns: 2}, &fake{count: 1}))
	var idle []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		_, err = io.WriteString(c, bare("GET", "/healthz"))
		require.NoError(t, err)
		_, err = c.Read(make([]byte, 1)) // served, and kept alive
		require.NoError(t, err)
		idle = append(idle, c)
	}
	third, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer third.Close()
	_, err = io.WriteString(third, bare("GET", "/healthz"))
	require.NoError(t, err)
	require.NoError(t, third.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	_, err = third.Read(make([]byte, 1))
	var late net.Error
	require.True(t, errors.As(err, &late) && late.Timeout(), "served beyond the cap: %v", err)
	require.NoError(t, idle[0].Close())
	require.NoError(t, third.SetReadDeadline(time.Now().Add(patience)))
	_, err = third.Read(make([]byte, 1))
	assert.NoError(t, err)
}

// A client that hangs up ends its call.
func TestRun_ClientHangsUp(t *testing.T) {
	g := newGate()
	defer g.let()
	addr, _ := run(t, newServer(t, Config{RequestTimeout: 20 * time.Second}, &g.fake))
	ctx, hangUp := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+userBase, nil)
		assert.NoError(t, err)
		_, err = (&http.Client{Transport: &http.Transport{}}).Do(r)
		assert.ErrorIs(t, err, context.Canceled)
	}()
	g.holds(t, 1)
	hangUp()
	g.holds(t, 0)
	<-done
}

// Headers that never end are given up on without an answer.
func TestRun_SlowHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the header timeout")
	}
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
	assert.InDelta(t, readHeaderTimeout.Seconds(), time.Since(started).Seconds(), 2)
}
