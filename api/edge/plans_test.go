package edge

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/api/edge/profile"
	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/testlog"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/metrics"
)

// planFile has two profiles with constants, one whose paths have the type, and one that states
// nothing.
const planFile = `profiles:
  live: {paths: "/live/{content}/{f...}", user: "header:X-User", session: "query:sid", content: {type: live}}
  vod: {paths: "/vod/{content}/{f...}", user: "header:X-User", session: "query:sid", content: {type: vod, labels: "query:pack"}, profile: "header:X-Profile"}
  both: {paths: "/{type}/{content}/{f...}", other: deny, user: "header:X-User", session: "query:sid", content: {type: "path:type"}}
  silent: {paths: "/{type}/{content}/{f...}", user: "header:X-User", session: "query:sid"}
  observe: {paths: "/{type}/{content}/{f...}", user: "header:X-User", session: "query:sid", observe: true}
`

// startPlanNode returns a node with planFile, whose default plan is p.
func startPlanNode(t *testing.T, cfg Config, p policy.Plan) (node, *lease.Limiter) {
	t.Helper()
	l := newLimiter(t, etcdtest.Client(t), lease.Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, p)
	require.NoError(t, err)
	n := newNode(t, cfg, l)
	profiles, err := profile.Parse([]byte(planFile))
	require.NoError(t, err)
	n.use(profiles)
	return n, l
}

func only(attribute policy.Attribute, values ...string) []policy.Condition {
	return []policy.Condition{{Attribute: attribute, In: values}}
}

// oneLive admits one live channel, two titles of the package sport for each profile, and three
// streams in all.
var oneLive = policy.Plan{Limit: 3, Require: []policy.Attribute{policy.AttrContentType}, Limits: []policy.Limit{
	{Name: "live", Where: only(policy.AttrContentType, "live"), Limit: 1, Message: "One live channel at a time"},
	{Name: "sport", Where: only(policy.AttrContentLabels, "sport"), Per: policy.AttrProfile, Limit: 1},
}}

// The attributes that profiles state decide under a plan with several limits.
func TestPlans_SeveralLimits(t *testing.T) {
	t.Parallel()
	for name, profiles := range map[string][2]string{"two profiles": {"live", "vod"}, "a type in the path": {"both", "both"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, l := startPlanNode(t, Config{}, oneLive)
			require.Equal(t, 200, n.check(t, profiles[0], "/live/news/1.ts?sid=a").StatusCode)
			refused := n.check(t, profiles[0], "/live/sport/1.ts?sid=b")
			assert.Equal(t, 403, refused.StatusCode)
			assert.Equal(t, "limit", refused.reason())
			var p apitype.Problem
			require.NoError(t, json.Unmarshal([]byte(refused.body), &p))
			assert.Equal(t, "One live channel at a time", p.Detail)
			require.Len(t, p.Limits, 1)
			assert.Equal(t, "live", p.Limits[0].Name)
			require.Equal(t, 200, n.check(t, profiles[1], "/vod/film/1.ts?sid=b").StatusCode, "the refusal was for a live channel")
			require.Equal(t, 200, n.check(t, profiles[1], "/vod/series/1.ts?sid=c").StatusCode)
			assert.Equal(t, 403, n.check(t, profiles[1], "/vod/third/1.ts?sid=d").StatusCode, "three streams in all")
			types := map[string]string{}
			for _, s := range streams(t, l, "maya") {
				require.NotNil(t, s.Attributes)
				types[s.Content.ID] = s.Attributes.ContentType
			}
			assert.Equal(t, map[string]string{"news": "live", "film": "vod", "series": "vod"}, types)
		})
	}
	t.Run("labels and profiles", func(t *testing.T) {
		t.Parallel()
		n, _ := startPlanNode(t, Config{}, oneLive)
		as := func(person, target string) reply {
			return send(t, http.MethodGet, n.url+"/edge/v1/vod/check", map[string]string{"X-Original-URI": target, "X-User": "maya", "X-Profile": person})
		}
		require.Equal(t, 200, as("kids", "/vod/a/1.ts?sid=a&pack=sport").StatusCode)
		require.Equal(t, 200, as("maya", "/vod/b/1.ts?sid=b&pack=sport").StatusCode, "another profile")
		refused := as("kids", "/vod/c/1.ts?sid=c&pack=sport")
		assert.Equal(t, 403, refused.StatusCode)
		assert.Contains(t, refused.body, `"name":"sport"`)
		assert.Equal(t, 200, as("kids", "/vod/c/1.ts?sid=c").StatusCode, "without the label")
	})
}

// A session that requests content of another type moves, also if the id of the content is the same.
// So it evades no limit.
func TestPlans_ChangeOfType(t *testing.T) {
	t.Parallel()
	n, l := startPlanNode(t, Config{}, oneLive)
	require.Equal(t, 200, n.check(t, "both", "/live/x/1.ts?sid=a").StatusCode)
	require.Equal(t, 200, n.check(t, "both", "/vod/x/1.ts?sid=b").StatusCode)
	var refused reply
	require.Eventually(t, func() bool {
		refused = n.check(t, "both", "/live/x/1.ts?sid=b")
		return refused.StatusCode == 403
	}, soon, 100*time.Millisecond, "once the stream is old enough to move")
	assert.Contains(t, refused.body, `"name":"live"`)
	assert.Len(t, streams(t, l, "maya"), 2, "a refused move ends nothing")
	require.NoError(t, l.Leave(t.Context(), "maya", "a"))
	require.Eventually(t, func() bool {
		require.Contains(t, []int{200, 403}, n.check(t, "both", "/live/x/2.ts?sid=b").StatusCode)
		all := streams(t, l, "maya")
		return len(all) == 1 && all[0].Attributes.ContentType == "live"
	}, soon, 100*time.Millisecond)
}

