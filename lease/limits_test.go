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
)

// in returns the conditions that an attribute has one of the values.
func in(a policy.Attribute, values ...string) []policy.Condition {
	return []policy.Condition{{Attribute: a, In: values}}
}

func requireLimit(t *testing.T, err error) *LimitError {
	t.Helper()
	var full *LimitError
	require.ErrorAs(t, err, &full)
	return full
}

func TestLimits_Refusal(t *testing.T) {
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	_, err := l.Rules().SetPlan(ctx, policy.DefaultPlan, policy.Plan{Limit: 4, OnLimit: policy.ReplaceOldest, Limits: []policy.Limit{
		{Name: "tv", Where: in(policy.AttrDeviceType, "tv", ""), Limit: 1, Message: "Only one TV at a time"},
		{Name: "profile", Per: policy.AttrProfile, Limit: 1},
	}})
	require.NoError(t, err)
	on := func(kind, profile string) Request {
		return Request{Device: Device{Type: kind}, Attributes: policy.StartAttributes{Profile: profile}}
	}
	tv := mustStart(t, l, "maya", on("tv", "ann"))
	phone := mustStart(t, other, "maya", on("phone", "ben"))
	assert.Equal(t, 4, phone.Limit)
	mustStart(t, l, "maya", on("tablet", "cem"))

	_, err = other.Start(ctx, "maya", on("", "ben")) // both limits reject it, and no single stream is enough
	full := requireLimit(t, err)
	assert.Equal(t, []policy.RefusingLimit{
		{Name: "tv", Limit: 1, Counted: 1, Count: policy.CountStreams, Message: "Only one TV at a time"},
		{Name: "profile", Limit: 1, Counted: 1, Count: policy.CountStreams},
	}, full.Limits)
	assert.Equal(t, []policy.Blocking{{Limits: []string{"tv"}}, {Limits: []string{"profile"}}, {}}, full.Blocking)
	assert.Equal(t, []int{1, 1, 3}, []int{full.Limit, full.Counted, len(full.Active)})
	assert.EqualError(t, err, "lease: maximum number of streams reached: limit tv: 1 of 1")
	assert.Empty(t, full.NoEviction)

	evicting := on("tv", "dora")
	evicting.OnLimit = policy.ReplaceOldest
	_, err = l.Start(ctx, "maya", evicting)
	full = requireLimit(t, err)
	assert.Equal(t, []string{"tv"}, full.LimitNames())
	assert.Equal(t, map[string]int64{"tv": 1, "profile": 1, "total": 0}, other.Stats().Refused)
	assert.Equal(t, []policy.Blocking{{Limits: []string{"tv"}, Enough: true}, {}, {}}, full.Blocking)
	assert.Equal(t, NoEvictionPlan, full.NoEviction)

	both := on("", "ben")
	both.Replaces = []string{tv.Stream.ID, phone.Stream.ID}
	st := mustStart(t, l, "maya", both)
	assert.Equal(t, 2, st.Count)
	assert.Len(t, st.Ended, 2)
	_, err = l.Heartbeat(ctx, "maya", tv.Stream.ID)
	requireEnded(t, err, policy.ReasonReplaced)
}

