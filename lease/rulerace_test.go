package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// ruleAudit watches every revision. Whenever a user gets a new key, the counted streams of
// the user are at most the limit that was in force at that revision.
type ruleAudit struct {
	t        *testing.T
	prefix   string
	fallback int
	streams  map[string]map[string]string // user -> slot -> content
	rules    map[string]map[string]any    // key -> value, decoded independently of package rules
	checked  int
}

func (a *ruleAudit) limit(user string) (limit int, grouped bool) {
	limit = a.fallback
	name := "default"
	own := a.rules["limits/"+user]
	if plan, ok := own["plan"].(string); ok {
		name = plan
	}
	p, ok := a.rules["plans/"+name]
	if !ok {
		p, ok = a.rules["plans/default"]
	}
	if ok {
		limit, grouped = int(p["limit"].(float64)), p["count"] == "content"
	}
	if n, ok := own["limit"].(float64); ok {
		limit = int(n)
	}
	return limit, grouped
}

// revision applies the events of one revision. No revision changes both rules and streams.
func (a *ruleAudit) revision(events []*clientv3.Event) {
	got := map[string]bool{}
	for _, e := range events {
		key := strings.TrimPrefix(string(e.Kv.Key), a.prefix+"/")
		if path, ok := strings.CutPrefix(key, "users/"); ok {
			user, slot, _ := strings.Cut(path, "/")
			if e.Type == mvccpb.DELETE {
				delete(a.streams[user], slot)
				continue
			}
			var r struct{ C struct{ ID string } }
			require.NoError(a.t, json.Unmarshal(e.Kv.Value, &r))
			if a.streams[user] == nil {
				a.streams[user] = map[string]string{}
			}
			a.streams[user][slot] = r.C.ID
			got[user] = true
			continue
		}
		delete(a.rules, key)
		if strings.HasPrefix(key, "limits/") || strings.HasPrefix(key, "plans/") {
			var v map[string]any
			if e.Type == mvccpb.PUT && json.Unmarshal(e.Kv.Value, &v) == nil {
				a.rules[key] = v
			}
		}
	}
	for user := range got {
		limit, grouped := a.limit(user)
		n := len(a.streams[user])
		if grouped {
			films := map[string]bool{}
			for _, film := range a.streams[user] {
				films[film] = true
			}
			n = len(films)
		}
		a.checked++
		if n > limit {
			a.t.Errorf("revision %d: %s was admitted as number %d of %d", events[0].Kv.ModRevision, user, n, limit)
		}
	}
}

func auditRules(t *testing.T, c *clientv3.Client, prefix string, fallback int) (finish func() int) {
	t.Helper()
	a := &ruleAudit{t: t, prefix: prefix, fallback: fallback,
		streams: map[string]map[string]string{}, rules: map[string]map[string]any{}}
	replay := eachRevision(t, c, prefix, a.revision)
	return func() int {
		t.Helper()
		replay()
		return a.checked
	}
}

