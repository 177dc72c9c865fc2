package schema

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"streamcount/lease/policy"
)

func TestDecodeRules_OfForeignValues(t *testing.T) {
	five := 5
	for _, p := range []policy.Plan{{Limit: 0, OnLimit: policy.Deny, Count: policy.CountStreams}, {Limit: 60, OnLimit: policy.ReplaceOldest, Count: policy.CountDevices}} {
		assert.Equal(t, &p, DecodePlan(EncodePlan(p)))
	}
	for _, o := range []policy.Override{{Limit: &five}, {Plan: "family"}} {
		assert.Equal(t, &o, DecodeOverride(EncodeOverride(o)))
	}
	assert.Equal(t, &policy.Plan{Limit: 4, OnLimit: policy.Deny, Count: policy.CountStreams}, DecodePlan([]byte(`{"limit":4,"later":true}`)))
	for _, junk := range []string{
		"", "x", "{}", "[]", `{"limit":"4"}`, `{"limit":-1}`, `{"limit":61}`, `{"limit":1,"count":"sheep"}`,
		`{"limit":1,"onLimit":"explode"}`, `{"limit":null}`,
	} {
		assert.Nil(t, DecodePlan([]byte(junk)), junk)
	}
	for _, junk := range []string{"", "{}", `{"limit":1,"plan":"x"}`, `{"plan":"a/b"}`, `{"limit":61}`} {
		assert.Nil(t, DecodeOverride([]byte(junk)), junk)
	}
}

func TestEncodePlan_SeveralLimits(t *testing.T) {
	p := policy.Plan{
		Limit: 4, OnLimit: policy.ReplaceOldest, Count: policy.CountStreams,
		Require: []policy.Attribute{policy.AttrDeviceID, "labels.tier"},
		Limits: []policy.Limit{
			{
				Name: "tv", Limit: 1, OnLimit: policy.Deny, Count: policy.CountDevices, Per: policy.AttrProfile, Message: "Only <one> TV", Observe: true,
				Where: []policy.Condition{
					{Attribute: policy.AttrDeviceType, In: []string{"tv", ""}}, {Attribute: "labels.q", Not: []string{"sd"}},
				},
			},
			{Name: "uhd", OnLimit: policy.Deny, Count: policy.CountStreams},
		},
	}
	stored := `{"limit":4,"onLimit":"replace-oldest","count":"streams","limits":[` +
		`{"name":"tv","where":{"device.type":["tv",""],"labels.q":{"not":["sd"]}},"count":"devices","per":"profile","limit":1,"onLimit":"deny",` +
		`"message":"Only <one> TV","observe":true},` +
		`{"name":"uhd","count":"streams","limit":0,"onLimit":"deny"}],"require":["device.id","labels.tier"],"needs":["limits"]}`
	assert.Equal(t, stored, string(EncodePlan(p)))
	assert.Equal(t, &p, DecodePlan([]byte(stored)))

	plain := policy.Plan{Limit: 4, OnLimit: policy.Deny, Count: policy.CountStreams}
	assert.Equal(t, `{"limit":4,"onLimit":"deny","count":"streams"}`, string(EncodePlan(plain)), "as earlier versions store it")
	plain.OnLimit = policy.ReplaceLowest
	assert.Equal(t, `{"limit":4,"onLimit":"replace-lowest","count":"streams","needs":["limits"]}`, string(EncodePlan(plain)))
	assert.Equal(t, &plain, DecodePlan(EncodePlan(plain)))
	assert.NotNil(t, DecodePlan([]byte(`{"limit":4,"limits":[],"require":[],"needs":[]}`)))
	for _, unreadable := range []string{
		`{"limit":4,"needs":["teleport"]}`, `{"limit":4,"needs":["limits","teleport"]}`, `{"limit":4,"limits":[{"name":"tv"}]}`,
		`{"limit":4,"limits":[{"name":"tv","limit":1,"where":{"device.typ":["tv"]}}]}`, `{"limit":4,"limits":[{"name":"tv","limit":1,"where":{"profile":[]}}]}`,
		`{"limit":4,"limits":[{"name":"tv","limit":1,"where":{"profile":{"like":["x"]}}}]}`, `{"limit":4,"limits":[{"name":"tv","limit":1,"where":{"profile":"x"}}]}`,
		`{"limit":4,"limits":[{"name":"TV","limit":1}]}`, `{"limit":4,"require":["x"]}`, `{"limit":4,"limits":{"tv":1}}`,
	} {
		assert.Nil(t, DecodePlan([]byte(unreadable)), unreadable)
	}
	assert.Nil(t, DecodeOverride([]byte(`{"limit":4,"needs":["teleport"]}`)))
	assert.NotNil(t, DecodeOverride([]byte(`{"limit":4,"needs":["limits"]}`)))
}

func TestEncodeOverride(t *testing.T) {
	five, until := 5, time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	tests := []struct {
		override policy.Override
		stored   string
	}{
		{policy.Override{Limit: &five}, `{"limit":5}`}, // as earlier versions store it
		{policy.Override{Plan: "family"}, `{"plan":"family"}`},
		{policy.Override{Limits: map[string]int{"tv": 2, "kids": 0}}, `{"limits":{"kids":0,"tv":2},"needs":["user-limits"]}`},
		{policy.Override{Limit: &five, Until: until}, `{"limit":5,"until":"2027-01-31T00:00:00Z","needs":["until"]}`},
		{policy.Override{Plan: "one-tv", Limits: map[string]int{"tv": 2}, Until: until},
			`{"plan":"one-tv","limits":{"tv":2},"until":"2027-01-31T00:00:00Z","needs":["user-limits","until"]}`},
	}
	for _, tt := range tests {
		assert.Equal(t, tt.stored, string(EncodeOverride(tt.override)))
		assert.Equal(t, &tt.override, DecodeOverride([]byte(tt.stored)))
		assert.Equal(t, tt.override.Until, DecodeUntil([]byte(tt.stored)))
	}
	east := policy.Override{Limit: &five, Until: until.In(time.FixedZone("", 7200))}
	assert.Equal(t, tests[3].stored, string(EncodeOverride(east)))
	for _, unreadable := range []string{
		`{"limits":{}}`, `{"until":"2027-01-31T00:00:00Z"}`, `{"limits":{"tv":null}}`, `{"limits":{"tv":61}}`, `{"limits":{"total":1}}`,
		`{"limits":{"TV":1}}`, `{"limits":["tv"]}`, `{"limit":1,"until":"soon"}`, `{"limit":1,"until":7}`, `{"limit":1,"until":"2027-01-31T00:00:00.5Z"}`,
		`{"limit":1,"plan":"x","limits":{"tv":1}}`, `{"limits":{"tv":1},"needs":["user-limits","teleport"]}`,
	} {
		assert.Nil(t, DecodeOverride([]byte(unreadable)), unreadable)
	}
	assert.Equal(t, until, DecodeUntil([]byte(`{"limit":{},"until":"2027-01-31T00:00:00Z","needs":["teleport"]}`)), "of a later version")
	for _, none := range []string{"", "x", "{}", `{"until":null}`, `{"until":"soon"}`, `{"limit":1}`} {
		assert.Zero(t, DecodeUntil([]byte(none)), none)
	}
}
