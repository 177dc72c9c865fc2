package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/problem"
	"streamcount/lease"
)

func TestRules_Calls(t *testing.T) {
	const limits, plans, rules = "/api/v1/limits/users/", "/api/v1/plans", "/api/v1/rules"
	tests := []struct {
		method, target, body string
		status               int
		answer               string // the body, or a part of it
		call                 string
	}{
		{"GET", limits + "maya", "", 200, `{"userId":"maya","limit":1}`, "override maya"},
		{"GET", limits + "tom", "", 404, `"limit":3`, "override tom"},
		{"GET", limits + "a%09b", "", 422, `path.user`, ""},
		{"PUT", limits + "maya", `{"limit":0}`, 200, `{"userId":"maya","limit":0}`, "set override maya limit 0"},
		{"PUT", limits + "maya", `{"limit":60}`, 200, `{"userId":"maya","limit":60}`, "set override maya limit 60"},
		{"PUT", limits + "maya", `{"plan":"family"}`, 200, `{"userId":"maya","plan":"family"}`, "set override maya plan family"},
		{"PUT", limits + "maya", `{"plan":"gold"}`, 422, "a plan that does not exist", "set override maya plan gold"},
		{"PUT", limits + "maya", "", 422, "", ""},
		{"PUT", limits + "maya", "{}", 422, "expected limit, plan or limits", ""},
		{"PUT", limits + "maya", `{"limit":1,"plan":"family"}`, 422, "exactly one", ""},
		{"PUT", limits + "maya", `{"limit":61}`, 422, "body.limit", ""},
		{"PUT", limits + "maya", `{"limit":-1}`, 422, "body.limit", ""},
		{"PUT", limits + "maya", `{"limit":1.5}`, 422, "body.limit", ""},
		{"PUT", limits + "maya", `{"limit":"1"}`, 422, "body.limit", ""},
		{"PUT", limits + "maya", `{"limit":true}`, 422, "body.limit", ""},
		{"PUT", limits + "maya", `{"limit":null}`, 422, "", ""},
		{"PUT", limits + "maya", `{"limit":1e3}`, 422, "body.limit", ""},
		{"PUT", limits + "maya", `{"limt":1}`, 422, "limt", ""},
		{"PUT", limits + "maya", `{"limit":1,"limit":2}`, 400, "", ""},
		{"PUT", limits + "maya", `[]`, 422, "", ""},
		{"DELETE", limits + "maya", "", 200, `{"userId":"maya","limit":1}`, "remove override maya"},
		{"DELETE", limits + "tom", "", 404, "User has no limit of their own", "remove override tom"},
		{"POST", limits + "maya", "", 405, "GET, HEAD, PUT, DELETE", ""},

		{"GET", plans, "", 200, `{"plans":[{"name":"basic","limit":1},{"name":"family",`, "plans"},
		{"GET", plans + "/family", "", 200, `{"name":"family","limit":4,"onLimit":"replace-oldest","count":"streams"}`, "plan family"},
		{"GET", plans + "/gold", "", 404, "/problems/plan-not-found", "plan gold"},
		{"GET", plans + "/a%20b", "", 422, "path.plan", ""},
		{"GET", plans + "/" + strings.Repeat("p", 65), "", 422, "path.plan", ""},
		{"PUT", plans + "/gold", `{"limit":9}`, 200, `{"name":"gold","limit":9,"onLimit":"deny","count":"streams"}`, "set plan gold {Limit:9 OnLimit:deny Count:streams Limits:[] Require:[]}"},
		{"PUT", plans + "/gold", `{"limit":9,"onLimit":"replace-oldest","count":"devices"}`, 200, `"count":"devices"`, "set plan gold {Limit:9 OnLimit:replace-oldest Count:devices Limits:[] Require:[]}"},
		{"PUT", plans + "/gold", `{}`, 422, "limit", ""},
		{"PUT", plans + "/gold", `{"limit":61}`, 422, "body.limit", ""},
		{"PUT", plans + "/gold", `{"limit":1,"onLimit":"explode"}`, 422, "body.onLimit", ""},
		{"PUT", plans + "/gold", `{"limit":1,"count":"sheep"}`, 422, "body.count", ""},
		{"DELETE", plans + "/family", "", 200, `"name":"family"`, "remove plan family"},
		{"DELETE", plans + "/gold", "", 404, "Plan not found", "remove plan gold"},

		{"POST", rules, `{"plans":{"gold":{"limit":9}},"users":{"maya":{"plan":"gold"}},"removeUsers":["tom"],"dryRun":true}`, 200,
			`"applied":false`, "apply 1 plans 2 users {DryRun:true Since:0 RoutingRevision:0}"},
		{"POST", rules, `{"removePlans":["family"],"revision":7}`, 200,
			`{"revision":88,"applied":true,"plans":[{"name":"family","old":{"limit":4,"onLimit":"replace-oldest","count":"streams"}}],"users":[]}`,
			"apply 1 plans 0 users {DryRun:false Since:7 RoutingRevision:0}"},
		{"POST", rules, `{}`, 200, `"plans":[],"users":[]`, "apply 0 plans 0 users {DryRun:false Since:0 RoutingRevision:0}"},
		{"POST", rules, `{"users":{"maya":{}}}`, 422, "body.users.maya", ""},
		{"POST", rules, `{"users":{"maya":{"limit":99}}}`, 422, "body.users", ""},
		{"POST", rules, `{"users":{"maya":{"limit":1}},"removeUsers":["maya"]}`, 422, "body.removeUsers", ""},
		{"POST", rules, `{"plans":{"p":{"limit":1}},"removePlans":["p"]}`, 422, "body.removePlans", ""},
		{"POST", rules, `{"plans":{"p":null}}`, 422, "", ""},
		{"POST", rules, `{"revision":-1}`, 422, "body.revision", ""},
		{"POST", rules, `{"plans":{"` + strings.Repeat("p", openapi.MaxRules) + `":{"limit":1}}}`, 413, "", ""},
	}
	f := &fake{}
	s := newServer(t, Config{}, f)
	for _, tt := range tests {
		t.Run(tt.method+tt.target+tt.body[:min(len(tt.body), 40)], func(t *testing.T) {
			w := call(s, tt.method, tt.target, tt.body)
			require.Equal(t, tt.status, w.Code, w.Body)
			all := w.Body.String() + fmt.Sprint(w.Header())
			assert.Contains(t, all, tt.answer)
			got := strings.Join(f.taken(), "\n")
			assert.Equal(t, tt.call, got)
		})
	}
}

