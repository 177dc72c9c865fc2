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
