package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/lease"
	"streamcount/lease/policy"
)

func TestPlans_SeveralLimits(t *testing.T) {
	f := &fake{}
	s := newServer(t, Config{}, f)
	body := `{"require":["device.id"],"limits":[{"name":"tv","where":{"device.type":["tv",""],"labels.tier":{"not":"free"},"profile":"kids"},` +
		`"count":"devices","per":"region","limit":1,"onLimit":"replace-lowest","message":"Only <one> TV","observe":true}]}`
	w := call(s, "PUT", "/api/v1/plans/gold", body)
	require.Equal(t, 200, w.Code, w.Body)
	require.Equal(t, []string{"set plan gold {Limit:60 OnLimit:deny Count:streams Limits:[{Name:tv Where:[{Attribute:device.type In:[tv ] Not:[]} " +
		"{Attribute:labels.tier In:[] Not:[free]} {Attribute:profile In:[kids] Not:[]}] Count:devices Per:region Limit:1 OnLimit:replace-lowest " +
		"Message:Only <one> TV Observe:true}] Require:[device.id]}"}, f.taken())
	var got, again apitype.Plan
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	assert.Equal(t, 60, *got.Limit)
	reply, err := json.Marshal(got.PlanRule)
	require.NoError(t, err)
	w = call(s, "PUT", "/api/v1/plans/gold", string(reply))
	require.Equal(t, 200, w.Code, "a reply is a valid body: %s", w.Body)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &again))
	assert.Equal(t, got, again)
	f.taken()
	w = call(s, "POST", "/api/v1/rules", `{"plans":{"gold":`+body+`}}`)
	require.Equal(t, 200, w.Code, w.Body)
	assert.Contains(t, w.Body.String(), `"where":{"device.type":["tv",""],"labels.tier":{"not":["free"]},"profile":["kids"]}`)

	many := strings.TrimSuffix(strings.Repeat(`{"name":"a","limit":1},`, 17), ",")
	for _, bad := range []struct{ body, location, message string }{
		{`{}`, "body.limit", "expected a number"},
		{`{"limits":[]}`, "body.limit", "expected a number"},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.typ":"tv"}}]}`, "body.limits[0].where.device.typ", "no such attribute; device.type?"},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.type":7}}]}`, "body.limits[0].where.device.type", "expected string or array or object"},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.type":null}}]}`, "body.limits[0].where.device.type", "expected string or array or object"},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.type":{"like":"x"}}}]}`, "body.limits[0].where.device.type.like", "unexpected property"},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.type":{}}}]}`, "body.limits[0].where.device.type", ""},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.type":{"not":{"not":"x"}}}}]}`, "body.limits[0].where.device.type.not", "expected string or array"},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.type":[]}}]}`, "body.limits[0].where.device.type", "the list is empty"},
		{`{"limits":[{"name":"tv","limit":1,"where":{"device.type":["` + strings.Repeat("x", 201) + `"]}}]}`, "body.limits[0].where.device.type", ""},
		{`{"limits":[{"name":"tv","limit":1,"where":[]}]}`, "body.limits[0].where", "expected object"},
		{`{"limits":[{"name":"tv","limit":1},{"name":"tv","limit":2}]}`, "body.limits[1].name", `another limit has the name "tv"`},
		{`{"limits":[{"name":"total","limit":1}]}`, "body.limits[0].name", "the limit of the plan itself"},
		{`{"limits":[{"name":"TV","limit":1}]}`, "body.limits[0].name", "a-z 0-9 -"},
		{`{"limits":[{"name":"tv"}]}`, "body.limits[0]", "limit"},
		{`{"limits":[{"name":"tv","limit":61}]}`, "body.limits[0].limit", "60"},
		{`{"limits":[{"name":"tv","limit":0,"onLimit":"replace-oldest"}]}`, "body.limits[0].onLimit", "use deny"},
		{`{"limits":[{"name":"tv","limit":1,"count":"sheep"}]}`, "body.limits[0].count", ""},
		{`{"limits":[{"name":"tv","limit":1,"count":"devices","per":"device.id"}]}`, "body.limits[0].per", "each value of device.id has one"},
		{`{"limits":[{"name":"tv","limit":1,"message":"` + strings.Repeat("x", 201) + `"}]}`, "body.limits[0].message", ""},
		{`{"limits":[` + many + `]}`, "body.limits", "16"},
		{`{"limit":3,"require":["device"]}`, "body.require[0]", "the attributes are device.id"},
		{`{"limit":3,"require":["device.id","device.id"]}`, "body.require[1]", "twice"},
		{`{"limit":3,"limits":[{"name":"tv","limit":1,"color":1}]}`, "body.limits[0].color", "unexpected property"},
	} {
		for target, wrap := range map[string][2]string{"/api/v1/plans/gold": {"", ""}, "/api/v1/rules": {`{"plans":{"gold":`, "}}"}} {
			method, where := "PUT", bad.location
			if wrap[0] != "" {
				method, where = "POST", strings.Replace(bad.location, "body", "body.plans.gold", 1)
			}
			w := call(s, method, target, wrap[0]+bad.body+wrap[1])
			require.Equal(t, 422, w.Code, "%s: %s", bad.body, w.Body)
			var p apitype.Problem
			require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
			require.NotEmpty(t, p.Errors, bad.body)
			assert.Equal(t, where, p.Errors[0].Location, bad.body)
			assert.Contains(t, p.Errors[0].Message, bad.message, bad.body)
		}
	}
	assert.Len(t, f.taken(), 1, "nothing invalid reaches the limiter")
}