func TestRules_WithoutABackend(t *testing.T) {
	s := newServer(t, Config{}, nil)
	assert.Equal(t, 503, call(s, "GET", "/api/v1/plans", "").Code)
	s.SetBackend(Backend{Limiter: &fake{}, Ready: isReady})
	assert.Equal(t, 503, call(s, "GET", "/api/v1/plans", "").Code)
	assert.Equal(t, 200, call(s, "GET", "/api/v1/stats", "").Code)
}

func TestRules_RefusalsNameTheReason(t *testing.T) {
	for kept, want := range map[lease.NoEvictionReason]struct {
		detail string
		after  int
	}{
		"":                       {"Stop one of the active streams", 0},
		lease.NoEvictionPlan:     {"plan does not allow a start to end another stream", 0},
		lease.NoEvictionCooldown: {"only after 42 seconds", 42},
	} {
		err := &lease.LimitError{Limit: 2, Counted: 2, Active: make([]lease.Stream, 3), NoEviction: kept, EvictAfter: 41500 * time.Millisecond}
		w := call(newServer(t, Config{}, &fake{err: err}), "POST", u+"/start", `{"onLimit":"replace-oldest"}`)
		require.Equal(t, 403, w.Code)
		var p apitype.Problem
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
		assert.Equal(t, problem.LimitReached.Title, p.Title)
		assert.Contains(t, p.Detail, want.detail)
		assert.Equal(t, want.after, p.EvictAfterSeconds)
		assert.Equal(t, []int{2, 3, 2}, []int{*p.Limit, *p.Streams, *p.Counted})
	}
}

func TestRules_ChangesAreAuditLines(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{Access: callers, Log: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{})
	do := func(method, target, body string) {
		t.Helper()
		w := call(s, method, target, body, asHeader, "operator")
		require.Equal(t, 200, w.Code, w.Body)
	}
	do("PUT", "/api/v1/limits/users/maya", `{"plan":"family"}`)
	do("DELETE", "/api/v1/limits/users/maya", "")
	do("PUT", "/api/v1/plans/gold", `{"limit":9}`)
	do("DELETE", "/api/v1/plans/family", "")
	do("POST", "/api/v1/rules", `{"users":{"tom":{"limit":2}},"dryRun":true}`)
	do("POST", "/api/v1/rules", `{"users":{"tom":{"limit":2}}}`)
	family := map[string]any{"limit": 4.0, "onLimit": "replace-oldest", "count": "streams"}
	who := "operator dana"
	want := []map[string]any{
		{"what": "set limit", "user": "maya", "caller": who, "old": map[string]any{"limit": 1.0}, "new": map[string]any{"plan": "family"}},
		{"what": "remove limit", "user": "maya", "caller": who, "old": map[string]any{"limit": 1.0}, "new": nil},
		{"what": "set plan", "user": "", "caller": who, "plan": "gold", "old": family,
			"new": map[string]any{"limit": 9.0, "onLimit": "deny", "count": "streams"}},
		{"what": "remove plan", "user": "", "caller": who, "plan": "family", "old": family, "new": nil},
		{"what": "apply limit", "user": "tom", "caller": who, "old": nil, "new": map[string]any{"limit": 2.0}},
	}
	for _, line := range want {
		line["client"] = "192.0.2.1"
	}
	assert.Equal(t, want, auditLines(t, &log))

	// Changes of unknown outcome are recorded too.
	log.Reset()
	s = newServer(t, Config{Access: callers, Log: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{err: lease.ErrUnavailable})
	for _, c := range [][3]string{
		{"PUT", "/api/v1/limits/users/maya", `{"plan":"family"}`}, {"DELETE", "/api/v1/limits/users/maya", ""},
		{"PUT", "/api/v1/plans/gold", `{"limit":9}`}, {"DELETE", "/api/v1/plans/family", ""},
		{"POST", "/api/v1/rules", `{"users":{"tom":{"limit":2}}}`},
	} {
		require.Equal(t, 503, call(s, c[0], c[1], c[2], asHeader, "operator").Code)
	}
	for _, line := range auditLines(t, &log) {
		assert.Equal(t, "unknown", line["outcome"])
	}
	assert.Len(t, auditLines(t, &log), 5)
}

// Only a service may set the plan of a start.
func TestRules_PlanOfAStart(t *testing.T) {
	f := &fake{}
	s := newServer(t, Config{Access: byHeader{"service": {Kind: access.Service}, "maya": {Kind: access.Viewer, Name: "maya"}}}, f)
	require.Equal(t, 200, call(s, "POST", u+"/start", `{"plan":"family"}`, asHeader, "service").Code)
	assert.Contains(t, f.taken()[0], "Plan:family")
	w := call(s, "POST", u+"/start", `{"plan":"family"}`, asHeader, "maya")
	assert.Equal(t, 422, w.Code)
	assert.Contains(t, w.Body.String(), "body.plan")
	assert.Empty(t, f.taken())
}
