package edge

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdsim"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// A simService has nodes on a simulated etcd, in virtual time. Its checks call the handler of a
// node without a socket.
type simService struct {
	etcd    *etcdsim.Etcd
	path    string // of the file of profiles
	nodes   []*simNode
	running sync.WaitGroup
}

// A simNode is a node of a simService.
type simNode struct {
	*Server
	limiter *lease.Limiter
	stop    context.CancelFunc
}

// newSimService returns a service with a limit of one stream. stop ends it.
func newSimService(t *testing.T, nodes int) (s *simService, stop func()) {
	t.Helper()
	s = &simService{etcd: etcdsim.New(), path: filepath.Join(t.TempDir(), "edge.yaml"), nodes: make([]*simNode, nodes)}
	require.NoError(t, os.WriteFile(s.path, []byte(file), 0o600))
	ctx, stopTicks := context.WithCancel(t.Context())
	s.running.Go(func() {
		for ctx.Err() == nil {
			time.Sleep(500 * time.Millisecond)
			s.etcd.Tick()
		}
	})
	for i := range s.nodes {
		s.start(t, i)
	}
	return s, func() {
		time.Sleep(time.Second) // renewals in the background end
		for _, n := range s.nodes {
			n.stop()
		}
		stopTicks()
		s.running.Wait()
	}
}

