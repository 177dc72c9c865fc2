package attributes

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/lease/policy"
)

var (
	zero, three = 0, 3
	tier        = map[string]string{"tier": "gold"}
)

// members are bodies that state one attribute each.
var members = map[string]*apitype.Start{
	"plan":           {Plan: "gold"},
	"labels":         {Labels: map[string]string{"tier": "free"}},
	"priority":       {Priority: &zero},
	"network":        {Network: "n"},
	"profile":        {Profile: "kids"},
	"device.id":      {Device: &apitype.Device{ID: "d"}},
	"device.type":    {Device: &apitype.Device{Type: "tv"}},
	"content.id":     {Content: &apitype.Content{ID: "c"}},
	"content.type":   {Content: &apitype.Content{Type: "live"}},
	"content.labels": {Content: &apitype.Content{Labels: []string{"x"}}},
}

func TestRequest(t *testing.T) {
	own := access.Attributes{Labels: tier, Priority: &three}
	only := own
	only.Profile, only.OnlyProfile = "adults", true
	for name, c := range map[string]struct {
		caller  access.Caller
		refused []string
		// Of every start of the caller, whatever its body.
		grant string
		want  policy.StartAttributes
	}{
		"unrestricted": {caller: access.Caller{Kind: access.Unrestricted}},
		"service":      {caller: access.Caller{Kind: access.Service, Name: "backend"}},
		"viewer": {
			caller:  access.Caller{Kind: access.Viewer, Name: "maya"},
			refused: []string{"plan", "labels", "priority", "network"}, want: policy.StartAttributes{Network: "home"},
		},
		"viewer with claims": {
			caller:  access.Caller{Kind: access.Viewer, Name: "maya", Plan: "family", Limit: &three, Attributes: own},
			refused: []string{"plan", "labels", "priority", "network"}, grant: "family",
			want: policy.StartAttributes{Network: "home", Labels: tier, Priority: &three},
		},
		"viewer with profile": {
			caller:  access.Caller{Kind: access.Viewer, Name: "maya", Attributes: only},
			refused: []string{"plan", "labels", "priority", "network", "profile"},
			want:    policy.StartAttributes{Network: "home", Labels: tier, Priority: &three, Profile: "adults"},
		},
		"viewer without the profile": {
			caller:  access.Caller{Kind: access.Viewer, Name: "maya", Attributes: access.Attributes{OnlyProfile: true}},
			refused: []string{"plan", "labels", "priority", "network", "profile"}, want: policy.StartAttributes{Network: "home"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, member := range append(slices.Sorted(maps.Keys(members)), "") {
				req, p := Request(c.caller, members[member], "home")
				if slices.Contains(c.refused, member) {
					require.NotNil(t, p, member)
					assert.Equal(t, problem.Invalid.Status, p.Status)
					assert.Equal(t, []apitype.FieldError{{Location: "body." + member, Message: "not for viewers"}}, p.Errors)
					assert.Zero(t, req)
					continue
				}
				require.Nil(t, p, member)
				want, as := c.want, req.Attributes
				switch member {
				case "labels":
					want.Labels = map[string]string{"tier": "free"}
				case "priority":
					want.Priority = &zero
				case "network":
					want.Network = "n"
				case "profile":
					want.Profile = "kids"
				case "content.type":
					want.ContentType = "live"
				case "content.labels":
					want.ContentLabels = []string{"x"}
				case "device.id":
					assert.Equal(t, "d", req.Device.ID)
				case "device.type":
					assert.Equal(t, "tv", req.Device.Type)
				case "content.id":
					assert.Equal(t, "c", req.Content.ID)
				case "plan":
					assert.Equal(t, "gold", req.Plan)
				}
				assert.Equal(t, want, as, member)
				assert.Equal(t, c.grant, req.Grant)
				assert.Equal(t, c.caller.Limit, req.Limit)
			}
		})
	}
}

// Labels of the token and of the body have one bound.
func TestRequest_Bound(t *testing.T) {
	long := slices.Repeat([]string{strings.Repeat("x", policy.MaxLabelValue)}, policy.MaxLabels)
	caller := access.Caller{Kind: access.Viewer, Attributes: access.Attributes{Labels: tier}}
	req, p := Request(caller, &apitype.Start{Content: &apitype.Content{Labels: long}}, "")
	require.Nil(t, p)
	var wrong *policy.AttributeError
	require.ErrorAs(t, req.Attributes.Validate(), &wrong)
	assert.Equal(t, "labels", wrong.Member)
	assert.Contains(t, wrong.Problem, "520 bytes")
}

func TestRelocate(t *testing.T) {
	of := func(member string) *problem.Problem {
		return problem.Invalid.New("An attribute is invalid.").WithField("body."+member, "the plan requires it")
	}
	viewer := access.Caller{Kind: access.Viewer, Attributes: access.Attributes{OnlyProfile: true}}
	for member, want := range map[string][2]string{
		"labels":       {"body.content.labels", "the plan requires it"},
		"labels.tier":  {"header.Authorization", "the token has no claim for labels.tier: the plan requires it"},
		"priority":     {"header.Authorization", "the token has no claim for priority: the plan requires it"},
		"profile":      {"header.Authorization", "the token has no claim for profile: the plan requires it"},
		"network":      {"body.network", "the plan requires it; the node does not determine it for this client"},
		"device.id":    {"body.device.id", "the plan requires it"},
		"content.type": {"body.content.type", "the plan requires it"},
	} {
		got := Relocate(viewer, of(member)).Errors[0]
		assert.Equal(t, apitype.FieldError{Location: want[0], Message: want[1]}, got)
		got = Relocate(access.Caller{Kind: access.Service}, of(member)).Errors[0]
		assert.Equal(t, "body."+member, got.Location)
	}
	assert.Equal(t, "body.profile", Relocate(access.Caller{Kind: access.Viewer}, of("profile")).Errors[0].Location)
}
