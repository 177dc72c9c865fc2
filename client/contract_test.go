package client_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api"
	"streamcount/api/apitype"
	"streamcount/client"
	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/longtest"
	"streamcount/lease"
	"streamcount/lease/policy"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

// A node is a real node whose listener can be closed and opened again.
type node struct {
	t       *testing.T
	server  *api.Server
	addr    string
	stop    func()
	limiter *lease.Limiter
}

func newNode(t *testing.T, limit int, ttl time.Duration) *node {
	t.Helper()
	l, err := lease.New(lease.FromClient(etcdtest.Client(t)), lease.Config{
		Prefix: etcdtest.Prefix(t), Limit: limit, TTL: ttl, Secret: []byte("0123456789abcdef"), Timeout: time.Minute,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	s, err := api.New(api.Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Drain: time.Second})
	require.NoError(t, err)
	s.SetBackend(api.Backend{Limiter: l, Ready: func(context.Context) error { return nil }})
	n := &node{t: t, server: s, limiter: l, addr: "127.0.0.1:0"}
	n.listen()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) listen() {
	n.t.Helper()
	ln, err := net.Listen("tcp", n.addr)
	require.NoError(n.t, err)
	n.addr = ln.Addr().String()
	srv := &http.Server{Handler: n.server.Handler(), ReadHeaderTimeout: time.Second}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	n.stop = sync.OnceFunc(func() {
		_ = srv.Close()
		wg.Wait()
	})
}

func (n *node) client() *client.Client {
	n.t.Helper()
	c, err := client.New(client.Config{Server: "http://" + n.addr})
	require.NoError(n.t, err)
	n.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// count returns the number of maya's streams.
func (n *node) count() int {
	u, err := n.limiter.List(context.Background(), "maya", lease.Linearizable)
	if errors.Is(err, lease.ErrNoStreams) {
		return 0
	}
	require.NoError(n.t, err)
	return u.Count
}

func TestContract_AStreamLivesUntilItIsStopped(t *testing.T) {
	longtest.Require(t)
	n := newNode(t, 3, lease.MinTTL)
	c := n.client()
	began := time.Now()
	s, err := c.Start(t.Context(), "maya", apitype.Start{Device: &apitype.Device{Name: "TV"}})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // the stream outlives a TTL
		require.NoError(t, s.Err())
		return time.Since(began) > lease.MinTTL+2*time.Second
	}, 2*lease.MinTTL, 100*time.Millisecond)
	assert.Equal(t, 1, n.count())
	require.NoError(t, s.Stop(t.Context()))
	assert.NoError(t, s.Err())
	assert.Equal(t, 0, n.count())
}

func TestContract_ARefusalNamesTheOthers(t *testing.T) {
	n := newNode(t, 1, 0)
	c := n.client()
	tv, err := c.Start(t.Context(), "maya", apitype.Start{Device: &apitype.Device{Name: "TV"}})
	require.NoError(t, err)
	_, err = c.Start(t.Context(), "maya", apitype.Start{})
	var full *client.LimitError
	require.ErrorAs(t, err, &full)
	require.ErrorIs(t, err, client.ErrLimit)
	assert.Equal(t, []int{1, 1}, []int{full.Limit, full.Streams})
	require.Len(t, full.Active, 1)
	assert.Equal(t, tv.ID(), full.Active[0].ID)
	assert.Equal(t, "TV", full.Active[0].Device.Name)
	assert.InDelta(t, 90, full.RetryAfter.Seconds(), 5)

	_, err = c.StopStream(t.Context(), "maya", full.Active[0].ID) // the viewer's choice
	require.NoError(t, err)
	_, err = c.Start(t.Context(), "maya", apitype.Start{})
	require.NoError(t, err)
}

// Under a plan with several limits, the refusal says which streams to end: one of them, or
// several.
func TestContract_ARefusalOfSeveralLimits(t *testing.T) {
	n := newNode(t, 3, 0)
	c := n.client()
	_, err := n.limiter.Rules().SetPlan(t.Context(), policy.DefaultPlan, policy.Plan{Limit: 4, Limits: []policy.Limit{
		{
			Name: "tv", Where: []policy.Condition{{Attribute: policy.AttrDeviceType, In: []string{"tv"}}}, Limit: 1,
			Message: "Only one TV at a time",
		},
		{Name: "profile", Per: policy.AttrProfile, Limit: 1},
	}})
	require.NoError(t, err)
	start := func(kind, profile string, replaces ...string) (apitype.User, error) {
		return c.StartStream(t.Context(), "maya", apitype.Start{
			Profile: profile, Device: &apitype.Device{Type: kind}, Replaces: replaces, Labels: apitype.Labels{"kids": "no"}, Priority: new(7),
		})
	}
	tv, err := start("tv", "ann")
	require.NoError(t, err)
	assert.Equal(t, "ann", tv.Stream.Profile)
	assert.Equal(t, apitype.Labels{"kids": "no"}, tv.Stream.Labels)
	assert.Equal(t, 7, *tv.Stream.Priority)
	phone, err := start("phone", "ben")
	require.NoError(t, err)

	_, err = start("tv", "cem")
	var full *client.LimitError
	require.ErrorAs(t, err, &full)
	require.ErrorContains(t, err, "maximum number of streams reached: limit tv: 1 of 1")
	assert.Equal(t, "Only one TV at a time", full.Message())
	assert.Equal(t, "Only one TV at a time", full.Detail)
	assert.Equal(t, []int{1, 1, 2}, []int{full.Limit, full.Counted, full.Streams})
	assert.Equal(t, []apitype.RefusingLimit{{Name: "tv", Limit: 1, Counted: 1, Count: "streams", Message: "Only one TV at a time"}}, full.Limits)
	require.Len(t, full.Enough(), 1)
	assert.Equal(t, tv.Stream.ID, full.Enough()[0].ID)
	assert.Equal(t, []string{"tv"}, full.Active[0].Blocks)
	assert.Equal(t, []string{}, full.Active[1].Blocks)

	_, err = start("tv", "ben")
	require.ErrorAs(t, err, &full)
	assert.Empty(t, full.Enough(), "two streams have to end")
	var ids []string
	for _, s := range full.Active {
		require.Len(t, s.Blocks, 1)
		ids = append(ids, s.ID)
	}
	assert.Equal(t, []string{tv.Stream.ID, phone.Stream.ID}, ids)
	u, err := start("tv", "ben", ids...)
	require.NoError(t, err)
	assert.Equal(t, 1, u.Streams)
}