// start starts a node, which has nothing but what is in etcd.
func (s *simService) start(t *testing.T, i int) {
	t.Helper()
	link := &etcdsim.Link{Etcd: s.etcd, Seed: uint64(i), Delay: 5 * time.Millisecond}
	l, err := lease.New(lease.Etcd{KV: link.KV(), Lease: link.Lease(), Watch: link.Watcher()}, lease.Config{
		Prefix: "/p", Limit: 1, TTL: testTTL, Cooldown: time.Minute, Secret: make([]byte, 32),
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	s.running.Go(func() { assert.NoError(t, l.Run(ctx)) })
	n := &simNode{limiter: l, stop: stop}
	n.Server, err = New(Config{
		File: s.path, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Log: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	n.SetBackend(Backend{Limiter: l, Key: make([]byte, 32)})
	for !l.Current() {
		time.Sleep(time.Millisecond)
	}
	s.nodes[i] = n
}

// check sends a check of a request by session a of maya.
func (n *simNode) check(method, name string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/edge/v1/vod/check", nil)
	r.RemoteAddr = "127.0.0.1:40000"
	r.Header.Set("X-Original-URI", "/vod/film/"+name+"?sid=a")
	r.Header.Set("X-Original-Method", method)
	r.Header.Set("X-User", "maya")
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	return w
}

// play starts the stream of the session at the first node.
func (s *simService) play(t *testing.T) {
	t.Helper()
	require.Equal(t, 200, s.nodes[0].check(http.MethodGet, "master.m3u8").Code)
}

// end ends the stream of the session for a reason, and frees the slot. It waits until all nodes
// have the bar.
func (s *simService) end(t *testing.T, reason policy.Reason) {
	t.Helper()
	l := s.nodes[len(s.nodes)-1].limiter
	var err error
	switch id := streams(t, l, "maya")[0].ID; reason {
	case policy.ReasonStopped:
		_, err = l.Stop(t.Context(), "maya", id)
	case policy.ReasonRemoved:
		_, err = l.Remove(t.Context(), "maya")
	case policy.ReasonEvicted, policy.ReasonReplaced:
		r := lease.Request{OnLimit: policy.ReplaceOldest}
		if reason == policy.ReasonReplaced {
			r = lease.Request{Replaces: []string{id}}
		}
		var other lease.Started
		if other, err = l.Start(t.Context(), "maya", r); err == nil {
			_, err = l.Stop(t.Context(), "maya", other.Stream.ID)
		}
	}
	require.NoError(t, err)
	time.Sleep(100 * time.Millisecond)
}

const (
	segment = "1.ts"
	master  = "master.m3u8"
)

// A phase of a player sends requests for a file at regular times, or one request.
type phase struct {
	from, until, every time.Duration // since the end of its stream
	name               string
	head               bool
	node               int // -1 means that the requests are spread over all nodes
	before             func(t *testing.T, s *simService)
	reason             string // of the refusals; "" if the requests are allowed
}

// run sends the requests of a phase. ended is when the stream ended.
func (p phase) run(t *testing.T, s *simService, ended time.Time) {
	t.Helper()
	method, wait := http.MethodGet, -1
	if p.head {
		method = http.MethodHead
	}
	for i, at := 0, p.from; at <= max(p.from, p.until); i, at = i+1, at+max(p.every, time.Second) {
		time.Sleep(time.Until(ended.Add(at)))
		if p.before != nil {
			p.before(t, s)
		}
		node := p.node
		if node < 0 {
			node = i % len(s.nodes)
		}
		got := s.nodes[node].check(method, p.name)
		require.Equal(t, p.reason, got.Header().Get("X-Streamcount-Reason"), "%s %s after %s", method, p.name, at)
		if p.reason == "" {
			require.Equal(t, http.StatusOK, got.Code)
			continue
		}
		require.Equal(t, http.StatusForbidden, got.Code)
		seconds, err := strconv.Atoi(got.Header().Get("Retry-After"))
		require.NoError(t, err)
		require.Positive(t, seconds)
		if i > 0 {
			require.LessOrEqual(t, seconds, wait, "Retry-After does not grow, after %s", at)
		}
		wait = seconds
		require.Empty(t, streams(t, s.nodes[0].limiter, "maya"), "a refused request starts nothing")
	}
}

// TestBars_Time shows when a session whose stream was ended may play again.
func TestBars_Time(t *testing.T) {
	const s, m = time.Second, time.Minute
	restart := func(t *testing.T, s *simService) {
		t.Helper()
		s.nodes[0].stop()
		s.start(t, 0)
	}
	explicit := func(t *testing.T, s *simService) {
		t.Helper()
		l := s.nodes[0].limiter
		started, err := l.Start(t.Context(), "maya", lease.Request{Session: "a"})
		require.NoError(t, err)
		_, err = l.Stop(t.Context(), "maya", started.Stream.ID)
		require.NoError(t, err)
		time.Sleep(100 * time.Millisecond)
	}
	for _, tt := range []struct {
		name   string
		reason policy.Reason
		nodes  int
		phases []phase
	}{
		{"a player that continues stays out for ten minutes", policy.ReasonStopped, 1, []phase{
			{from: s, until: 10*m - s, every: 4 * s, name: segment, reason: "stopped"},
			{from: 10*m + s, name: segment},
		}},
		{"also after a removal", policy.ReasonRemoved, 1, []phase{
			{from: s, until: 10*m - s, every: 4 * s, name: segment, reason: "removed"},
			{from: 10*m + s, name: segment},
		}},
		{"and after an eviction", policy.ReasonEvicted, 1, []phase{
			{from: s, until: 10*m - s, every: 4 * s, name: segment, reason: "evicted"},
			{from: 10*m + s, name: segment},
		}},
		{"less than 15 s without a request are not enough", policy.ReasonReplaced, 1, []phase{
			{from: s, until: 57 * s, every: 14 * s, name: segment, reason: "replaced"},
			{from: 73 * s, until: 90 * s, every: s, name: segment},
		}},
		{"HEAD does not prolong the time", policy.ReasonStopped, 1, []phase{
			{from: s, name: segment, reason: "stopped"},
			{from: 2 * s, until: 15 * s, every: s, name: segment, head: true, reason: "stopped"},
			{from: 17 * s, name: segment, head: true},
			{from: 17 * s, name: segment},
		}},
		{"the viewer presses play", policy.ReasonStopped, 1, []phase{
			{from: s, until: 9 * s, every: 4 * s, name: master, reason: "stopped"},
			{from: 15 * s, name: master},
			{from: 16 * s, until: 20 * s, every: s, name: segment},
		}},
		{"an evicted viewer presses play", policy.ReasonEvicted, 1, []phase{
			{from: s, until: 57 * s, every: 8 * s, name: master, reason: "evicted"},
			{from: 65 * s, name: master},
		}},
		{"an evicted player that is silent", policy.ReasonEvicted, 1, []phase{
			{from: s, name: segment, reason: "evicted"},
			{from: 59 * s, name: segment, reason: "evicted"},
			{from: 75 * s, name: segment},
		}},
		{"spread over three nodes, each of which has less than 15 s between two requests", policy.ReasonStopped, 3, []phase{
			{from: s, until: 10*m - s, every: 4 * s, name: segment, node: -1, reason: "stopped"},
			{from: 10*m + s, until: 11 * m, every: 4 * s, name: segment, node: -1},
		}},
		{"spread over three nodes, each of which has more than that", policy.ReasonStopped, 3, []phase{
			{from: s, until: 13 * s, every: 6 * s, name: segment, node: -1, reason: "stopped"},
			{from: 19 * s, until: m, every: 6 * s, name: segment, node: -1},
		}},
		{"another node after a failure", policy.ReasonStopped, 2, []phase{
			{from: s, until: 2 * m, every: 4 * s, name: segment, reason: "stopped"},
			{from: 2*m + 4*s, until: 4 * m, every: 4 * s, name: segment, node: 1, reason: "stopped"},
		}},
		{"a node that restarts while the tombstone exists", policy.ReasonStopped, 1, []phase{
			{from: s, until: 37 * s, every: 4 * s, name: segment, reason: "stopped"},
			{from: 40 * s, name: segment, before: restart, reason: "stopped"},
			{from: 44 * s, until: 10 * m, every: 4 * s, name: segment, reason: "stopped"},
			{from: 10*m + 42*s, name: segment},
		}},
		{"all nodes restart after the tombstone has expired", policy.ReasonStopped, 1, []phase{
			{from: s, until: 2 * m, every: 4 * s, name: segment, reason: "stopped"},
			{from: 2*m + 4*s, name: segment, before: restart},
		}},
		{"a start through the API", policy.ReasonStopped, 3, []phase{
			{from: s, until: 9 * s, every: s, name: segment, node: -1, reason: "stopped"},
			{from: 10 * s, name: segment, node: 2, before: explicit},
			{from: 11 * s, until: 20 * s, every: s, name: segment, node: -1},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			etcdsim.Bubble(t, func(t *testing.T) {
				t.Helper()
				service, stop := newSimService(t, tt.nodes)
				defer stop()
				service.play(t)
				ended := time.Now()
				service.end(t, tt.reason)
				for _, p := range tt.phases {
					p.run(t, service, ended)
				}
			})
		})
	}
}

// TestBars_RetryAfter checks that a session may play again when it has waited for the time in
// Retry-After, and that half of this time is not enough.
func TestBars_RetryAfter(t *testing.T) {
	const s, m = time.Second, time.Minute
	for _, tt := range []struct {
		reason policy.Reason
		name   string
		age    time.Duration // of the bar, at the refusal
		after  int
	}{
		{policy.ReasonStopped, segment, s, 15},
		{policy.ReasonStopped, segment, 5 * m, 15},
		{policy.ReasonStopped, master, s, 5},
		{policy.ReasonRemoved, segment, s, 15},
		{policy.ReasonReplaced, master, 5 * m, 5},
		{policy.ReasonEvicted, segment, s, 59},
		{policy.ReasonEvicted, segment, 30 * s, 30},
		{policy.ReasonEvicted, segment, 50 * s, 15},
		{policy.ReasonEvicted, master, 50 * s, 10},
		{policy.ReasonEvicted, master, 58 * s, 5},
		{policy.ReasonEvicted, segment, 5 * m, 15},
	} {
		for _, part := range []int{1, 2} {
			etcdsim.Bubble(t, func(t *testing.T) {
				t.Helper()
				service, stop := newSimService(t, 1)
				defer stop()
				service.play(t)
				ended := time.Now()
				service.end(t, tt.reason)
				node := service.nodes[0]
				for time.Since(ended) < tt.age {
					require.Equal(t, 403, node.check(http.MethodGet, segment).Code)
					time.Sleep(time.Second)
				}
				refused := node.check(http.MethodGet, tt.name)
				require.Equal(t, string(tt.reason), refused.Header().Get("X-Streamcount-Reason"))
				require.Equal(t, strconv.Itoa(tt.after), refused.Header().Get("Retry-After"), "%+v", tt)
				time.Sleep(time.Duration(tt.after) * time.Second / time.Duration(part))
				assert.Equal(t, part == 1, node.check(http.MethodGet, tt.name).Code == 200, "%+v", tt)
			})
		}
	}
}
