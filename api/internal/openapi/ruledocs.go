package openapi

import (
	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
)

// tagRules is the tag of the operations on limits and plans.
const tagRules = "Limits and plans"

var (
	examplePlan = apitype.PlanRule{Limit: new(4), OnLimit: "replace-oldest", Count: "streams", Limits: []apitype.Limit{{
		Name: "tv", Where: apitype.Where{"device.type": {In: []string{"tv", "stb", ""}}}, Limit: 1, Message: "Only one TV at a time",
	}}}
	exampleLimit = apitype.UserLimit{UserID: "maya", LimitRule: apitype.LimitRule{Plan: "family"}}
)

// GetLimit describes the operation of that name.
func GetLimit() Operation {
	return Operation{
		id: "get-limit", tag: tagRules, summary: "Get the limit or plan that is set for a user",
		traits: Traits{Action: access.ReadRules},
		description: "The limit or plan that is set for this user. If none is set, the response is 404 with the limit that " +
			"applies to the user.",
		problems: []problem.Type{problem.OverrideNotFound}, response: exampleLimit,
	}
}

// SetLimit describes the operation of that name.
func SetLimit() Operation {
	return Operation{
		id: "set-limit", tag: tagRules, summary: "Set the limit or plan of a user",
		traits: Traits{Action: access.WriteRules},
		description: "Applies on every node to every later start. Running streams continue; starts are rejected until the " +
			"user's count is below the new limit. It takes precedence over the plan in a start. Everything that was set for the user " +
			"before is replaced, also `limits` and `until`.",
		problems: []problem.Type{problem.OlderNodes}, request: apitype.LimitRule{Plan: "family"}, response: exampleLimit,
	}
}

// RemoveLimit describes the operation of that name.
func RemoveLimit() Operation {
	return Operation{
		id: "remove-limit", tag: tagRules, summary: "Remove the limit or plan of a user",
		traits:      Traits{Action: access.WriteRules},
		description: "Responds with the removed limit or plan.",
		problems:    []problem.Type{problem.OverrideNotFound}, response: exampleLimit,
	}
}

// ListPlans describes the operation of that name.
func ListPlans() Operation {
	return Operation{
		id: "list-plans", tag: tagRules, summary: "List the plans",
		traits:      Traits{Action: access.ReadRules},
		description: "All plans, by name.",
		response:    apitype.Plans{Plans: []apitype.Plan{{Name: "family", PlanRule: examplePlan}}},
	}
}

// GetPlan describes the operation of that name.
func GetPlan() Operation {
	return Operation{
		id: "get-plan", tag: tagRules, summary: "Get a plan",
		traits:      Traits{Action: access.ReadRules},
		description: "The limit of the plan, and what it counts.",
		problems:    []problem.Type{problem.PlanNotFound}, response: apitype.Plan{Name: "family", PlanRule: examplePlan},
	}
}

// SetPlan describes the operation of that name.
func SetPlan() Operation {
	return Operation{
		id: "set-plan", tag: tagRules, summary: "Create or change a plan",
		traits: Traits{Action: access.WriteRules},
		description: "Applies on every node to every later start. The plan named `default` applies to all users without " +
			"another plan; it takes precedence over the limit in the node's configuration.",
		problems: []problem.Type{problem.OlderNodes}, request: examplePlan, response: apitype.Plan{Name: "family", PlanRule: examplePlan},
	}
}

// RemovePlan describes the operation of that name.
func RemovePlan() Operation {
	return Operation{
		id: "remove-plan", tag: tagRules, summary: "Remove a plan",
		traits:      Traits{Action: access.WriteRules},
		description: "Responds with the removed plan. The default plan then applies to its users.",
		problems:    []problem.Type{problem.PlanNotFound}, response: apitype.Plan{Name: "family", PlanRule: examplePlan},
	}
}

// MaxRules is the largest body of a set of rules: 1,000 with the longest names, in
// which every character is escaped.
const MaxRules = 512 << 10

// ApplyRules describes the operation of that name.
func ApplyRules() Operation {
	four := 4
	return Operation{
		id: "apply-rules", tag: tagRules, summary: "Apply a set of plans and limits",
		traits: Traits{Action: access.WriteRules},
		description: "Sets and removes up to 1,000 plans and limits in one transaction, and responds with the changes. " +
			"With `dryRun` it changes nothing and responds with what would change. With the `revision` of a dry run it changes " +
			"nothing if any rule was changed since. Rules that are not in the set stay unchanged.",
		problems: []problem.Type{problem.RulesChanged, problem.OlderNodes}, maxBody: MaxRules,
		request: apitype.RuleSet{
			Plans: map[string]apitype.PlanRule{"family": examplePlan},
			Users: map[string]apitype.LimitRule{"maya": {Plan: "family"}}, RemoveUsers: []string{"tom"},
		},
		response: apitype.RuleChanges{
			Revision: 88, Applied: true, Plans: []apitype.PlanChange{{Name: "family", New: &examplePlan}},
			Users: []apitype.UserLimitChange{
				{UserID: "maya", Old: &apitype.LimitRule{Limit: &four}, New: &apitype.LimitRule{Plan: "family"}},
				{UserID: "tom", Old: &apitype.LimitRule{Limit: &four}},
			},
		},
	}
}
