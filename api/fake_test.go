package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/events"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// A fake is a limiter with configured results, which records its calls.
type fake struct {
	mu        sync.Mutex
	calls     []string
	overrides []policy.Override // that were set

	err          error                     // returned by every call, when set
	heartbeatErr map[string]error          // by stream id
	count        int                       // streams left after a start or stop
	via          string                    // of the stream in a list
	ended        []lease.Ended             // result of every start
	observed     []string                  // the same
	panics       bool                      // in List
	block        func(ctx context.Context) // in List, when set
}

func (f *fake) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fake) taken() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fake) usage(user string) lease.Usage {
	return lease.Usage{User: user, Count: f.count, Limit: 3}
}

func (f *fake) Start(_ context.Context, user string, r lease.Request) (lease.Started, error) {
	if err := f.note("start %s %+v", user, r); err != nil {
		return lease.Started{}, err
	}
	st := someStream()
	st.Session, st.Device, st.Content = r.Session, r.Device, r.Content
	return lease.Started{Usage: f.usage(user), Stream: st, Ended: f.ended, Observed: f.observed}, nil
}

func (f *fake) Heartbeat(_ context.Context, user, id string) (lease.Stream, error) {
	if err := f.note("heartbeat %s %s", user, id); err != nil {
		return lease.Stream{}, err
	}
	return someStream(), nil
}

func (f *fake) Heartbeats(_ context.Context, requests []lease.HeartbeatRequest) []lease.HeartbeatResult {
	_ = f.note("heartbeats %v", requests)
	out := make([]lease.HeartbeatResult, len(requests))
	for i, b := range requests {
		out[i] = lease.NewHeartbeatResult(someStream(), f.heartbeatErr[b.ID])
		out[i].Degraded = b.ID == "degraded"
	}
	return out
}

func (f *fake) Stop(_ context.Context, user, id string) (lease.Usage, error) {
	return f.usage(user), f.note("stop %s %s", user, id)
}

func (f *fake) StopOldestHeartbeat(_ context.Context, user string) (lease.Usage, error) {
	u := f.usage(user)
	u.Stopped = "oldest"
	return u, f.note("stop oldest heartbeat %s", user)
}

func (f *fake) Remove(_ context.Context, user string) (lease.Usage, error) {
	return lease.Usage{User: user, Limit: 3}, f.note("remove %s", user)
}

func (f *fake) List(ctx context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	err := f.note("list %s", user)
	if f.panics {
		panic("the fake panics")
	}
	if f.block != nil {
		f.block(ctx)
		if ctx.Err() != nil {
			return lease.Usage{}, fmt.Errorf("list %s: %w", user, ctx.Err())
		}
	}
	u := f.usage(user)
	u.Active = []lease.Stream{someStream()}
	u.Active[0].Via = f.via
	return u, err
}

func (f *fake) Totals(context.Context) (lease.Totals, error) {
	return lease.Totals{
		Revision: 88, Streams: 5, Users: 3, UsersAtLimit: 1, ByRegion: map[string]int{"eu": 4, "us": 1}, ByVia: map[string]int{"edge": 2},
		Admitted: 20, Refused: 4, Expired: 2,
	}, f.note("totals")
}

var someTime = time.Date(2026, 1, 2, 3, 4, 5, 678_900_000, time.UTC)

func someStream() lease.Stream {
	return lease.Stream{
		ID: "stream-1", User: "maya", StartedAt: someTime, ExpiresAt: someTime.Add(90 * time.Second),
		TTL: 90 * time.Second, Region: "eu", Device: lease.Device{ID: "d1", Name: "TV", Type: "tv"},
	}
}

func someShards(context.Context) ([]apitype.Shard, error) {
	return []apitype.Shard{{Name: "default", Leader: "node-1", Members: 3, Streams: 5}}, nil
}

// withFeed adds a feed to the backend of s.
func withFeed(s *Server) *Server {
	s.SetBackend(Backend{Feed: events.NewFeed()})
	return s
}

func someNodes(context.Context) ([]apitype.NodeReport, error) {
	return []apitype.NodeReport{{
		Node: apitype.Node{ID: "node-2", Region: "us", Version: "1.2.2"}, Address: "10.0.0.2:3000", Admitted: 7, Refused: 1,
		ReportedAt: apitype.At(someTime),
	}}, errors.New("one shard does not answer")
}

func someTopUsers(_ context.Context, prefix string, n int) ([]lease.TopUser, bool, error) {
	return []lease.TopUser{{User: prefix + "ya", Streams: 3, Limit: n}}, true, nil
}

func isReady(context.Context) error { return nil }

// newServer returns a Server on f, or without a backend if f is nil.
func newServer(tb testing.TB, cfg Config, f limiter) *Server {
	tb.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	cfg.Node = apitype.Node{ID: "node-1", Region: "eu", Version: "1.2.3", StartedAt: apitype.At(someTime)}
	s, err := New(cfg)
	require.NoError(tb, err)
	if f != nil {
		rules, _ := f.(ruleStore)
		data, _ := f.(dataStore)
		s.SetBackend(Backend{
			Limiter: f, Rules: rules, Data: data, Ready: isReady, Shards: someShards, Nodes: someNodes, TopUsers: someTopUsers,
			TokenKeys: &fakeTokenKeys{},
		})
	}
	return s
}

// run serves s on a free port until the test ends or stop is called. The function stop returns
// the result of Run.
func run(t *testing.T, s *Server) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return runOn(t, s, ln)
}

func runOn(t *testing.T, s *Server, ln net.Listener) (addr string, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = stop() })
	return ln.Addr().String(), stop
}

// call sends one request to the handler of s.
func call(s *Server, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	w := flushed{httptest.NewRecorder(), cancel}
	s.Handler().ServeHTTP(w, r.WithContext(ctx))
	return w.ResponseRecorder
}

// flushed cancels the request at the first flush, because an event stream does not end
// otherwise.
type flushed struct {
	*httptest.ResponseRecorder
	cancel func()
}

func (f flushed) Flush() { f.cancel() }

// get requests a page over a separate connection.
func get(t *testing.T, addr, path string) (status int, body string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get("http://" + addr + path)
	require.NoError(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(b)
}