func TestLimits_Attributes(t *testing.T) {
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, Region: "eu"})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, Region: "us"})
	one, nine := 1, 9
	tests := []struct {
		name  string
		limit policy.Limit
		first Request
		ok    Request // admitted beside first
	}{
		{"device", policy.Limit{Where: in(policy.AttrDeviceID, "d")}, Request{Device: Device{ID: "d"}}, Request{}},
		{"content", policy.Limit{Where: in(policy.AttrContentID, "c")}, Request{Content: Content{ID: "c"}}, Request{Content: Content{ID: "x"}}},
		{"contentType", policy.Limit{Where: in(policy.AttrContentType, "live")}, Request{Attributes: policy.StartAttributes{ContentType: "live"}}, Request{Attributes: policy.StartAttributes{ContentType: "vod"}}},
		{"contentLabels", policy.Limit{Where: in(policy.AttrContentLabels, "orange")}, Request{Attributes: policy.StartAttributes{ContentLabels: []string{"hd", "orange"}}},
			Request{Attributes: policy.StartAttributes{ContentLabels: []string{"hd"}}}},
		{"labels", policy.Limit{Where: in("labels.member", "extra")}, Request{Attributes: policy.StartAttributes{Labels: map[string]string{"member": "extra"}}}, Request{}},
		{"networks", policy.Limit{Count: policy.CountNetworks}, Request{Attributes: policy.StartAttributes{Network: "n"}}, Request{Attributes: policy.StartAttributes{Network: "n"}}},
		{"profiles", policy.Limit{Count: policy.CountProfiles}, Request{Attributes: policy.StartAttributes{Profile: "p"}}, Request{Attributes: policy.StartAttributes{Profile: "p"}}},
	}
	for _, tt := range tests {
		tt.limit.Name, tt.limit.Limit = "x", 1
		_, err := l.Rules().SetPlan(ctx, tt.name, policy.Plan{Limit: 3, Limits: []policy.Limit{tt.limit}})
		require.NoError(t, err, tt.name)
		tt.first.Plan, tt.ok.Plan = tt.name, tt.name
		mustStart(t, l, tt.name, tt.first)
		mustStart(t, other, tt.name, tt.ok)
		if tt.limit.Count == "" {
			_, err = other.Start(ctx, tt.name, tt.first)
		} else { // without a value it counts separately
			_, err = other.Start(ctx, tt.name, Request{Plan: tt.name})
		}
		assert.Equal(t, "x", requireLimit(t, err).Limits[0].Name, tt.name)
	}

	_, err := l.Rules().SetPlan(ctx, "eu", policy.Plan{Limit: 3, Limits: []policy.Limit{{Name: "eu", Where: in(policy.AttrRegion, "eu"), Limit: 1}}})
	require.NoError(t, err)
	mustStart(t, l, "region", Request{Plan: "eu"})
	mustStart(t, other, "region", Request{Plan: "eu"})
	_, err = l.Start(ctx, "region", Request{Plan: "eu"})
	assert.ErrorIs(t, err, ErrLimit)

	_, err = l.Rules().SetPlan(ctx, "kiosk", policy.Plan{Limit: 2, OnLimit: policy.ReplaceLowest})
	require.NoError(t, err)
	priority := func(n *int) Request {
		return Request{Plan: "kiosk", OnLimit: policy.ReplaceOldest, Attributes: policy.StartAttributes{Priority: n}}
	}
	mustStart(t, l, "kiosk", priority(nil))
	free := mustStart(t, other, "kiosk", priority(&one))
	_, err = l.Start(ctx, "kiosk", priority(&one))
	assert.Equal(t, NoEvictionPlan, requireLimit(t, err).NoEviction)
	paid := mustStart(t, l, "kiosk", priority(&nine))
	require.Len(t, paid.Ended, 1)
	assert.Equal(t, free.Stream.ID, paid.Ended[0].Stream.ID)
}

