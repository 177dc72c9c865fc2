package openapi

import (
	"streamcount/access"
	"streamcount/api/apitype"
)

// TryPlan describes the operation of that name.
func TryPlan() Operation {
	tv := func(session string) apitype.TryStart {
		return apitype.TryStart{Start: apitype.Start{Session: session, Device: &apitype.Device{Type: "tv"}}}
	}
	return Operation{
		id: "try-plan", tag: tagRules, summary: "Try a start under a plan",
		traits: Traits{Action: access.ReadRules},
		description: "Decides on a start under the plan in the body, while the other streams in the body run, as a node decides " +
			"on a real start. Stores nothing. Streams have no ids here: `replaces` of the start has the indexes of streams as text, " +
			"such as `\"0\"`. All starts are those of a calling service, so they may state `labels`, `priority` and `network`. A try " +
			"considers neither the cooldown nor the maximum number of streams in the node's configuration.",
		maxBody: MaxRules,
		request: apitype.Try{Plan: examplePlan, Streams: []apitype.TryStart{tv("living-room")}, Start: tv("bedroom")},
		response: apitype.TryResult{
			Limits: []apitype.RefusingLimit{{Name: "tv", Limit: 1, Counted: 1, Count: "streams", Message: "Only one TV at a time"}},
			Ends:   []int{}, Warnings: []string{"limit tv depends on device.type, which the player reports"},
		},
	}
}

// ExplainLimits describes the operation of that name.
func ExplainLimits() Operation {
	return Operation{
		id: "explain-limits", tag: tagRules, summary: "Explain the limits of a user",
		traits: Traits{Action: access.ReadRules},
		description: "The plan of the user and where it comes from, each limit, and what the user's streams count for, read from " +
			"etcd. A user without streams has an answer too. A plan that a start or a token names is not known before the start: " +
			"the answer has the plan of the user's newest stream.",
		response: apitype.Explanation{Plan: "family", From: "override", Limits: []apitype.LimitUsage{
			{Name: "total", Limit: 4, Counted: 2, Left: 2}, {Name: "tv", Limit: 1, Counted: 1},
		}},
	}
}
