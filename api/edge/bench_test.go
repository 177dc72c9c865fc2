package edge

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"streamcount/api/edge/profile"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

// BenchmarkCheck compares a check of a running session with a heartbeat of its stream.
func BenchmarkCheck(b *testing.B) {
	l := newLimiter(b, etcdtest.Client(b), lease.Config{Prefix: etcdtest.Prefix(b), Limit: 3})
	profiles, err := profile.Parse([]byte(file))
	require.NoError(b, err)
	c := NewChecker(CheckerConfig{})
	c.SetBackend(Backend{Limiter: l, Key: make([]byte, 32)})
	r := profile.Request{Method: http.MethodGet, Target: "/vod/film/1.ts?sid=a", Header: http.Header{"X-User": {"maya"}}}
	p := profiles["split"]
	require.Equal(b, Started, c.Check(b.Context(), p, r).Outcome)
	require.Eventually(b, func() bool { return len(streams(b, l, "maya")) == 1 }, soon, 1)
	id := streams(b, l, "maya")[0].ID
	b.Run("check", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if d := c.Check(b.Context(), p, r); d.Outcome != Running {
				b.Fatal(d.Outcome)
			}
		}
	})
	b.Run("heartbeat", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.Heartbeat(b.Context(), "maya", id); err != nil {
				b.Fatal(err)
			}
		}
	})
}
