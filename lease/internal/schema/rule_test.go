package schema

import (
	"testing"

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
	assert.Nil(t, DecodeOverride([]byte(`{"limit":4,"needs":["until"]}`)))
	assert.NotNil(t, DecodeOverride([]byte(`{"limit":4,"needs":["limits"]}`)))
}
