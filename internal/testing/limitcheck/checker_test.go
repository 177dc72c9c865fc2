package limitcheck

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/policy"
)

// history builds revisions of one user.
type history struct {
	t *testing.T
	*Checker
	revision int64
}

func newHistory(t *testing.T, plan string) *history {
	t.Helper()
	h := &history{t: t, Checker: New("/p", Plan{Limit: 3, OnLimit: replaceOldest})}
	assert.Empty(t, h.apply(Change{"/p/plans/x", []byte(plan), true}, Change{"/p/limits/maya", []byte(`{"plan":"x"}`), true}))
	return h
}

func (h *history) apply(changes ...Change) []string {
	h.revision++
	return h.Apply(h.revision, changes)
}

// put is the put of a stream with a nonce, and further members of its record.
func put(slot int, nonce, members string) Change {
	return Change{fmt.Sprintf("/p/users/maya/%03d", slot), fmt.Appendf(nil, `{"n":%q,"t":1,"l":60%s}`, nonce, members), true}
}

func deleted(slot int) Change { return Change{Key: fmt.Sprintf("/p/users/maya/%03d", slot)} }

func tombstone(nonce, reason string) Change {
	return Change{"/p/ended/1", fmt.Appendf(nil, `[{"n":%q,"r":%q}]`, nonce, reason), true}
}

// Each case has one revision after some streams, and what is wrong with it.
func TestChecker(t *testing.T) {
	const (
		tv     = `,"d":{"type":"tv"}`
		tvs    = `{"limit":3,"onLimit":"replace-oldest","limits":[{"name":"tv","where":{"device.type":["tv",""]},"limit":1}]}`
		live   = `{"limit":3,"onLimit":"replace-oldest","limits":[{"name":"live","where":{"content.type":["live"]},"limit":1,"onLimit":"replace-oldest"}]}`
		ofLive = `,"a":{"type":"live"}`
		lowest = `{"limit":2,"onLimit":"replace-lowest"}`
		high   = `,"a":{"priority":7}`
		kids   = `{"limit":9,"limits":[{"name":"kids","per":"profile","limit":1}]}`
		kid    = `,"a":{"profile":"kid"}`
	)
	tests := []struct {
		name, plan string
		held       []string // members of the records of the streams in slots 0, 1, ...
		changes    []Change
		want       string // part of the first finding; "" for none
	}{
		{"within", tvs, []string{tv}, []Change{put(1, "n", `,"d":{"type":"phone"}`)}, ""},
		{"second", tvs, []string{tv}, []Change{put(1, "n", tv)}, "limit tv of 1 has 2"},
		{"missing", tvs, []string{tv}, []Change{put(1, "n", "")}, "limit tv of 1 has 2"},
		{"total", tvs, []string{tv, tv, tv}, []Change{put(3, "n", `,"d":{"type":"phone"}`)}, "limit total of 3 has 4"},
		{"otherProfile", kids, []string{kid}, []Change{put(1, "n", `,"a":{"profile":"adult"}`)}, ""},
		{"sameProfile", kids, []string{kid}, []Change{put(1, "n", kid)}, "limit kids of 1 has 2"},
		{"twice", tvs, nil, []Change{put(0, "n", tv), put(1, "m", tv)}, "two new streams"},
		{"ownSession", tvs, []string{tv + `,"s":"a"`, tv}, []Change{put(0, "n", tv+`,"s":"a"`), tombstone("0", "replaced")}, ""},
		{"denied", tvs, []string{tv}, []Change{put(0, "n", tv), tombstone("0", "evicted")}, "limit tv does not allow"},
		{"evicted", live, []string{ofLive}, []Change{put(0, "n", ofLive), tombstone("0", "evicted")}, ""},
		{"notNeeded", live, []string{ofLive}, []Change{put(0, "n", ""), tombstone("0", "evicted")}, "need not have ended"},
		{"wrongVictim", live, []string{"", ofLive, ""}, []Change{put(1, "n", ""), tombstone("1", "evicted")}, "in place of"},
		{"lower", lowest, []string{"", ""}, []Change{put(0, "n", high), tombstone("0", "evicted")}, ""},
		{"equal", lowest, []string{high, ""}, []Change{put(0, "n", high), tombstone("0", "evicted")}, "no lower priority"},
		{"expired", live, []string{ofLive}, []Change{put(0, "n", ofLive)}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHistory(t, tt.plan)
			for slot, members := range tt.held {
				h.apply(put(slot, fmt.Sprint(slot), members)) // some hold more than the plan allows
			}
			wrong := h.apply(tt.changes...)
			if tt.want == "" {
				assert.Empty(t, wrong)
			} else if assert.NotEmpty(t, wrong) {
				assert.Contains(t, wrong[0], tt.want)
			}
		})
	}
}

