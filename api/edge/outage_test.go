package edge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/overload"
	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/testlog"
	"streamcount/lease"
)

// While etcd does not answer, running sessions continue, and the policy of the profile decides
// about others.
func TestOutage(t *testing.T) {
	t.Parallel()
	var faults etcdtest.Faults
	c := etcdtest.FaultyClient(t, etcdtest.Endpoints(t), &faults)
	l := newLimiter(t, c, lease.Config{Prefix: etcdtest.Prefix(t), Limit: 9, Timeout: 2 * time.Second})
	var log testlog.Buffer
	n := newNode(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))}, l)
	cutOff := atomic.Bool{}
	n.SetBackend(Backend{Limiter: l, Key: make([]byte, 32), CutOff: cutOff.Load})
	for _, profile := range []string{"vod", "known", "closed"} {
		require.Equal(t, 200, n.check(t, profile, "/vod/film/1.ts?sid=old-"+profile).StatusCode)
	}
	release := faults.Hold(etcdtest.Txn)
	defer release()
	releaseReads := faults.Hold(etcdtest.Range)
	defer releaseReads()

	for _, profile := range []string{"vod", "known", "closed"} {
		got := n.check(t, profile, "/vod/film/2.ts?sid=old-"+profile)
		assert.Equal(t, 200, got.StatusCode, profile)
	}
	got := n.check(t, "vod", "/vod/film/1.ts?sid=new&token=secret")
	assert.Equal(t, 200, got.StatusCode)
	assert.Equal(t, "1", got.Header.Get("X-Streamcount-Degraded"))
	assert.Equal(t, "0", got.Header.Get("X-Accel-Expires"), "a proxy must not cache it")
	for _, profile := range []string{"known", "closed"} {
		got := n.check(t, profile, "/vod/film/1.ts?sid=new")
		assert.Equal(t, 503, got.StatusCode, profile)
		assert.Equal(t, "unavailable", got.reason())
		assert.Equal(t, "1", got.Header.Get("Retry-After"))
	}
	assert.Equal(t, 401, n.checkAs(t, "vod", http.MethodGet, "/vod/film/1.ts?sid=new", "").StatusCode, "an outage replaces no identity")
	assert.Contains(t, log.String(), "content=film ")
	assert.NotContains(t, log.String(), "secret")

	cutOff.Store(true)
	assert.Equal(t, 503, n.check(t, "vod", "/vod/film/1.ts?sid=new").StatusCode, "other nodes can answer")
	assert.Equal(t, 503, n.raw(t, "GET", "/edge/healthz").StatusCode)
}

// unavailable is a limiter that has lost its etcd.
type unavailable struct{ Limiter }

func (unavailable) Attend(context.Context, string, string, bool) (lease.Attendance, error) {
	return lease.Attendance{}, lease.ErrUnavailable
}

// The policy known allows the sessions that this node has allowed before.
func TestOutage_Known(t *testing.T) {
	t.Parallel()
	n, l := startNode(t)
	require.Equal(t, 200, n.check(t, "known", "/vod/film/1.ts?sid=a").StatusCode)
	n.SetBackend(Backend{Limiter: unavailable{l}, Key: make([]byte, 32)})
	got := n.check(t, "known", "/vod/film/2.ts?sid=a")
	assert.Equal(t, 200, got.StatusCode)
	assert.Equal(t, "1", got.Header.Get("X-Streamcount-Degraded"))
	assert.Equal(t, 503, n.check(t, "known", "/vod/film/2.ts?sid=b").StatusCode)
	assert.Equal(t, 200, n.check(t, "vod", "/vod/film/2.ts?sid=b").StatusCode)
	assert.Equal(t, 503, n.check(t, "closed", "/vod/film/2.ts?sid=a").StatusCode)
}

// A start that the node rejects because of its load is an outage of that start. A user with too
// many starts is refused.
func TestOverload(t *testing.T) {
	t.Parallel()
	_, l := startNode(t)
	var bound atomic.Int64
	n := newNode(t, Config{CheckerConfig: CheckerConfig{AdmitStart: func(context.Context, string) (func(), overload.Bound) {
		return func() {}, overload.Bound(bound.Load())
	}}}, l)
	require.Equal(t, 200, n.check(t, "closed", "/vod/film/1.ts?sid=a").StatusCode)
	bound.Store(int64(overload.ConcurrentStarts))
	assert.Equal(t, 200, n.check(t, "closed", "/vod/film/1.ts?sid=a").StatusCode, "it needs no start")
	assert.Equal(t, 503, n.check(t, "closed", "/vod/film/1.ts?sid=b").StatusCode)
	assert.Equal(t, "1", n.check(t, "vod", "/vod/film/1.ts?sid=b").Header.Get("X-Streamcount-Degraded"))
	bound.Store(int64(overload.RatePerUser))
	got := n.check(t, "vod", "/vod/film/1.ts?sid=b")
	assert.Equal(t, 403, got.StatusCode)
	assert.Equal(t, "limit", got.reason())
}

// Before etcd is reached, and while tokens cannot be verified, a check is answered 503.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	n := newNode(t, Config{}, nil)
	assert.Equal(t, 503, n.check(t, "vod", "/vod/film/1.ts?sid=a").StatusCode)
	assert.Equal(t, 200, n.check(t, "vod", "/other").StatusCode, "it needs no identity")
	var d Decision
	d = d.failed(errors.New("no keys"))
	assert.Equal(t, Unavailable, d.Outcome)
}
