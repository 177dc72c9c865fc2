package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/lease"
	"streamcount/lease/policy"
)

const tvPlan = `{"limit":3,"onLimit":"replace-oldest","require":["device.type"],"limits":[{"name":"tv","where":{"device.type":["tv",""]},"limit":1,"message":"Only one TV at a time"}]}`

func TestPreview_Try(t *testing.T) {
	tests := []struct {
		name, body string
		status     int
		answer     string // the body, or a part of it
	}{
		{"first", `{"plan":` + tvPlan + `,"start":{"device":{"type":"tv"}}}`, 200,
			`{"admitted":true,"limits":[],"ends":[],"warnings":["limit tv depends on device.type, which the player reports"]}`},
		{"secondTV", `{"plan":` + tvPlan + `,"streams":[{"device":{"type":"tv"}}],"start":{"device":{"type":"tv"}}}`, 200,
			`{"admitted":false,"limits":[{"name":"tv","limit":1,"counted":1,"count":"streams","message":"Only one TV at a time"}],"ends":[],`},
		{"replaces", `{"plan":` + tvPlan + `,"streams":[{"device":{"type":"phone"}},{"device":{"type":"tv"}}],"start":{"device":{"type":"tv"},"replaces":["1"]}}`, 200,
			`{"admitted":true,"limits":[],"ends":[1]`},
		{"session", `{"plan":` + tvPlan + `,"streams":[{"session":"a","device":{"type":"tv"}}],"start":{"session":"a","device":{"type":"tv"}}}`, 200,
			`{"admitted":true,"limits":[],"ends":[0]`},
		{"evicts", `{"plan":{"limit":1,"onLimit":"replace-oldest"},"streams":[{}],"start":{"onLimit":"replace-oldest"}}`, 200,
			`{"admitted":true,"limits":[],"ends":[0]}`},
		{"missing", `{"plan":` + tvPlan + `,"start":{}}`, 200, `{"admitted":false,"limits":[],"ends":[],"missing":["device.type"],`},
		{"region", `{"plan":{"limits":[{"name":"eu","where":{"region":"eu"},"limit":0}]},"start":{"region":"eu"}}`, 200,
			`{"admitted":false,"limits":[{"name":"eu"`},
		{"observed", `{"plan":{"limit":3,"limits":[{"name":"one","limit":0,"observe":true}]}}`, 200, `"observed":["one"]`},
		{"priority", `{"plan":{"limit":1,"onLimit":"replace-lowest"},"streams":[{"priority":0}],"start":{"priority":9,"onLimit":"replace-oldest"}}`, 200,
			`"ends":[0]`},
		{"noPlan", `{}`, 422, "expected required property plan"},
		{"emptyPlan", `{"plan":{}}`, 422, `"location":"body.plan.limit"`},
		{"badPlan", `{"plan":{"limits":[{"name":"tv","limit":1,"where":{"device.typ":"tv"}}]}}`, 422,
			`"location":"body.plan.limits[0].where.device.typ","message":"no such attribute; device.type?"`},
		{"unknownMember", `{"plan":{"limit":1},"start":{"devise":{}}}`, 422, "body.start.devise"},
		{"badLabels", `{"plan":{"limit":1},"streams":[{},{"content":{"labels":["\n"]}}]}`, 422,
			`"location":"body.streams[1].content.labels[0]"`},
		{"otherPlan", `{"plan":{"limit":1},"streams":[{"plan":"gold"}]}`, 422, `"location":"body.streams[0].plan"`},
		{"badOnLimit", `{"plan":{"limit":1},"start":{"onLimit":"explode"}}`, 422, "body.start.onLimit"},
		{"noSuchStream", `{"plan":{"limit":1},"streams":[{}],"start":{"replaces":"1"}}`, 422, `"location":"body.start.replaces"`},
		{"notAnIndex", `{"plan":{"limit":1},"streams":[{}],"start":{"replaces":"stream-0"}}`, 422, `expected the index of a running stream`},
		{"streams60", `{"plan":{"limit":1},"streams":[{}` + strings.Repeat(",{}", 59) + `]}`, 200, `"counted":60`},
		{"streams61", `{"plan":{"limit":1},"streams":[{}` + strings.Repeat(",{}", 60) + `]}`, 422, "body.streams"},
		{"largeBody", `{"plan":{"limit":1},"streams":[{"content":{"title":"` + strings.Repeat("t", 100<<10) + `"}}]}`, 200, `"admitted":false`},
	}
	f := &fake{}
	s := newServer(t, Config{Access: callers}, f)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := call(s, "POST", "/api/v1/plans/try", tt.body, asHeader, "reader")
			require.Equal(t, tt.status, w.Code, w.Body)
			assert.Contains(t, w.Body.String(), tt.answer)
			assert.Empty(t, f.taken(), "nothing is read or stored")
		})
	}
	assert.Equal(t, 200, call(s, "PUT", "/api/v1/plans/try", `{"limit":1}`, asHeader, "operator").Code, "a plan may have this name")
}

func TestPreview_Explain(t *testing.T) {
	f := &fake{}
	s := newServer(t, Config{}, f)
	w := call(s, "GET", "/api/v1/limits/users/maya%2Fx/explain", "")
	require.Equal(t, 200, w.Code, w.Body)
	assert.JSONEq(t, `{"plan":"family","from":"override","until":"2026-01-02T03:04:05.678Z","limits":[
		{"name":"total","limit":4,"counted":1,"left":3,"from":"override"},
		{"name":"profile","limit":1,"counted":1,"left":0,"count":"devices","per":"profile","value":"kid","moreValues":2,"observe":true}]}`, w.Body.String())
	assert.Equal(t, []string{"explain maya/x"}, f.taken())
	assert.Equal(t, 422, call(s, "GET", "/api/v1/limits/users/a%09b/explain", "").Code)
	f.err = fmt.Errorf("read: %w: %w", lease.ErrUnavailable, &policy.UnreadableError{Plan: "gold"})
	w = call(s, "GET", "/api/v1/limits/users/maya/explain", "")
	assert.Equal(t, 503, w.Code)
	assert.Contains(t, w.Body.String(), "cannot read the user's plan")
}

// The reply to a plan with several limits has its attributes and warnings. The audit log has
// the names of the limits that differ.
func TestPreview_PlanReplyAndAudit(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{Log: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{})
	w := call(s, "PUT", "/api/v1/plans/family", tvPlan)
	require.Equal(t, 200, w.Code, w.Body)
	var p apitype.Plan
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
	assert.Equal(t, []string{"device.type"}, p.Attributes)
	assert.Equal(t, []string{"limit tv depends on device.type, which the player reports"}, p.Warnings)
	w = call(s, "POST", "/api/v1/rules", `{"plans":{"family":`+tvPlan+`}}`)
	require.Equal(t, 200, w.Code, w.Body)
	var c apitype.RuleChanges
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &c))
	changes := []string{"+ limit tv", "require [] -> [device.type]"}
	assert.Equal(t, changes, c.Plans[0].Changes)
	call(s, "PUT", "/api/v1/plans/family", `{"limit":9}`)
	lines := auditLines(t, &log)
	require.Len(t, lines, 3)
	for i, action := range []string{"set plan", "apply plan"} {
		assert.Equal(t, action, lines[i]["what"])
		assert.Equal(t, []any{changes[0], changes[1]}, lines[i]["limits"])
	}
	assert.NotContains(t, lines[2], "limits", "as before there were several limits")
}
