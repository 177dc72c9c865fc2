package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/limitcheck"
	"streamcount/lease/policy"
)

// checkPlans watches every revision. The function finish checks them against the plans in
// force at each.
func checkPlans(t *testing.T, prefix string, fallback int) (finish func() *limitcheck.Checker) {
	t.Helper()
	c := limitcheck.New(prefix, limitcheck.Plan{Limit: fallback, OnLimit: string(policy.ReplaceOldest)})
	replay := eachRevision(t, etcdtest.Client(t), prefix, func(events []*clientv3.Event) {
		var changes []limitcheck.Change
		for _, e := range events {
			changes = append(changes, limitcheck.Change{Key: string(e.Kv.Key), Value: e.Kv.Value, Put: e.Type == mvccpb.PUT})
		}
		for _, wrong := range c.Apply(events[0].Kv.ModRevision, changes) {
			t.Error(wrong)
		}
	})
	return func() *limitcheck.Checker {
		t.Helper()
		replay()
		return c
	}
}

// planRace has starts of few users on three nodes, whose plans change.
type planRace struct {
	nodes                      []*Limiter
	admitted, refused, changes atomic.Int64
}

// play starts and stops streams of a user with random attributes until ctx ends.
func (p *planRace) play(ctx context.Context, t *testing.T, user, session string) {
	t.Helper()
	rng := newRand()
	var last string
	for ctx.Err() == nil {
		var req Request
		describe(&req, limitcheck.RandomAttributes(rng))
		if rng.IntN(3) == 0 {
			req.Session = session
		}
		if rng.IntN(3) > 0 {
			req.OnLimit = policy.ReplaceOldest
		}
		if last != "" && rng.IntN(4) == 0 {
			req.Replaces = []string{last}
		}
		st, err := p.nodes[rng.IntN(3)].Start(context.Background(), user, req)
		if errors.Is(err, ErrLimit) {
			p.refused.Add(1)
			continue
		}
		if !assert.NoError(t, err) {
			return
		}
		p.admitted.Add(1)
		last = st.Stream.ID
		if rng.IntN(3) == 0 {
			if _, err := p.nodes[rng.IntN(3)].Stop(context.Background(), user, last); err != nil {
				assert.ErrorIs(t, err, ErrEnded)
			}
		}
	}
}

// No start that is committed after a change of its plan violates the changed plan. Streams
// end only as the plan allows, and only if they must.
func TestPlans_RaceWithStarts(t *testing.T) {
	t.Parallel()
	const users, changes = 6, 60
	prefix := etcdtest.Prefix(t)
	p := &planRace{}
	for range 3 {
		p.nodes = append(p.nodes, newLimiter(t, etcdtest.Client(t), Config{Prefix: prefix, Limit: 3, Timeout: time.Minute}))
	}
	finish := checkPlans(t, prefix, 3)
	change := func(user int) {
		_, err := p.nodes[rand.N(3)].Rules().SetPlan(t.Context(), fmt.Sprint("plan-", user), *planOf(limitcheck.RandomPlan(newRand())))
		require.NoError(t, err)
	}
	for i := range users {
		change(i)
		_, err := p.nodes[0].Rules().SetOverride(t.Context(), fmt.Sprint("user-", i), policy.Override{Plan: fmt.Sprint("plan-", i)})
		require.NoError(t, err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	began := time.Now()
	var wg sync.WaitGroup
	for i := range users * 5 {
		wg.Go(func() { p.play(ctx, t, fmt.Sprint("user-", i%users), fmt.Sprint("session-", i/users)) })
	}
	for n := 0; n < changes || time.Since(began) < 4*time.Second; n++ { // a slow machine needs longer for the changes
		change(n % users)
		p.changes.Add(1)
	}
	stop()
	wg.Wait()
	c := finish()
	t.Logf("%d starts admitted and %d refused, %d changes of plans; %d admissions checked, %d ended streams, %d of these compared",
		p.admitted.Load(), p.refused.Load(), p.changes.Load(), c.Admitted, c.Evicting, c.Compared)
	assert.EqualValues(t, p.admitted.Load(), c.Admitted)
	assert.Positive(t, p.refused.Load())
	assert.Positive(t, c.Compared)
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