func TestContract_AnEvictedStreamNamesItsSuccessor(t *testing.T) {
	n := newNode(t, 1, lease.MinTTL)
	c := n.client()
	old, err := c.Start(t.Context(), "maya", apitype.Start{})
	require.NoError(t, err)
	_, err = c.Start(t.Context(), "maya", apitype.Start{
		OnLimit: "replace-oldest", Device: &apitype.Device{Name: "phone"},
	})
	require.NoError(t, err)
	select {
	case <-old.Done():
	case <-time.After(time.Minute):
		require.Fail(t, "the old stream did not end")
	}
	var ended *client.EndedError
	require.ErrorAs(t, old.Err(), &ended)
	assert.Equal(t, "evicted", ended.Reason)
	require.NotNil(t, ended.By)
	assert.Equal(t, "phone", ended.By.Device.Name)
	assert.NoError(t, old.Stop(t.Context()))
}

func TestContract_AStreamOutlivesANode(t *testing.T) {
	longtest.Require(t)
	n := newNode(t, 1, 10*time.Second)
	c := n.client()
	s, err := c.Start(t.Context(), "maya", apitype.Start{})
	require.NoError(t, err)
	n.stop()
	began := time.Now()
	require.Eventually(t, func() bool { return time.Since(began) > 5*time.Second }, time.Minute, 50*time.Millisecond)
	require.NoError(t, s.Err(), "it plays on")
	n.listen()
	renewed := s.Info().ExpiresAt.Time
	require.Eventually(t, func() bool { return s.Info().ExpiresAt.After(renewed) }, time.Minute, 50*time.Millisecond)
	assert.NoError(t, s.Err())
	assert.Equal(t, 1, n.count())
}

func TestContract_AStreamWithoutServerExpires(t *testing.T) {
	longtest.Require(t)
	n := newNode(t, 1, lease.MinTTL)
	c := n.client()
	s, err := c.Start(t.Context(), "maya", apitype.Start{})
	require.NoError(t, err)
	n.stop()
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		require.Fail(t, "it never gave up")
	}
	var ended *client.EndedError
	require.ErrorAs(t, s.Err(), &ended)
	assert.Equal(t, client.ReasonExpired, ended.Reason)
	require.Eventually(t, func() bool { return n.count() == 0 }, time.Minute, 50*time.Millisecond)
}

func TestContract_CloseStopsAll(t *testing.T) {
	n := newNode(t, 3, 0)
	c := n.client()
	for range 3 {
		_, err := c.Start(t.Context(), "maya", apitype.Start{})
		require.NoError(t, err)
	}
	require.Equal(t, 3, n.count())
	require.NoError(t, c.Close(t.Context()))
	assert.Equal(t, 0, n.count())
}

func TestContract_Calls(t *testing.T) {
	n := newNode(t, 3, 0)
	c := n.client()
	for range 2 {
		_, err := c.Start(t.Context(), "maya", apitype.Start{})
		require.NoError(t, err)
	}
	u, err := c.List(t.Context(), "maya")
	require.NoError(t, err)
	require.Len(t, u.Active, 2)
	st, err := c.Heartbeat(t.Context(), "maya", u.Active[0].ID)
	require.NoError(t, err)
	assert.Equal(t, u.Active[0].ID, st.ID)
	stats, err := c.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 2, stats.Streams)
	_, err = c.Remove(t.Context(), "maya")
	require.NoError(t, err)
	_, err = c.Heartbeat(t.Context(), "maya", u.Active[0].ID)
	var ended *client.EndedError
	require.ErrorAs(t, err, &ended)
	assert.Equal(t, "removed", ended.Reason)
	_, err = c.List(t.Context(), "maya")
	var p *client.ProblemError
	require.ErrorAs(t, err, &p)
	assert.Equal(t, "User not found", p.Problem.Title)
}