func TestHasOtherAttributes(t *testing.T) {
	t.Parallel()
	live := policy.StartAttributes{ContentType: "live", ContentLabels: []string{"a"}}
	for name, tt := range map[string]struct {
		states policy.StartAttributes
		via    string
		stream *policy.StartAttributes
		want   bool
	}{
		"the same":                    {live, "edge:x", &live, false},
		"another type":                {policy.StartAttributes{ContentType: "vod"}, "edge:x", &live, true},
		"another label":               {policy.StartAttributes{ContentLabels: []string{"b"}}, "edge:x", &live, true},
		"nothing":                     {policy.StartAttributes{}, "edge:x", &live, false},
		"a stream without attributes": {live, "edge:x", nil, true},
		"another profile of viewers":  {policy.StartAttributes{ContentType: "live", Profile: "kids"}, "edge:x", &live, false},
		"the stream of a player":      {live, "", nil, false},
	} {
		ch := check{id: profile.Identity{Attributes: tt.states}}
		assert.Equal(t, tt.want, ch.hasOtherAttributes(lease.Stream{Via: tt.via, Attributes: tt.stream}), name)
	}
}

// A start that lacks what the plan requires is refused with a text that names it. The operator
// sees it in the log, in a metric and in the explanation of a check.
func TestPlans_MissingAttributes(t *testing.T) {
	t.Parallel()
	var log testlog.Buffer
	m := metrics.NewEdge()
	n, l := startPlanNode(t, Config{Metrics: m, Log: slog.New(slog.NewTextHandler(&log, nil))}, policy.Plan{
		Limit: 3, Require: []policy.Attribute{policy.AttrContentType, policy.AttrProfile},
	})
	for _, target := range []string{"/live/news/1.ts?sid=a", "/live/news/2.ts?sid=a"} { // the second is not tried again
		got := n.check(t, "silent", target)
		assert.Equal(t, 403, got.StatusCode)
		assert.Equal(t, "limit", got.reason())
		assert.Equal(t, "0", got.Header.Get("X-Accel-Expires"))
		var p apitype.Problem
		require.NoError(t, json.Unmarshal([]byte(got.body), &p))
		assert.Equal(t, "Maximum number of streams reached", p.Title)
		assert.Equal(t, 403, p.Status)
		assert.Equal(t, "The user's plan requires content.type, profile, which the profile silent of the edge does not state for this request: "+
			"add it to the profile in the edge file, or remove it from require of the plan.", p.Detail)
	}
	assert.Contains(t, n.check(t, "live", "/live/news/1.ts?sid=a").body, "requires profile, which the profile live")
	assert.Equal(t, 200, n.check(t, "observe", "/live/news/1.ts?sid=a").StatusCode)
	assert.Contains(t, log.String(), "which the profile observe of the edge does not state")
	assert.Empty(t, streams(t, l, "maya"))
	assert.Contains(t, log.String(), "content.type, profile")
	assert.Equal(t, map[string]float64{"silent": 2, "live": 1, "observe": 1}, incomplete(t, m))

	explain := func(name, target string, header http.Header) apitype.EdgeExplanation {
		header.Set("X-User", "maya")
		return n.Explain(t.Context(), (*n.profiles.Load())[name].Profile, profile.Request{Method: http.MethodGet, Target: target, Header: header})
	}
	x := explain("silent", "/live/news/1.ts?sid=a", http.Header{})
	assert.Equal(t, []string{"be refused", "deny", "limit"}, []string{x.Would, x.Decision, x.Reason})
	assert.Contains(t, x.Detail, "requires content.type, profile")
	x = explain("vod", "/vod/film/1.ts?sid=a&pack=sport", http.Header{"X-Profile": {"kids"}})
	assert.Equal(t, []string{"start", "allow"}, []string{x.Would, x.Decision})
	assert.Equal(t, map[string]string{"content.type": "vod", "content.labels": "sport", "profile": "kids"}, x.Attributes)
	assert.Equal(t, 200, send(t, http.MethodGet, n.url+"/edge/v1/vod/check", map[string]string{
		"X-Original-URI": "/vod/film/1.ts?sid=a", "X-User": "maya", "X-Profile": "kids",
	}).StatusCode)
}

// incomplete returns the counters of refusals for missing attributes that are not 0, by profile.
func incomplete(t *testing.T, m *metrics.Edge) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	require.NoError(t, r.Register(m))
	families, err := r.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, one := range f.GetMetric() {
			if n := one.GetCounter().GetValue(); f.GetName() == "streamcount_edge_incomplete_total" && n > 0 {
				out[one.GetLabel()[0].GetValue()] = n
			}
		}
	}
	return out
}

// Explain decides by all limits of the plan.
func TestExplain_SeveralLimits(t *testing.T) {
	t.Parallel()
	n, _ := startPlanNode(t, Config{}, oneLive)
	require.Equal(t, 200, n.check(t, "live", "/live/news/1.ts?sid=a").StatusCode)
	would := func(name, target string) string {
		return n.Explain(t.Context(), (*n.profiles.Load())[name].Profile, profile.Request{
			Method: http.MethodGet, Target: target, Header: http.Header{"X-User": {"maya"}},
		}).Would
	}
	require.Eventually(t, func() bool { return would("live", "/live/other/1.ts?sid=b") == "be refused" }, soon, time.Millisecond)
	assert.Equal(t, "start", would("vod", "/vod/film/1.ts?sid=b"))
}
