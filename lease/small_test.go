package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestValidUser(t *testing.T) {
	for _, ok := range []string{"1", "auth0|5f7c", "maya@example.com", "urn:uuid:1-2", "a+b=", "~", strings.Repeat("x", 128)} {
		assert.True(t, ValidUser(ok), "%q", ok)
	}
	for _, bad := range []string{"", strings.Repeat("x", 129), "a/b", "a b", "a\x00", "a\n", "é", "Ａ", "a%2f", "\xff", "a;b", "a\u202e"} {
		assert.False(t, ValidUser(bad), "%q", bad)
	}
}

func TestNewSnapshot_ForeignKeys(t *testing.T) {
	k := keys{"/p"}
	s := newSnapshot("u", k, 9, 1, []*mvccpb.KeyValue{
		{Key: []byte(k.slot("u", 2)), Value: []byte(`{"n":"AAAAAAAAAAAAAAAB","s":"tv"}`), Lease: 5, ModRevision: 8},
		{Key: []byte("/p/users/u/junk"), Value: []byte("junk"), ModRevision: 3},
		{Key: []byte("/p/users/u/0002"), Value: []byte(`{"n":"short"}`), ModRevision: 4},
	})
	require.Len(t, s.held, 3)
	assert.Equal(t, []int{-1, -1, 2}, []int{s.held[0].slot, s.held[1].slot, s.held[2].slot}, "oldest first")
	assert.Equal(t, "tv", s.held[2].session)
	assert.Equal(t, record{}, recordOf(s.held[1].value))
	assert.Zero(t, s.held[1].nonce)
}

func TestConfig_Refuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"limit":     {Limit: 61, Secret: testSecret},
		"negative":  {Limit: -1, Secret: testSecret},
		"shortTTL":  {TTL: time.Second, Secret: testSecret},
		"longTTL":   {TTL: 25 * time.Hour, Secret: testSecret},
		"brokenTTL": {TTL: 5500 * time.Millisecond, Secret: testSecret},
		"noSecret":  {},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cfg.withDefaults()
			assert.Error(t, err)
		})
	}
	cfg, err := Config{Secret: testSecret}.withDefaults()
	require.NoError(t, err)
	assert.Equal(t, DefaultTTL, cfg.TTL)
}

func TestClassify(t *testing.T) {
	tests := []struct {
		err  error
		want error // nil: the outcome is unknown
	}{
		{rpctypes.ErrGRPCLeaseNotFound, errLeaseGone},
		{rpctypes.ErrLeaseNotFound, errLeaseGone},
		{rpctypes.ErrGRPCTooManyOps, errNotApplied},
		{rpctypes.ErrGRPCRequestTooManyRequests, errNotApplied},
		{status.Error(codes.Unknown, "etcdserver: too many requests"), errNotApplied}, // as it travels
		{rpctypes.ErrGRPCPermissionDenied, errNotApplied},
		{rpctypes.ErrGRPCNoSpace, nil}, // it may have been applied (etcd issue 16659)
		{rpctypes.ErrGRPCTimeout, nil},
		{rpctypes.ErrGRPCLeaderChanged, nil},
		{status.Error(codes.Unavailable, "connection reset"), nil},
		{context.DeadlineExceeded, nil},
	}
	for _, tt := range tests {
		got := classify(tt.err)
		for _, known := range []error{errLeaseGone, errNotApplied} {
			assert.Equal(t, errors.Is(tt.want, known), errors.Is(got, known), "%v as %v", tt.err, known)
		}
	}
}

func TestRecent_ForgetsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecent[string, int](time.Minute, 10)
		r.put("a", 1)
		time.Sleep(59 * time.Second)
		v, ok := r.get("a")
		assert.True(t, ok)
		assert.Equal(t, 1, v)
		time.Sleep(61 * time.Second)
		_, ok = r.get("a")
		assert.False(t, ok, "after two spans")
	})
}

func TestRecent_IsBounded(t *testing.T) {
	r := newRecent[int, int](time.Hour, 10)
	for i := range 1000 {
		r.put(i, i)
		assert.LessOrEqual(t, len(r.young)+len(r.old), 20)
	}
	_, ok := r.get(999)
	assert.True(t, ok)
	r.drop(999)
	_, ok = r.get(999)
	assert.False(t, ok)
}

func TestCleaner_RepeatsUntilRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var tries atomic.Int32
		c := newCleaner(func(_ context.Context, lease int64) error {
			assert.Equal(t, int64(7), lease)
			if tries.Add(1) < 4 {
				return errors.New("etcd is away")
			}
			return nil
		}, time.Minute, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- c.run(ctx) }()
		c.revokeLater(7)
		c.revokeLater(0) // no lease at all
		time.Sleep(10 * time.Second)
		assert.EqualValues(t, 4, tries.Load())
		cancel()
		assert.NoError(t, <-done)
	})
}

