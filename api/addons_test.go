package api

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/testlog"
	"streamcount/lease/policy"
)

// An override may have numbers for limits by name, and an end.
func TestLimits_AddOns(t *testing.T) {
	f := &fake{}
	s := newServer(t, Config{}, f)
	until := time.Now().Add(48 * time.Hour).Truncate(time.Second).UTC()
	wire := until.Format("2006-01-02T15:04:05.000Z")
	for _, text := range []string{until.Format(time.RFC3339), until.In(time.FixedZone("", 3600)).Format(time.RFC3339), wire} {
		w := call(s, "PUT", "/api/v1/limits/users/maya", `{"plan":"family","limits":{"tv":2,"kids":0},"until":"`+text+`"}`)
		require.Equal(t, 200, w.Code, w.Body)
		assert.JSONEq(t, `{"userId":"maya","plan":"family","limits":{"tv":2,"kids":0},"until":"`+wire+`"}`, w.Body.String())
	}
	want := policy.Override{Plan: "family", Limits: map[string]int{"tv": 2, "kids": 0}, Until: until}
	for _, o := range f.overrides {
		assert.Equal(t, want, o)
	}
	require.Len(t, f.overrides, 3)
	w := call(s, "PUT", "/api/v1/limits/users/maya", `{"limit":1,"limits":null,"until":null}`)
	assert.JSONEq(t, `{"userId":"maya","limit":1}`, w.Body.String())
	w = call(s, "POST", "/api/v1/rules", `{"users":{"maya":{"limits":{"tv":2},"until":"`+wire+`"}},"dryRun":true}`)
	require.Equal(t, 200, w.Code, w.Body)
	assert.Contains(t, w.Body.String(), `"users":[{"userId":"maya","new":{"limits":{"tv":2},"until":"`+wire+`"}}]`)
	f.taken()

	many := make([]string, 17)
	for i := range many {
		many[i] = `"` + string(rune('a'+i)) + `":1`
	}
	for _, bad := range []struct{ body, location, message string }{
		{`{}`, "", "expected limit, plan or limits"},
		{`{"until":"` + wire + `"}`, "", "expected limit, plan or limits"},
		{`{"limits":{}}`, "", "expected limit, plan or limits"},
		{`{"limit":1,"plan":"family","limits":{"tv":2}}`, "", "expected exactly one of limit and plan"},
		{`{"limits":{"tv":61}}`, ".limits.tv", "expected number <= 60"},
		{`{"limits":{"tv":-1}}`, ".limits.tv", "expected number >= 0"},
		{`{"limits":{"tv":1.5}}`, ".limits.tv", "integer"},
		{`{"limits":{"tv":"2"}}`, ".limits.tv", "integer"},
		{`{"limits":{"tv":null}}`, ".limits.tv", "integer"},
		{`{"limits":{"tv":1e30}}`, ".limits.tv", ""},
		{`{"limits":{"total":2}}`, ".limits.total", "use the member limit"},
		{`{"limits":{"TV":2}}`, ".limits", "a-z 0-9 -"},
		{`{"limits":{"` + strings.Repeat("a", 33) + `":2}}`, ".limits", "1 to 32 characters"},
		{`{"limits":[2]}`, ".limits", "object"},
		{`{"limits":{` + strings.Join(many, ",") + `}}`, ".limits", "16"},
		{`{"limit":1,"until":"2020-01-31T00:00:00Z"}`, ".until", "not in the future"},
		{`{"limit":1,"until":"9999-01-31T00:00:00Z"}`, ".until", "more than 100 years"},
		{`{"limit":1,"until":"` + strings.Replace(wire, ".000Z", ".500Z", 1) + `"}`, ".until", "not a whole second"},
		{`{"limit":1,"until":"tomorrow"}`, ".until", "date-time"},
		{`{"limit":1,"until":7}`, ".until", "string"},
	} {
		for _, at := range []string{"body", "body.users.maya"} {
			method, target, body := "PUT", "/api/v1/limits/users/maya", bad.body
			if at != "body" {
				method, target, body = "POST", "/api/v1/rules", `{"users":{"maya":`+body+`}}`
			}
			w := call(s, method, target, body)
			require.Equal(t, 422, w.Code, "%s: %s", body, w.Body)
			var p apitype.Problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
			require.NotEmpty(t, p.Errors, body)
			assert.Equal(t, at+bad.location, p.Errors[0].Location, body)
			assert.Contains(t, p.Errors[0].Message, bad.message, body)
		}
	}
	assert.Empty(t, f.taken(), "nothing was set")

	f.err = &policy.PlanError{Fields: []policy.FieldError{{Location: "until", Problem: "the time is not in the future"}}}
	w = call(s, "PUT", "/api/v1/limits/users/maya", `{"limit":1,"until":"`+wire+`"}`)
	require.Equal(t, 422, w.Code, w.Body)
	assert.Contains(t, w.Body.String(), "until: the time is not in the future", "it ended during the call")
}

// The audit log names the limits that differ.
func TestAudit_LimitsByName(t *testing.T) {
	var log testlog.Buffer
	f := &fake{}
	s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil))}, f)
	line := func() map[string]any {
		t.Helper()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		var got map[string]any
		require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &got))
		return got
	}
	call(s, "PUT", "/api/v1/limits/users/maya", `{"plan":"family","limits":{"tv":2,"kids":1}}`)
	assert.Equal(t, []any{"+ limit kids 1", "+ limit tv 2"}, line()["limits"])
	assert.Equal(t, map[string]any{"plan": "family", "limits": map[string]any{"tv": 2.0, "kids": 1.0}}, line()["new"])
	call(s, "POST", "/api/v1/rules", `{"users":{"maya":{"limits":{"uhd":1}}}}`)
	assert.Equal(t, []any{"+ limit uhd 1"}, line()["limits"])
	call(s, "PUT", "/api/v1/plans/gold", `{"limits":[{"name":"tv","limit":1}]}`)
	assert.Equal(t, []any{"+ limit tv"}, line()["limits"])
	call(s, "PUT", "/api/v1/limits/users/maya", `{"limit":1}`)
	assert.NotContains(t, line(), "limits")
	f.err = errors.New("unknown")
	call(s, "PUT", "/api/v1/limits/users/maya", `{"plan":"family","limits":{"tv":2}}`)
	assert.NotContains(t, line(), "limits", "what was there before is not known")
	assert.Equal(t, "unknown", line()["outcome"])
}