func TestLimits_RequireAndObserve(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	_, err := l.Rules().SetPlan(ctx, policy.DefaultPlan, policy.Plan{
		Limit: 3, Require: []policy.Attribute{policy.AttrDeviceID, "labels.tier"},
		Limits: []policy.Limit{{Name: "none", Limit: 0, Observe: true}, {Name: "gold", Where: in("labels.tier", "gold"), Limit: 0, Observe: true}},
	})
	require.NoError(t, err)
	_, err = l.Start(ctx, "maya", Request{Attributes: policy.StartAttributes{Labels: map[string]string{"kids": "yes"}}})
	var missing *policy.MissingAttributesError
	require.ErrorAs(t, err, &missing)
	require.ErrorIs(t, err, policy.ErrMissingAttributes)
	assert.Equal(t, []policy.Attribute{policy.AttrDeviceID, "labels.tier"}, missing.Missing)
	assert.Zero(t, keysOf(t, l, "maya"))
	st := mustStart(t, l, "maya", Request{Device: Device{ID: "d"}, Attributes: policy.StartAttributes{Labels: map[string]string{"tier": "silver"}}})
	assert.Equal(t, []string{"none"}, st.Observed)
	assert.Equal(t, map[string]int64{"none": 1, "total": 0}, l.Stats().WouldRefuse)
	assert.Equal(t, map[string]int64{"total": 0}, l.Stats().Refused)

	bad := 10
	for member, req := range map[string]Request{
		"profile":           {Attributes: policy.StartAttributes{Profile: strings.Repeat("a", 201)}},
		"network":           {Attributes: policy.StartAttributes{Network: "a\x00"}},
		"content.type":      {Attributes: policy.StartAttributes{ContentType: "\xff"}},
		"content.labels":    {Attributes: policy.StartAttributes{ContentLabels: make([]string, 9)}},
		"content.labels[1]": {Attributes: policy.StartAttributes{ContentLabels: []string{"a", ""}}},
		"labels.a":          {Attributes: policy.StartAttributes{Labels: map[string]string{"a": strings.Repeat("é", 65)}}},
		"priority":          {Attributes: policy.StartAttributes{Priority: &bad}},
		"replaces":          {Replaces: make([]string, 61)},
	} {
		_, err := l.Start(ctx, "maya", req)
		var attribute *policy.AttributeError
		require.ErrorAs(t, err, &attribute)
		require.ErrorIs(t, err, policy.ErrBadAttributes)
		assert.Equal(t, member, attribute.Member)
	}
	many, long := map[string]string{}, map[string]string{}
	for i := range 9 {
		many[fmt.Sprint(i)] = "x"
	}
	for i := range 5 {
		long[fmt.Sprint(i)] = strings.Repeat("é", 60)
	}
	for _, labels := range []map[string]string{many, long, {"a b": "x"}, {strings.Repeat("a", 33): "x"}} {
		_, err := l.Start(ctx, "maya", Request{Attributes: policy.StartAttributes{Labels: labels}})
		require.ErrorIs(t, err, policy.ErrBadAttributes)
	}
}

// limitAudit follows every revision. Whenever a user gets a new key, all limits of
// racingPlan hold.
type limitAudit struct {
	streams map[string]map[string]auditedStream // user -> slot
	checked int
}

type auditedStream struct {
	D struct{ Type string }
	C struct{ ID string }
	A struct{ Profile string }
}

var racingPlan = policy.Plan{Limit: 4, OnLimit: policy.ReplaceOldest, Limits: []policy.Limit{
	{Name: "tv", Where: in(policy.AttrDeviceType, "tv"), Limit: 1, OnLimit: policy.ReplaceOldest},
	{Name: "profile", Per: policy.AttrProfile, Limit: 2, OnLimit: policy.ReplaceOldest},
	{Name: "titles", Where: in(policy.AttrDeviceType, "phone"), Count: policy.CountContent, Limit: 2},
}}

func (a *limitAudit) revision(t *testing.T, prefix string, events []*clientv3.Event) {
	t.Helper()
	put := map[string]bool{}
	for _, e := range events {
		user, slot, ok := strings.Cut(strings.TrimPrefix(string(e.Kv.Key), prefix+"/users/"), "/")
		if !ok || !strings.HasPrefix(string(e.Kv.Key), prefix+"/users/") {
			continue
		}
		delete(a.streams[user], slot)
		if e.Type == mvccpb.PUT {
			if a.streams[user] == nil {
				a.streams[user] = map[string]auditedStream{}
			}
			var s auditedStream
			require.NoError(t, json.Unmarshal(e.Kv.Value, &s))
			a.streams[user][slot] = s
			put[user] = true
		}
	}
	for user := range put {
		tvs, profiles, titles := 0, map[string]int{}, map[string]bool{}
		for _, s := range a.streams[user] {
			profiles[s.A.Profile]++
			switch s.D.Type {
			case "tv":
				tvs++
			case "phone":
				titles[s.C.ID] = true
			}
		}
		a.checked++
		assert.LessOrEqual(t, len(a.streams[user]), 4)
		assert.LessOrEqual(t, tvs, 1)
		assert.LessOrEqual(t, max(profiles["a"], profiles["b"], profiles["c"]), 2)
		assert.LessOrEqual(t, len(titles), 2)
	}
}

