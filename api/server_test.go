package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/lease"
)

func TestNew_Config(t *testing.T) {
	for name, cfg := range map[string]Config{
		"MaxInFlight": {MaxInFlight: -1}, "MaxConns": {MaxConns: -1}, "RequestTimeout": {RequestTimeout: -1},
		"Drain": {Drain: -1}, "ShutdownDelay": {ShutdownDelay: -1},
	} {
		_, err := New(cfg)
		assert.ErrorContains(t, err, name+" is negative")
	}
	_, err := New(Config{RequestTimeout: time.Minute})
	assert.ErrorContains(t, err, "RequestTimeout 1m0s")
	s, err := New(Config{})
	require.NoError(t, err)
	assert.Equal(t, 4096, s.cfg.MaxInFlight)
	assert.Equal(t, 20_000, s.cfg.MaxConns)
	assert.Equal(t, 5*time.Second, s.cfg.RequestTimeout)
	assert.Equal(t, 10*time.Second, s.cfg.Drain)
}

// Before etcd has been reached, every call is answered 503, and /readyz names the reason.
func TestSetBackend_Before(t *testing.T) {
	s := newServer(t, Config{}, nil)
	for _, c := range [][3]string{
		{"GET", userBase, ""}, {"DELETE", userBase, ""}, {"POST", userBase + "/start", ""},
		{"POST", userBase + "/stop", ""},
		{"DELETE", userBase + "/streams/a", ""}, {"POST", userBase + "/streams/a/stop", ""}, {"GET",
			"/api/v1/stats", ""},
		{"POST", userBase + "/streams/a/heartbeat", ""},
		{"POST", "/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"a","streamId":"b"}]}`},
	} {
		w := call(s, c[0], c[1], c[2])
		assert.Equal(t, 503, w.Code, c)
		assert.Regexp(t, "^[1-5]$", w.Header().Get("Retry-After"))
		checkProblem(t, answer{w.Code, w.Header(), w.Body.String(), ""})
	}
	w := call(s, "GET", "/readyz", "")
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "not ready: etcd has not been reached yet\n", w.Body.String())
	assert.Equal(t, 200, call(s, "GET", "/healthz", "").Code)
	assert.Equal(t, 200, call(s, "GET", "/docs", "").Code)
}

// SetBackend keeps the members that are not set.
func TestSetBackend_InSteps(t *testing.T) {
	s := newServer(t, Config{}, nil)
	s.SetBackend(Backend{Ready: func(context.Context) error { return errors.New("etcd at 10.0.0.1 refuses us") }})
	assert.Contains(t, call(s, "GET", "/readyz", "").Body.String(), "etcd at 10.0.0.1 refuses us")
	assert.Equal(t, 503, call(s, "GET", userBase, "").Code)
	s.SetBackend(Backend{Limiter: &fake{count: 1}})
	assert.Equal(t, 200, call(s, "GET", userBase, "").Code)
	assert.Equal(t, 503, call(s, "GET", "/readyz", "").Code)
	assert.Contains(t, call(s, "GET", "/api/v1/stats", "").Body.String(), `"shards":[]`)
	s.SetBackend(Backend{Ready: isReady})
	assert.Equal(t, 200, call(s, "GET", "/readyz", "").Code)
}

// The totals are served even if some clusters cannot be described.
func TestStats_PartOfTheShards(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	s.SetBackend(Backend{Shards: func(context.Context) ([]apitype.Shard, error) {
		return []apitype.Shard{{Name: "a", Leader: "n1", Members: 3}, {Name: "b"}}, errors.New("b is unavailable")
	}})
	var got apitype.Stats
	w := call(s, "GET", "/api/v1/stats", "")
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	assert.Len(t, got.Shards, 2)
	assert.Empty(t, got.Leader, "two clusters have no common leader")
	assert.Equal(t, 5, got.Streams)
}