// A session that continues may keep what the user held at any time since their last put. An
// eviction that another end made unnecessary is not wrong.
func TestChecker_DeletedBeforeTheRevision(t *testing.T) {
	h := newHistory(t, `{"limit":9,"limits":[{"name":"d","count":"devices","limit":1}]}`)
	h.apply(put(0, "0", `,"s":"a","d":{"id":"y"}`))
	h.apply(put(1, "1", `,"d":{"id":"y"}`))
	h.apply(put(2, "2", `,"d":{"id":"z"}`))
	require.Empty(t, h.apply(deleted(2)))
	assert.Empty(t, h.apply(put(0, "3", `,"s":"a","d":{"id":"z"}`), tombstone("0", "replaced")))
	assert.Len(t, h.State("maya").Streams, 2)

	h = newHistory(t, `{"limit":1,"onLimit":"replace-oldest","limits":[{"name":"d","limit":2}]}`)
	h.apply(put(0, "0", ""))
	h.apply(put(1, "1", ""))
	require.Empty(t, h.apply(deleted(1)))
	assert.Empty(t, h.apply(put(0, "2", ""), tombstone("0", "evicted")))
	require.Empty(t, h.apply(deleted(0)))
	assert.Empty(t, h.State("maya").Streams)
}

func TestState_MayRefuse(t *testing.T) {
	h := newHistory(t, `{"limit":2,"onLimit":"replace-oldest","limits":[
		{"name":"tv","where":{"device.type":["tv"]},"limit":1},
		{"name":"watch","where":{"device.type":["watch"]},"limit":0,"observe":true}]}`)
	as := func(device string) Attributes {
		return Attributes{map[string][]string{"device.type": {device}}, defaultPriority}
	}
	require.Empty(t, h.apply(put(0, "0", `,"s":"a","d":{"type":"tv"}`)))
	st := h.State("maya")
	assert.True(t, st.MayRefuse(Request{Attributes: as("tv")}))
	assert.True(t, st.MayRefuse(Request{Attributes: as("tv"), Evict: true}), "the limit denies")
	assert.False(t, st.MayRefuse(Request{Attributes: as("tv"), Session: "a"}))
	assert.False(t, st.MayRefuse(Request{Attributes: as("tv"), Replaces: []string{"0"}}))
	assert.False(t, st.MayRefuse(Request{Attributes: as("phone")}))
	assert.False(t, st.MayRefuse(Request{Attributes: as("watch")}), "the limit only observes")
	require.Empty(t, h.apply(put(1, "1", `,"d":{"type":"phone"}`)))
	assert.True(t, h.State("maya").MayRefuse(Request{Attributes: as("phone")}))
	assert.False(t, h.State("maya").MayRefuse(Request{Attributes: as("phone"), Evict: true}))
	assert.False(t, st.MayRefuse(Request{Attributes: as("phone")}), "a state does not change")
	require.Empty(t, h.apply(Change{Key: "/p/limits/maya"}))
	assert.False(t, h.State("maya").MayRefuse(Request{Attributes: as("tv")}), "the limit of users without a plan is 3")
	require.Empty(t, h.apply(Change{"/p/limits/maya", []byte(`{"plan":"x","limits":{"tv":2}}`), true}))
	assert.True(t, h.State("maya").MayRefuse(Request{Attributes: as("tv")}), "the total is 2")
	require.Empty(t, h.apply(deleted(1)))
	assert.False(t, h.State("maya").MayRefuse(Request{Attributes: as("tv")}), "the user may have two")
	require.Empty(t, h.apply(put(1, "1", "")))
	require.Empty(t, h.apply(Change{"/p/limits/maya", []byte(`{"limit":2}`), true}))
	assert.True(t, h.State("maya").MayRefuse(Request{Attributes: as("tv")}))
}

// policyPlan returns the plan of the service that has the same stored form.
func policyPlan(p Plan) policy.Plan {
	out := policy.Plan{Limit: p.Limit, OnLimit: policy.OnLimit(p.OnLimit), Count: policy.Counting(p.Count)}
	for _, l := range p.Limits {
		to := policy.Limit{
			Name: l.Name, Count: policy.Counting(l.Count), Per: policy.Attribute(l.Per), Limit: l.Limit,
			OnLimit: policy.OnLimit(l.OnLimit), Observe: l.Observe,
		}
		for a, v := range l.Where {
			to.Where = append(to.Where, policy.Condition{Attribute: policy.Attribute(a), In: v.In, Not: v.Not})
		}
		out.Limits = append(out.Limits, to)
	}
	return out.WithDefaults()
}