// eachRevision watches all keys below prefix. The function finish calls apply with the
// events of each revision until then.
func eachRevision(t *testing.T, c *clientv3.Client, prefix string, apply func([]*clientv3.Event)) (finish func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := c.Watch(ctx, prefix+"/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	require.True(t, (<-events).Created)
	return func() {
		t.Helper()
		defer cancel()
		mark, err := c.Put(context.Background(), prefix+"/audit", "end")
		require.NoError(t, err)
		for last := int64(0); last < mark.Header.Revision; {
			resp, ok := <-events
			require.True(t, ok)
			for all := resp.Events; len(all) > 0; {
				n := 1
				for n < len(all) && all[n].Kv.ModRevision == all[0].Kv.ModRevision {
					n++
				}
				last = all[0].Kv.ModRevision
				apply(all[:n])
				all = all[n:]
			}
		}
	}
}

// raceRulesWithStarts starts and stops streams of few users on three nodes while the rules
// are changed on all of them.
func raceRulesWithStarts(t *testing.T, change func(l *Limiter, user string) error, film func() string) {
	t.Helper()
	const users, fallback = 8, 3
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	nodes := make([]*Limiter, 3)
	for i := range nodes {
		nodes[i] = newLimiter(t, c, Config{Prefix: prefix, Limit: fallback, Timeout: time.Minute})
	}
	finish := auditRules(t, etcdtest.Client(t), prefix, fallback)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	began := time.Now()
	var admitted, refused, changes sync.Map
	var wg sync.WaitGroup
	for i := range users * 6 {
		wg.Go(func() {
			user := fmt.Sprint("user-", i%users)
			n, no := 0, 0
			for ctx.Err() == nil {
				l := nodes[rand.N(3)]
				st, err := l.Start(context.Background(), user, Request{Content: Content{ID: film()}})
				if errors.Is(err, ErrLimit) {
					no++
					continue
				}
				if !assert.NoError(t, err) {
					return
				}
				n++
				if _, err := nodes[rand.N(3)].Stop(context.Background(), user, st.Stream.ID); err != nil {
					assert.ErrorIs(t, err, ErrEnded)
				}
			}
			admitted.Store(i, n)
			refused.Store(i, no)
		})
	}
	wg.Go(func() {
		n := 0
		defer stop()
		for ; n <= 20 || time.Since(began) < 4*time.Second; n++ { // a slow machine needs longer for 20 changes
			if err := change(nodes[n%3], fmt.Sprint("user-", rand.N(users))); !assert.NoError(t, err) {
				return
			}
		}
		changes.Store(0, n)
	})
	wg.Wait()
	sum := func(m *sync.Map) (n int) {
		m.Range(func(_, v any) bool { n += v.(int); return true })
		return n
	}
	checked := finish()
	t.Logf("%d starts admitted and %d refused, %d rule changes, %d admissions checked, none over the limit in force",
		sum(&admitted), sum(&refused), sum(&changes), checked)
	assert.Positive(t, sum(&refused))
	assert.Greater(t, sum(&changes), 20)
	assert.Equal(t, sum(&admitted), checked)
}

func TestRules_RaceWithStarts(t *testing.T) {
	t.Parallel()
	raceRulesWithStarts(t, func(l *Limiter, user string) error {
		ctx := context.Background()
		var err error
		switch rand.N(6) {
		case 0:
			_, err = l.Rules().RemoveOverride(ctx, user)
		case 1:
			_, err = l.Rules().SetPlan(ctx, "family", policy.Plan{Limit: rand.N(6)})
		case 2:
			if _, err = l.Rules().SetOverride(ctx, user, policy.Override{Plan: "family"}); errors.Is(err, policy.ErrNoPlan) {
				err = nil
			}
		case 3:
			_, err = l.Rules().SetPlan(ctx, policy.DefaultPlan, policy.Plan{Limit: rand.N(4)})
		default:
			_, err = l.Rules().SetOverride(ctx, user, limitOf(rand.N(5)))
		}
		if errors.Is(err, rules.ErrNoOverride) {
			return nil
		}
		return err
	}, func() string { return "" })
}

// Concurrent starts of the same content count once.
func TestRules_RaceOfGroupedStreams(t *testing.T) {
	t.Parallel()
	raceRulesWithStarts(t, func(l *Limiter, user string) error {
		if _, err := l.Rules().SetPlan(context.Background(), "films", policy.Plan{Limit: 1 + rand.N(2), Count: policy.CountContent}); err != nil {
			return err
		}
		_, err := l.Rules().SetOverride(context.Background(), user, policy.Override{Plan: "films"})
		return err
	}, func() string { return fmt.Sprint("film-", rand.N(4)) })
}

func TestRules_GroupedCounting(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	for name, count := range map[string]policy.Counting{"films": policy.CountContent, "devices": policy.CountDevices} {
		_, err := l.Rules().SetPlan(ctx, name, policy.Plan{Limit: 2, Count: count, OnLimit: policy.ReplaceOldest})
		require.NoError(t, err)
		of := func(unit string) Request {
			if count == policy.CountContent {
				return Request{Plan: name, Content: Content{ID: unit}}
			}
			return Request{Plan: name, Device: Device{ID: unit}}
		}
		a := mustStart(t, l, name, of("a"))
		for i := range 3 {
			st := mustStart(t, l, name, of("a"))
			assert.Equal(t, []int{i + 2, 1}, []int{st.Count, st.Counted})
		}
		b := mustStart(t, l, name, of("b"))
		assert.Equal(t, []int{5, 2}, []int{b.Count, b.Counted})
		for _, unit := range []string{"c", ""} { // "" counts alone
			_, err = l.Start(ctx, name, of(unit))
			var full *LimitError
			require.ErrorAs(t, err, &full, name)
			assert.Equal(t, []int{2, 2, 5}, []int{full.Limit, full.Counted, len(full.Active)})
		}
		u, err := l.Stop(ctx, name, a.Stream.ID)
		require.NoError(t, err)
		assert.Equal(t, []int{4, 2}, []int{u.Count, u.Counted})
		u, err = l.List(ctx, name, Bounded)
		require.NoError(t, err)
		assert.Equal(t, []int{4, 2, 2}, []int{u.Count, u.Counted, u.Limit})

		evicting := of("c")
		evicting.OnLimit = policy.ReplaceOldest
		st := mustStart(t, l, name, evicting)
		assert.Equal(t, []int{2, 2}, []int{st.Count, st.Counted}, "all streams of the oldest content or device were evicted")
		assert.Len(t, st.Ended, 3)
		for _, e := range st.Ended {
			assert.Equal(t, policy.ReasonEvicted, e.Reason)
		}
	}
}
