package api

import (
	"net/http"

	"streamcount/access"
	"streamcount/api/apitype"
)

const tagRules = "Limits and plans"

var (
	examplePlan  = apitype.PlanRule{Limit: 4, OnLimit: "replace-oldest", Count: "streams"}
	exampleLimit = apitype.UserLimit{UserID: "maya", LimitRule: apitype.LimitRule{Plan: "family"}}
)

func getLimitDoc() opDoc {
	return opDoc{
		id: "get-limit", does: access.ReadRules, tag: tagRules, summary: "What a user has of their own",
		about: "The limit or plan that was set for this user. A user who has none is answered 404, with the limit that " +
			"is in force for them.",
		errors: []int{http.StatusNotFound}, reply: exampleLimit,
	}
}

func setLimitDoc() opDoc {
	return opDoc{
		id: "set-limit", does: access.WriteRules, tag: tagRules, summary: "Give a user a limit or plan of their own",
		about: "In force on every node for every start after it. Running streams go on; nobody is admitted until the " +
			"user's count is below the new limit. It goes before anything that a start says.",
		body: apitype.LimitRule{Plan: "family"}, reply: exampleLimit,
	}
}

func removeLimitDoc() opDoc {
	return opDoc{
		id: "remove-limit", does: access.WriteRules, tag: tagRules, summary: "Take a user's own limit or plan away",
		about:  "Answers with what it was.",
		errors: []int{http.StatusNotFound}, reply: exampleLimit,
	}
}

func listPlansDoc() opDoc {
	return opDoc{
		id: "list-plans", does: access.ReadRules, tag: tagRules, summary: "List the plans", about: "All plans, by name.",
		reply: apitype.Plans{Plans: []apitype.Plan{{Name: "family", PlanRule: examplePlan}}},
	}
}

func getPlanDoc() opDoc {
	return opDoc{
		id: "get-plan", does: access.ReadRules, tag: tagRules, summary: "A plan", about: "What the plan says.",
		errors: []int{http.StatusNotFound}, reply: apitype.Plan{Name: "family", PlanRule: examplePlan},
	}
}

func setPlanDoc() opDoc {
	return opDoc{
		id: "set-plan", does: access.WriteRules, tag: tagRules, summary: "Make or change a plan",
		about: "In force on every node for every start after it. The plan named `default` is that of all users who " +
			"have no other; it goes before the node's own limit.",
		body: examplePlan, reply: apitype.Plan{Name: "family", PlanRule: examplePlan},
	}
}

func removePlanDoc() opDoc {
	return opDoc{
		id: "remove-plan", does: access.WriteRules, tag: tagRules, summary: "Remove a plan",
		about:  "Answers with what it was. Users who had it have the default from then on.",
		errors: []int{http.StatusNotFound}, reply: apitype.Plan{Name: "family", PlanRule: examplePlan},
	}
}

// maxRules is the largest body of a set of rules: 1,000 with the longest names.
const maxRules = 256 << 10

func applyDoc() opDoc {
	four := 4
	return opDoc{
		id: "apply-rules", does: access.WriteRules, tag: tagRules, summary: "Make a set of plans and limits true at once",
		about: "Sets and removes up to 1,000 plans and limits in one transaction, and answers with what that changed. " +
			"With `dryRun` it only says what would change; with the `revision` of a dry run it changes nothing if " +
			"any rule was changed since. What the set does not name stays as it is.",
		errors: []int{http.StatusConflict}, maxBody: maxRules,
		body: apitype.RuleSet{
			Plans: map[string]apitype.PlanRule{"family": examplePlan},
			Users: map[string]apitype.LimitRule{"maya": {Plan: "family"}}, RemoveUsers: []string{"tom"},
		},
		reply: apitype.RuleChanges{
			Revision: 88, Applied: true, Plans: []apitype.PlanChange{{Name: "family", New: &examplePlan}},
			Users: []apitype.UserLimitChange{
				{UserID: "maya", Old: &apitype.LimitRule{Limit: &four}, New: &apitype.LimitRule{Plan: "family"}},
				{UserID: "tom", Old: &apitype.LimitRule{Limit: &four}},
			},
		},
	}
}