// Concurrent starts on several nodes never exceed a limit.
func TestLimits_Race(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	nodes := make([]*Limiter, 3)
	for i := range nodes {
		nodes[i] = newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	}
	_, err := nodes[0].Rules().SetPlan(t.Context(), policy.DefaultPlan, racingPlan)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	events := c.Watch(ctx, prefix+"/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	require.True(t, (<-events).Created)
	var wg sync.WaitGroup
	var mu sync.Mutex
	admitted, refused := 0, 0
	for i := range 16 {
		wg.Go(func() {
			user := fmt.Sprint("user-", i%4)
			for range 25 {
				r := Request{
					Device:     Device{Type: []string{"tv", "phone"}[rand.N(2)]},
					Content:    Content{ID: []string{"x", "y", "z"}[rand.N(3)]},
					Attributes: policy.StartAttributes{Profile: []string{"a", "b", "c"}[rand.N(3)]},
				}
				if rand.N(2) == 0 {
					r.OnLimit = policy.ReplaceOldest
				}
				st, err := nodes[rand.N(3)].Start(context.Background(), user, r)
				mu.Lock()
				if err == nil {
					admitted++
				} else {
					refused++
					assert.ErrorIs(t, err, ErrLimit)
				}
				mu.Unlock()
				if err == nil && rand.N(2) == 0 {
					if _, err := nodes[rand.N(3)].Stop(context.Background(), user, st.Stream.ID); !errors.Is(err, ErrEnded) {
						assert.NoError(t, err)
					}
				}
			}
		})
	}
	wg.Wait()
	mark, err := c.Put(t.Context(), prefix+"/audit", "end")
	require.NoError(t, err)
	a := limitAudit{streams: map[string]map[string]auditedStream{}}
	for last := int64(0); last < mark.Header.Revision; {
		resp, ok := <-events
		require.True(t, ok)
		for all := resp.Events; len(all) > 0; {
			n := 1
			for n < len(all) && all[n].Kv.ModRevision == all[0].Kv.ModRevision {
				n++
			}
			last = all[0].Kv.ModRevision
			a.revision(t, prefix, all[:n])
			all = all[n:]
		}
	}
	assert.Positive(t, refused)
	assert.Positive(t, a.checked)
	t.Logf("%d starts admitted and %d refused, %d revisions checked", admitted, refused, a.checked)
}

// While etcd does not answer, a node applies all limits to its replica, and admits no stream
// under a plan that it cannot read.
func TestLimits_Outage(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	l := newLimiter(t, c, Config{Prefix: "/t", Limit: 3, Outage: OutageAdmit, Timeout: 10 * time.Second})
	_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, policy.Plan{
		Limit: 3, Require: []policy.Attribute{policy.AttrDeviceType},
		Limits: []policy.Limit{{Name: "tv", Where: in(policy.AttrDeviceType, "tv"), Limit: 1}, {Name: "all", Limit: 0, Observe: true}},
	})
	require.NoError(t, err)
	_, err = c.Put(t.Context(), "/t/plans/gold", `{"limit":9,"needs":["teleport"]}`)
	require.NoError(t, err)
	tv := Request{Device: Device{Type: "tv"}}
	mustStart(t, l, "maya", tv)
	require.Eventually(t, func() bool {
		plans, _ := l.Rules().Unreadable()
		entries, _, _ := l.replica.UserEntries("maya")
		return len(plans) == 1 && len(entries) == 1
	}, time.Minute, time.Millisecond)
	m.Stop()
	awaitBreaker(t, true, l)
	_, err = l.Start(t.Context(), "maya", tv)
	full := requireLimit(t, err)
	require.Len(t, full.Limits, 1)
	assert.Equal(t, "tv", full.Limits[0].Name)
	assert.Equal(t, []policy.Blocking{{Limits: []string{"tv"}, Enough: true}}, full.Blocking)
	st := mustStart(t, l, "maya", Request{Device: Device{Type: "phone"}})
	assert.True(t, st.Stream.Degraded)
	assert.Equal(t, []string{"all"}, st.Observed)
	_, err = l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, policy.ErrMissingAttributes)
	_, err = l.Start(t.Context(), "maya", Request{Plan: "gold"})
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, policy.ErrUnreadable)
}