// Concurrent health checks share one request to etcd. A check whose client disconnects does
// not fail the others.
func TestReadyz_Shared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Config{}, &fake{})
		var checks atomic.Int32
		s.SetBackend(Backend{Ready: func(ctx context.Context) error {
			checks.Add(1)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Second):
				return nil
			}
		}})
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { assert.ErrorContains(t, s.ready.Err(short), "the request ended first") })
		synctest.Wait()
		for range 50 {
			wg.Go(func() { assert.NoError(t, s.ready.Err(t.Context())) })
		}
		wg.Wait()
		assert.EqualValues(t, 1, checks.Load())
	})
}

func TestReadyz_EtcdHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, Config{RequestTimeout: 3 * time.Second}, &fake{})
		s.SetBackend(Backend{Ready: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }})
		start := time.Now()
		assert.ErrorIs(t, s.ready.Err(t.Context()), context.DeadlineExceeded)
		assert.Equal(t, 3*time.Second, time.Since(start))
	})
}

func TestReadyz_Panics(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	s.SetBackend(Backend{Ready: func(context.Context) error { panic("no client") }})
	w := call(s, "GET", "/readyz", "")
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "not ready: the readiness check panicked: no client\n", w.Body.String())
}

// A call that takes too long is answered 503. A call whose client has disconnected is only
// logged.
func TestRequest_EndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := &fake{block: func(ctx context.Context) { <-ctx.Done() }}
		s := newServer(t, Config{RequestTimeout: 2 * time.Second, Log: jsonLog(&log, slog.LevelDebug)}, f)
		start := time.Now()
		w := call(s, "GET", userBase, "")
		assert.Equal(t, 503, w.Code)
		assert.Equal(t, 2*time.Second, time.Since(start))
		line := lastLine(t, &log)
		assert.Equal(t, "WARN", line["level"])
		assert.Contains(t, line["err"], "deadline exceeded")

		gone, disconnect := context.WithCancel(t.Context())
		time.AfterFunc(time.Second/2, disconnect)
		s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(gone, "GET", userBase, nil))
		line = lastLine(t, &log)
		assert.Equal(t, "DEBUG", line["level"])
		assert.Equal(t, true, line["gone"])
	})
}

// The lines of the log have stable keys.
func TestLog_Lines(t *testing.T) {
	var log bytes.Buffer
	f := &fake{count: 1}
	s := newServer(t, Config{Log: jsonLog(&log, slog.LevelDebug)}, f)
	for _, c := range []struct {
		target, route, user, level string
		status                     float64
		err                        error
	}{
		{userBase, openapi.UserPath, "maya", "DEBUG", 200, nil},
		{userBase, openapi.UserPath, "maya", "DEBUG", 404, lease.ErrNoStreams},
		{userBase, openapi.UserPath, "maya", "WARN", 503, fmt.Errorf("range: %w", lease.ErrUnavailable)},
		{userBase, openapi.UserPath, "maya", "ERROR", 500, errors.New("a bug")},
		{"/api/v1/streams/users/a%0ab", openapi.UserPath, "a\nb", "DEBUG", 422, nil},
		{"/healthz", "/healthz", "", "DEBUG", 200, nil},
		{"/nothing/here", "", "", "DEBUG", 404, nil},
	} {
		f.err = c.err
		call(s, "GET", c.target, "")
		line := lastLine(t, &log)
		assert.Equal(t, "request", line["msg"])
		assert.Equal(t, c.route, line["route"])
		assert.Equal(t, c.user, line["user"])
		assert.Equal(t, c.level, line["level"])
		assert.Equal(t, c.status, line["status"])
		assert.Equal(t, "GET", line["method"])
		assert.Contains(t, line, "duration")
		if c.status >= 500 {
			assert.Equal(t, c.err.Error(), line["err"])
		}
	}
}

