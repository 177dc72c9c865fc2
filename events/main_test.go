package events

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

// soon is the deadline of conditions that are met within milliseconds on an idle machine.
const soon = time.Minute

// newLimiter runs a limiter whose replica is current.
func newLimiter(t *testing.T, c *clientv3.Client, cfg lease.Config) *lease.Limiter {
	t.Helper()
	return runLimiter(t, lease.FromClient(c), cfg)
}

func runLimiter(t *testing.T, e lease.Etcd, cfg lease.Config) *lease.Limiter {
	t.Helper()
	cfg.Secret = make([]byte, 32)
	l, err := lease.New(e, cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	requireCurrent(t, l)
	return l
}

func requireCurrent(t *testing.T, l *lease.Limiter) {
	t.Helper()
	require.Eventually(t, func() bool { return l.WaitApplied(t.Context(), 0) }, soon, time.Millisecond)
}

// feedOf returns a feed and a running limiter with a limit of two streams.
func feedOf(t *testing.T, c *clientv3.Client, prefix string) (*Feed, *lease.Limiter) {
	t.Helper()
	f := NewFeed()
	return f, newLimiter(t, c, lease.Config{Prefix: prefix, Limit: 2, Observer: f.Publisher("")})
}

func mustStart(t *testing.T, l *lease.Limiter, user string, r lease.Request) lease.Started {
	t.Helper()
	st, err := l.Start(t.Context(), user, r)
	require.NoError(t, err)
	return st
}

// slotKey is the etcd key of a user's first slot.
func slotKey(prefix, user string) string { return prefix + "/users/" + user + "/000" }

// text is an event as tests compare it.
func text(e *Event) string {
	words := []string{string(e.Kind), e.User, fmt.Sprintf("%d/%d", e.Streams, e.Limit()), string(e.Reason)}
	if s, ok := e.Stream(); ok {
		words = append(words, s.Device.Name)
	}
	if by := e.By(); by != nil {
		words = append(words, "by "+by.Device.Name)
	}
	if limits := e.Limits(); len(limits) > 0 {
		words = append(words, "for "+strings.Join(limits, ","))
	}
	if e.Kind == Gap {
		words = []string{"gap", e.Detail}
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

// next returns the texts of the next n events.
func next(t *testing.T, fo *Follower, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	var out []string
	for len(out) < n {
		e := fo.Next()
		if e == nil {
			require.NoError(t, fo.Wait(ctx), "after %q", out)
			continue
		}
		out = append(out, text(e))
	}
	return out
}

func follow(t *testing.T, f *Feed, after, user string) *Follower {
	t.Helper()
	fo, err := f.Follow(t.Context(), after, user)
	require.NoError(t, err)
	return fo
}