func TestCleaner_GivesUpWhenTheLeaseMustHaveExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var tries atomic.Int32
		c := newCleaner(func(context.Context, int64) error {
			tries.Add(1)
			return errors.New("etcd is away")
		}, 10*time.Second, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- c.run(ctx) }()
		c.revokeLater(7)
		time.Sleep(time.Minute)
		n := tries.Load()
		time.Sleep(time.Minute)
		assert.Equal(t, n, tries.Load(), "tries after it gave up")
		cancel()
		assert.NoError(t, <-done)
	})
}

func TestCleaner_LastRoundAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		var revoked atomic.Int32
		c := newCleaner(func(context.Context, int64) error {
			revoked.Add(1)
			return nil
		}, time.Minute, slog.New(slog.DiscardHandler))
		for i := range 100 {
			c.revokeLater(int64(i + 1))
		}
		assert.NoError(t, c.run(ctx))
		assert.EqualValues(t, 100, revoked.Load())
	})
}

func TestGraveyard_ChangesLeaseInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var grants atomic.Int64
		g := newGraveyard(func(context.Context) (granted, error) {
			time.Sleep(100 * time.Millisecond) // so that callers wait
			return granted{lease: grants.Add(1)}, nil
		}, 4*time.Minute, 3*time.Second, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- g.run(ctx) }()
		ids := make(chan int64, 50)
		for range 50 {
			go func() { ids <- g.take() }()
		}
		for range 50 {
			assert.EqualValues(t, 1, <-ids, "one grant for all who wait")
		}
		for range maxGraves/2 - 50 {
			assert.EqualValues(t, 1, g.take())
		}
		assert.EqualValues(t, 1, g.take(), "half full it is still used, while the next is granted")
		time.Sleep(time.Second)
		assert.EqualValues(t, 2, g.take())
		time.Sleep(time.Minute)
		assert.EqualValues(t, 2, g.take(), "old, but good until the next is there")
		time.Sleep(time.Second)
		assert.EqualValues(t, 3, g.take())
		g.drop(2)
		assert.EqualValues(t, 3, g.take())
		g.drop(3)
		assert.EqualValues(t, 4, g.take(), "waits for the new one")
		g.avoid()
		assert.Zero(t, g.take(), "etcd takes no puts")
		time.Sleep(3 * time.Minute)
		assert.Positive(t, g.take())
		cancel()
		assert.NoError(t, <-done)
	})
}

func TestGraveyard_DoesNotHoldAStopUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		g := newGraveyard(func(ctx context.Context) (granted, error) {
			<-ctx.Done()
			return granted{}, errors.New("etcd is away")
		}, time.Minute, 3*time.Second, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- g.run(ctx) }()
		began := time.Now()
		assert.Zero(t, g.take())
		assert.Less(t, time.Since(began), time.Second)
		cancel()
		assert.NoError(t, <-done)
	})
}

// Nor does it press an etcd that grants nothing.
func TestGraveyard_RestsWhileGrantsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var asked atomic.Int64
		g := newGraveyard(func(context.Context) (granted, error) {
			asked.Add(1)
			return granted{}, errors.New("etcd is full")
		}, time.Minute, 3*time.Second, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- g.run(ctx) }()
		time.Sleep(10 * time.Second)
		assert.InDelta(t, 10/grantRest.Seconds(), asked.Load(), 2)
		cancel()
		assert.NoError(t, <-done)
	})
}

// Where grants fail the pool does not press etcd, and it fills up soon after.
func TestPool_RestsWhileGrantsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var asked atomic.Int64
		var works atomic.Bool
		p := &pool{timeout: 3 * time.Second, revoke: func(context.Context, int64) error { return nil }}
		p.grant = func(context.Context) (granted, error) {
			if n := asked.Add(1); works.Load() {
				return granted{lease: n, ttl: time.Hour, renewed: time.Now()}, nil
			}
			return granted{}, errors.New("etcd is full")
		}
		done := make(chan error, 1)
		go func() { done <- p.run(ctx) }()
		time.Sleep(10 * time.Second)
		assert.InDelta(t, poolMin*10/grantRest.Seconds(), asked.Load(), poolMin*10/grantRest.Seconds()/4)
		works.Store(true)
		time.Sleep(time.Second)
		waiting, _ := p.book.sizes()
		assert.GreaterOrEqual(t, waiting, poolMin)
		assert.Less(t, waiting, 2*poolMin)
		cancel()
		assert.NoError(t, <-done)
	})
}

func TestErrors_AreWhatTheyCarry(t *testing.T) {
	assert.ErrorIs(t, fmt.Errorf("x: %w", &LimitError{Limit: 3}), ErrLimit)
	assert.ErrorIs(t, fmt.Errorf("x: %w", &EndedError{Reason: ReasonStopped}), ErrEnded)
	assert.Contains(t, (&LimitError{Limit: 3, Active: make([]Stream, 3)}).Error(), "3 of 3")
}

// A record of a later version, with a member that this one does not know, is read the
// slow way: its head may go on behind that.
func TestHeadOf_ALaterVersion(t *testing.T) {
	h := headOf([]byte(`{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"new":"","s":"tab"}`))
	assert.Equal(t, head{Nonce: nonce{1}, TTL: 90, Session: "tab"}, h)
}
