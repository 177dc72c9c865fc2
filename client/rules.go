package client

import (
	"context"
	"fmt"
	"net/http"
	"regexp"

	"streamcount/api/apitype"
)

var planPattern = regexp.MustCompile(apitype.PlanPattern)

func planPath(name string) (string, error) {
	if !planPattern.MatchString(name) {
		return "", fmt.Errorf("%w: plan %.80q: want 1 to 64 letters, digits and . _ -", ErrInvalid, name)
	}
	return "/api/v1/plans/" + segment(name), nil
}

func limitPath(user string) (string, error) {
	if err := checkUser(user); err != nil {
		return "", err
	}
	return "/api/v1/limits/users/" + segment(user), nil
}

// Plans returns all plans, by name.
func (c *Client) Plans(ctx context.Context) ([]apitype.Plan, error) {
	all, err := get[apitype.Plans](ctx, c, http.MethodGet, "/api/v1/plans", nil, "list plans")
	return all.Plans, err
}

// Plan returns a plan. If it does not exist, this and the other calls about plans and limits
// return a [*ProblemError] of status 404.
func (c *Client) Plan(ctx context.Context, name string) (apitype.Plan, error) {
	return rule[apitype.Plan](ctx, c, http.MethodGet, planPath, name, nil, "read plan ")
}

// SetPlan creates or changes a plan.
func (c *Client) SetPlan(ctx context.Context, name string, p apitype.PlanRule) (apitype.Plan, error) {
	return rule[apitype.Plan](ctx, c, http.MethodPut, planPath, name, p, "set plan ")
}

// RemovePlan removes a plan and returns it.
func (c *Client) RemovePlan(ctx context.Context, name string) (apitype.Plan, error) {
	return rule[apitype.Plan](ctx, c, http.MethodDelete, planPath, name, nil, "remove plan ")
}

// UserLimit returns user's own limit or plan. If the user has none, the [*ProblemError] has
// the limit that applies.
func (c *Client) UserLimit(ctx context.Context, user string) (apitype.UserLimit, error) {
	return rule[apitype.UserLimit](ctx, c, http.MethodGet, limitPath, user, nil, "read the limit of ")
}

// SetUserLimit sets user's own limit or plan.
func (c *Client) SetUserLimit(ctx context.Context, user string, l apitype.LimitRule) (apitype.UserLimit, error) {
	return rule[apitype.UserLimit](ctx, c, http.MethodPut, limitPath, user, l, "set the limit of ")
}

// RemoveUserLimit removes user's own limit or plan and returns it.
func (c *Client) RemoveUserLimit(ctx context.Context, user string) (apitype.UserLimit, error) {
	return rule[apitype.UserLimit](ctx, c, http.MethodDelete, limitPath, user, nil, "remove the limit of ")
}

// ApplyRules applies a set of plans and limits in one transaction. With DryRun it only
// returns the changes. If a rule was changed after the set's Revision, it returns a
// [*ProblemError] of status 409.
func (c *Client) ApplyRules(ctx context.Context, set apitype.RuleSet) (apitype.RuleChanges, error) {
	return get[apitype.RuleChanges](ctx, c, http.MethodPost, "/api/v1/rules", set, "apply rules")
}

// TryPlan decides on a start under a plan, while other streams run. Nothing is stored.
func (c *Client) TryPlan(ctx context.Context, try apitype.Try) (apitype.TryResult, error) {
	return get[apitype.TryResult](ctx, c, http.MethodPost, "/api/v1/plans/try", try, "try a plan")
}

// ExplainLimits returns the limits that apply to user, and what the user's streams count for.
func (c *Client) ExplainLimits(ctx context.Context, user string) (apitype.Explanation, error) {
	return rule[apitype.Explanation](ctx, c, http.MethodGet, explainPath, user, nil, "explain the limits of ")
}

func explainPath(user string) (string, error) {
	at, err := limitPath(user)
	return at + "/explain", err
}

// rule makes one request about the plan or user of that name below path.
func rule[T any](
	ctx context.Context, c *Client, method string, path func(string) (string, error), name string, in any, what string,
) (T, error) {
	at, err := path(name)
	if err != nil {
		var zero T
		return zero, err
	}
	return get[T](ctx, c, method, at, in, what+name)
}
