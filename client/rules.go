package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"regexp"

	"streamcount/api/apitype"
)

var planPattern = regexp.MustCompile(apitype.PlanPattern)

func planPath(name string) (string, error) {
	if !planPattern.MatchString(name) {
		return "", fmt.Errorf("%w: plan %.80q: want 1 to 64 letters, digits and . _ -", ErrInvalid, name)
	}
	return "/api/v1/plans/" + url.PathEscape(name), nil
}

func limitPath(user string) (string, error) {
	if !userPattern.MatchString(user) {
		return "", fmt.Errorf("%w: user id %.140q: want 1 to 128 letters, digits and . _ ~ @ : | + = -",
			ErrInvalid, user)
	}
	return "/api/v1/limits/users/" + url.PathEscape(user), nil
}

// Plans returns all plans, by name.
func (c *Client) Plans(ctx context.Context) ([]apitype.Plan, error) {
	all, err := get[apitype.Plans](ctx, c, http.MethodGet, "/api/v1/plans", nil, "list plans")
	return all.Plans, err
}

// Plan returns a plan. One that does not exist is a [*ProblemError] of status
// 404, as it is for the other calls about plans and limits.
func (c *Client) Plan(ctx context.Context, name string) (apitype.Plan, error) {
	return rule[apitype.Plan](ctx, c, http.MethodGet, planPath, name, nil, "read plan ")
}

// SetPlan makes or changes a plan.
func (c *Client) SetPlan(ctx context.Context, name string, p apitype.PlanRule) (apitype.Plan, error) {
	return rule[apitype.Plan](ctx, c, http.MethodPut, planPath, name, p, "set plan ")
}

// RemovePlan removes a plan, and returns what it was.
func (c *Client) RemovePlan(ctx context.Context, name string) (apitype.Plan, error) {
	return rule[apitype.Plan](ctx, c, http.MethodDelete, planPath, name, nil, "remove plan ")
}

// UserLimit returns what user has of his own. For a user who has nothing the
// [*ProblemError] tells the limit that is in force.
func (c *Client) UserLimit(ctx context.Context, user string) (apitype.UserLimit, error) {
	return rule[apitype.UserLimit](ctx, c, http.MethodGet, limitPath, user, nil, "read the limit of ")
}

// SetUserLimit gives user a limit or a plan of his own.
func (c *Client) SetUserLimit(ctx context.Context, user string, l apitype.LimitRule) (apitype.UserLimit, error) {
	return rule[apitype.UserLimit](ctx, c, http.MethodPut, limitPath, user, l, "set the limit of ")
}

// RemoveUserLimit takes away what user has of his own, and returns it.
func (c *Client) RemoveUserLimit(ctx context.Context, user string) (apitype.UserLimit, error) {
	return rule[apitype.UserLimit](ctx, c, http.MethodDelete, limitPath, user, nil, "remove the limit of ")
}

// ApplyRules makes a set of plans and limits true at once, or with DryRun says
// what that would change. A rule that was changed since the set's Revision is a
// [*ProblemError] of status 409.
func (c *Client) ApplyRules(ctx context.Context, set apitype.RuleSet) (apitype.RuleChanges, error) {
	return get[apitype.RuleChanges](ctx, c, http.MethodPost, "/api/v1/rules", set, "apply rules")
}

// rule makes one request about what path leads to by name.
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