// A start states attributes. Players may state only those that they report.
func TestStart_Attributes(t *testing.T) {
	f := &fake{}
	s := newServer(t, Config{Access: callers}, f)
	body := `{"replaces":["a","b"],"profile":"kids","priority":0,"network":"n","labels":{"tier":"free"},"content":{"id":"c","type":"live","labels":["x","y"]}}`
	w := call(s, "POST", u+"/start", body, asHeader, "service")
	require.Equal(t, 200, w.Code, w.Body)
	got := f.taken()[0]
	for _, want := range []string{
		"Replaces:[a b]", "Profile:kids", "Network:n", "ContentType:live", "ContentLabels:[x y]", "Labels:map[tier:free]", "Priority:0x",
	} {
		assert.Contains(t, got, want)
	}
	for member, value := range map[string]string{"labels": `{"a":"b"}`, "priority": "0", "network": `"n"`, "plan": `"p"`} {
		w := call(s, "POST", u+"/start", fmt.Sprintf(`{%q:%s}`, member, value), asHeader, "maya")
		require.Equal(t, 422, w.Code, w.Body)
		assert.Contains(t, w.Body.String(), `"location":"body.`+member+`","message":"not for viewers"`)
	}
	assert.Empty(t, f.taken())
	w = call(s, "POST", u+"/start", `{"profile":"kids","content":{"type":"live","labels":["x"]}}`, asHeader, "maya")
	require.Equal(t, 200, w.Code, w.Body)
	assert.Contains(t, f.taken()[0], "Profile:kids")
	for _, bad := range []string{
		`{"labels":["a"]}`, `{"labels":{"a":1}}`, `{"labels":{"a":""}}`, `{"labels":{"a":null}}`, `{"labels":{"a":"` + strings.Repeat("x", 65) + `"}}`,
		`{"labels":{"1":"a","2":"a","3":"a","4":"a","5":"a","6":"a","7":"a","8":"a","9":"a"}}`,
		`{"priority":10}`, `{"priority":-1}`, `{"priority":"5"}`, `{"priority":1.5}`, `{"replaces":{"not":"a"}}`, `{"replaces":[1]}`,
		`{"replaces":["` + strings.Repeat("x", 201) + `"]}`, `{"profile":["a"]}`, `{"content":{"labels":"x"}}`, `{"content":{"type":{}}}`,
	} {
		w := call(s, "POST", u+"/start", bad, asHeader, "service")
		require.Equal(t, 422, w.Code, "%s: %s", bad, w.Body)
	}
	assert.Empty(t, f.taken())
}

func TestRefusal_NamesTheLimits(t *testing.T) {
	err := &lease.LimitError{
		Limit: 1, Counted: 1,
		Active: []lease.Stream{
			{ID: "stream-1", Attributes: &policy.StartAttributes{Profile: "kids", Labels: map[string]string{"tier": "free"}, Priority: new(3)}},
			{ID: "stream-2"},
		},
		Limits: []policy.RefusingLimit{
			{Name: "tv", Limit: 1, Counted: 1, Count: policy.CountStreams, Message: "Only one TV at a time"},
			{Name: "total", Limit: 2, Counted: 2, Count: policy.CountStreams},
		},
		Blocking: []policy.Blocking{{Limits: []string{"tv", "total"}, Enough: true}, {}},
	}
	s := newServer(t, Config{Access: callers}, &fake{err: err})
	w := call(s, "POST", u+"/start", "", asHeader, "service")
	require.Equal(t, 403, w.Code)
	for _, want := range []string{
		`"title":"Maximum number of streams reached"`, `"detail":"Only one TV at a time"`, `"limit":1,"streams":2`, `"counted":1`,
		`"limits":[{"name":"tv","limit":1,"counted":1,"count":"streams","message":"Only one TV at a time"},{"name":"total","limit":2,"counted":2,"count":"streams"}]`,
		`"profile":"kids","labels":{"tier":"free"},"priority":3,"blocks":["tv","total"],"enough":true}`, `"blocks":[],"enough":false}`,
	} {
		assert.Contains(t, w.Body.String(), want)
	}
	w = call(s, "POST", u+"/start", "", asHeader, "maya")
	assert.NotContains(t, w.Body.String(), "free", "a viewer receives no labels")
	assert.NotContains(t, w.Body.String(), "priority")
	assert.Contains(t, w.Body.String(), `"blocks":["tv","total"]`)

	for want, limit := range map[string]policy.RefusingLimit{
		`The limit \"uhd\" of the user's plan is reached: 1 of 1.`: {Name: "uhd", Limit: 1, Counted: 1},
		`does not allow this stream: the limit \"uhd\" is 0.`:      {Name: "uhd"},
	} {
		err.Limits = []policy.RefusingLimit{limit}
		assert.Contains(t, call(s, "POST", u+"/start", "", asHeader, "service").Body.String(), want)
	}
	require.Equal(t, access.Viewer, callers["maya"].Kind)
}