// A node logs only a few 503 answers per second, and the number of those that it did not log.
// The limit applies to each kind of answer separately.
func TestLog_LimitsRepeatedErrors(t *testing.T) {
	var log bytes.Buffer
	f := &fake{err: lease.ErrUnavailable}
	s := newServer(t, Config{Log: jsonLog(&log, slog.LevelInfo)}, f)
	for range 50 {
		call(s, "GET", userBase, "")
	}
	assert.Equal(t, overload.MaxLinesPerSecond, strings.Count(log.String(), "\n"))
	load := setLoad(s)
	load.reject(true, true)
	call(s, "POST", userBase+"/start", "")
	line := lastLine(t, &log)
	assert.Equal(t, float64(503), line["status"])
	assert.NotContains(t, line, "err", "overload is no error of a call")
	load.reject(false, false)
	require.Eventually(t, func() bool { // in the next second
		call(s, "GET", userBase, "")
		unlogged, _ := lastLine(t, &log)["unlogged"].(float64)
		return unlogged >= 50-overload.MaxLinesPerSecond
	}, time.Minute, 10*time.Millisecond)
}

func TestLog_QuietByDefault(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{Log: jsonLog(&log, slog.LevelInfo)}, &fake{count: 1})
	call(s, "GET", userBase, "")
	assert.Empty(t, log.String())
}

// A heartbeat that fails with an internal error is answered as alive, and the error is logged.
func TestLog_BatchError(t *testing.T) {
	var log bytes.Buffer
	f := &fake{heartbeatErr: map[string]error{"b": errors.New("a bug")}}
	s := newServer(t, Config{Log: jsonLog(&log, slog.LevelInfo)}, f)
	call(s, "POST", "/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"a","streamId":"b"}]}`)
	assert.Equal(t, "a bug", lastLine(t, &log)["err"])
}

func jsonLog(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

func lastLine(t *testing.T, log *bytes.Buffer) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &line), log.String())
	return line
}

// A panic is answered 500 and logged, and the process continues.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	f := &fake{panics: true, count: 1}
	s := newServer(t, Config{Log: jsonLog(&log, slog.LevelInfo)}, f)
	addr, _ := run(t, s)
	a := send(t, addr, bare("GET", userBase), 5*time.Second)
	assert.Equal(t, 500, a.status)
	checkProblem(t, a)
	assert.NotContains(t, a.body, "fake")
	assert.Contains(t, log.String(), "the fake panics")
	assert.Contains(t, log.String(), "fake_test.go")
	assert.Equal(t, 200, send(t, addr, bare("GET", "/api/v1/stats"), 5*time.Second).status)
}

// After a panic in the middle of an answer the connection is closed.
func TestPanic_Late(t *testing.T) {
	s := newServer(t, Config{}, nil)
	h := s.observe(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(200)
		panic("late")
	}))
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	})
}

// A failed write to a client that has disconnected is not logged.
func TestPanic_ClientGone(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{Log: jsonLog(&log, slog.LevelInfo)}, nil)
	h := s.observe(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		panic(fmt.Errorf("write: %w", &net.OpError{Op: "write", Err: errors.New("broken pipe")}))
	}))
	assert.PanicsWithValue(t, http.ErrAbortHandler, func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
	})
	assert.Empty(t, log.String())
}

// The documentation loads nothing from other origins, and its policy forbids it.
func TestDocs(t *testing.T) {
	s := newServer(t, Config{}, nil)
	w := call(s, "GET", "/docs", "")
	require.Equal(t, 200, w.Code)
	policy := w.Header().Get("Content-Security-Policy")
	assert.Contains(t, policy, "script-src 'self' 'sha256-")
	assert.NotContains(t, policy, "script-src 'self' 'unsafe-inline'")
	assert.NotContains(t, policy, "http")
	page := w.Body.String()
	assert.Contains(t, page, "/openapi.json")
	loads := 0
	for _, attr := range []string{`src="`, `href="`} {
		for _, part := range strings.Split(page, attr)[1:] {
			path, _, _ := strings.Cut(part, `"`)
			require.True(t, strings.HasPrefix(path, "/docs/"), path)
			asset := call(s, "GET", path, "", "Accept-Encoding", "gzip")
			assert.Equal(t, 200, asset.Code, path)
			assert.NotEmpty(t, asset.Body.Bytes(), path)
			loads++
		}
	}
	assert.GreaterOrEqual(t, loads, 5)
	assert.Equal(t, 404, call(s, "GET", "/docs/nothing.js", "").Code)
	home := call(s, "GET", "/", "")
	assert.Equal(t, "/docs", home.Header().Get("Location"))
}