func policyAttributes(as Attributes) *policy.Attributes {
	return &policy.Attributes{
		DeviceID: as.Value("device.id"), DeviceType: as.Value("device.type"), ContentID: as.Value("content.id"),
		ContentType: as.Value("content.type"), ContentLabels: as.Values["content.labels"], Profile: as.Value("profile"),
		Labels: as.Labels(), Priority: as.Priority,
	}
}

func record(session string, as Attributes) string {
	text, _ := json.Marshal(map[string]any{
		"s": session, "d": map[string]string{"id": as.Value("device.id"), "type": as.Value("device.type")},
		"c": map[string]string{"id": as.Value("content.id")},
		"a": map[string]any{
			"profile": as.Value("profile"), "type": as.Value("content.type"), "content": as.Values["content.labels"],
			"labels": as.Labels(), "priority": as.Priority,
		},
	})
	return "," + strings.TrimPrefix(strings.TrimSuffix(string(text), "}"), "{")
}

// The decisions of policy.Decide on random histories are right by the checker, and the
// random plans lead to all kinds of decisions.
func TestChecker_AgreesWithDecide(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	refused, evictions, several := 0, 0, 0
	for range 4000 {
		plan := RandomPlan(rng)
		text, err := json.Marshal(plan)
		require.NoError(t, err)
		h := newHistory(t, string(text))
		p := policyPlan(plan)
		require.NoError(t, p.Validate())
		rule := policy.Rule{Limit: p.Limit, EvictionAllowed: p.OnLimit != policy.Deny, Counting: p.Count, Several: &p}
		slots := map[string]int{} // by nonce
		for i := range 12 {
			if st := h.State("maya").Streams; len(st) > 0 && rng.IntN(4) == 0 {
				require.Empty(t, h.apply(Change{Key: st[rng.IntN(len(st))].Key}))
			}
			as, session := RandomAttributes(rng), oneOf(rng, "", "a", "b")
			start := policy.Start{
				Session: session, Evict: rng.IntN(3) > 0, Device: as.Value("device.id"), Content: as.Value("content.id"),
				Attributes: policyAttributes(as),
			}
			var held []policy.Stream
			st := h.State("maya")
			for at, s := range st.Streams {
				held = append(held, policy.Stream{
					Index: at, Slot: slots[s.Nonce], Nonce: [12]byte([]byte(s.Nonce)), Session: s.Session, Device: s.Value("device.id"),
					Content: s.Value("content.id"), Attributes: policyAttributes(s.Attributes),
				})
			}
			d, ok := policy.Decide(rule, held, start)
			if !ok {
				refused++
				require.True(t, st.MayRefuse(Request{Attributes: as, Session: session, Evict: start.Evict}), "%s\n%v\n%+v", text, st.Streams, start)
				continue
			}
			if !start.Evict {
				require.False(t, st.MayRefuse(Request{Attributes: as, Session: session}), "%s\n%v\n%+v", text, st.Streams, start)
			}
			nonce := fmt.Sprintf("nonce%07d", i)
			slots[nonce] = d.Slot
			changes := []Change{put(d.Slot, nonce, record(session, as))}
			tombstones := []map[string]string{}
			evicted := 0
			for _, e := range d.Endings {
				if e.Stream.Slot != d.Slot {
					changes = append(changes, deleted(e.Stream.Slot))
				}
				tombstones = append(tombstones, map[string]string{"n": string(e.Stream.Nonce[:]), "r": string(e.Reason)})
				if e.Reason == policy.ReasonEvicted {
					evicted++
				}
			}
			if evicted > 0 {
				evictions++
			}
			if evicted > 1 {
				several++
			}
			ends, err := json.Marshal(tombstones)
			require.NoError(t, err)
			changes = append(changes, Change{"/p/ended/1", ends, true})
			slices.Reverse(changes)
			require.Empty(t, h.apply(changes...), "%s", text)
		}
	}
	t.Logf("%d refused, %d evicted streams, %d of these several", refused, evictions, several)
	assert.Greater(t, refused, 1000)
	assert.Greater(t, evictions, 1000)
	assert.Greater(t, several, 50)
}
