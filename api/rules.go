package api

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/lease"
)

// ruler is what the handlers of limits and plans call on a lease.Limiter.
type ruler interface {
	Plans(ctx context.Context) (map[string]lease.Plan, error)
	Plan(ctx context.Context, name string) (lease.Plan, error)
	SetPlan(ctx context.Context, name string, p lease.Plan) (old *lease.Plan, err error)
	RemovePlan(ctx context.Context, name string) (old lease.Plan, err error)
	Override(ctx context.Context, user string) (lease.Override, error)
	SetOverride(ctx context.Context, user string, o lease.Override) (old *lease.Override, err error)
	RemoveOverride(ctx context.Context, user string) (old lease.Override, err error)
	Apply(ctx context.Context, set lease.RuleSet, how lease.ApplyOptions) (lease.Changes, error)
}

const (
	limitsPath = "/api/v1/limits/users/{user}"
	plansPath  = "/api/v1/plans"
	rulesPath  = "/api/v1/rules"
)

// ruleRoutes are the routes of limits and plans.
func (s *Server) ruleRoutes(a huma.API) {
	handle(a, "GET", limitsPath, getLimitDoc(), s.getLimit)
	handle(a, "PUT", limitsPath, setLimitDoc(), s.setLimit)
	handle(a, "DELETE", limitsPath, removeLimitDoc(), s.removeLimit)
	handle(a, "GET", plansPath, listPlansDoc(), s.listPlans)
	handle(a, "GET", plansPath+"/{plan}", getPlanDoc(), s.getPlan)
	handle(a, "PUT", plansPath+"/{plan}", setPlanDoc(), s.setPlan)
	handle(a, "DELETE", plansPath+"/{plan}", removePlanDoc(), s.removePlan)
	handle(a, "POST", rulesPath, applyDoc(), s.apply)
}

// A planName is a path parameter with the rule for names of plans.
type planName string

// Schema is the rule as huma checks and documents it.
func (planName) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: apitype.PlanPattern, PatternDescription: planRule,
		Description: "The plan: " + planRule + ". \"default\" is that of users who have no other.",
		Examples:    []any{"family"},
	}
}

const planRule = "1 to 64 characters out of A-Z a-z 0-9 . _ -"

type setLimitInput struct {
	User userID `path:"user"`
	Body apitype.LimitRule
}

type planInput struct {
	Plan planName `path:"plan"`
}

type setPlanInput struct {
	Plan planName `path:"plan"`
	Body apitype.PlanRule
}

type applyInput struct{ Body apitype.RuleSet }

func (s *Server) getLimit(ctx context.Context, in *userInput) (*reply[apitype.UserLimit], error) {
	o, err := s.rules().Override(ctx, string(in.User))
	return limitReply(in.User, o, err)
}

func (s *Server) setLimit(ctx context.Context, in *setLimitInput) (*reply[apitype.UserLimit], error) {
	o, p := override("body", in.Body)
	if p != nil {
		return nil, p
	}
	old, err := s.rules().SetOverride(ctx, string(in.User), o)
	if err == nil {
		s.auditRule(ctx, "set limit", string(in.User), "", optional(old, limitRule), new(limitRule(o)))
	}
	return limitReply(in.User, o, err)
}

func (s *Server) removeLimit(ctx context.Context, in *userInput) (*reply[apitype.UserLimit], error) {
	old, err := s.rules().RemoveOverride(ctx, string(in.User))
	if err == nil {
		s.auditRule(ctx, "remove limit", string(in.User), "", new(limitRule(old)), nil)
	}
	return limitReply(in.User, old, err)
}

func limitReply(user userID, o lease.Override, err error) (*reply[apitype.UserLimit], error) {
	if err != nil {
		return nil, err
	}
	return &reply[apitype.UserLimit]{apitype.UserLimit{UserID: string(user), LimitRule: limitRule(o)}}, nil
}

func (s *Server) listPlans(ctx context.Context, _ *struct{}) (*reply[apitype.Plans], error) {
	plans, err := s.rules().Plans(ctx)
	if err != nil {
		return nil, err
	}
	out := apitype.Plans{Plans: []apitype.Plan{}}
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		out.Plans = append(out.Plans, apitype.Plan{Name: name, PlanRule: planRuleOf(plans[name])})
	}
	return &reply[apitype.Plans]{out}, nil
}

func (s *Server) getPlan(ctx context.Context, in *planInput) (*reply[apitype.Plan], error) {
	p, err := s.rules().Plan(ctx, string(in.Plan))
	return planReply(in.Plan, p, err)
}

func (s *Server) setPlan(ctx context.Context, in *setPlanInput) (*reply[apitype.Plan], error) {
	p := plan(in.Body)
	old, err := s.rules().SetPlan(ctx, string(in.Plan), p)
	if err == nil {
		s.auditRule(ctx, "set plan", "", string(in.Plan), optional(old, planRuleOf), new(planRuleOf(p)))
	}
	return planReply(in.Plan, p, err)
}

func (s *Server) removePlan(ctx context.Context, in *planInput) (*reply[apitype.Plan], error) {
	old, err := s.rules().RemovePlan(ctx, string(in.Plan))
	if err == nil {
		s.auditRule(ctx, "remove plan", "", string(in.Plan), new(planRuleOf(old)), nil)
	}
	return planReply(in.Plan, old, err)
}

// errPlanInPath is lease.ErrNoPlan where the plan is what the path names.
var errPlanInPath = errors.New("api: no plan of the name in the path")

func planReply(name planName, p lease.Plan, err error) (*reply[apitype.Plan], error) {
	if errors.Is(err, lease.ErrNoPlan) {
		return nil, errPlanInPath
	}
	if err != nil {
		return nil, err
	}
	return &reply[apitype.Plan]{apitype.Plan{Name: string(name), PlanRule: planRuleOf(p)}}, nil
}

func (s *Server) apply(ctx context.Context, in *applyInput) (*reply[apitype.RuleChanges], error) {
	set, p := ruleSet(in.Body)
	if p != nil {
		return nil, p
	}
	c, err := s.rules().Apply(ctx, set, lease.ApplyOptions{DryRun: in.Body.DryRun, Since: in.Body.Revision})
	if err != nil {
		return nil, err
	}
	out := apitype.RuleChanges{
		Revision: c.Revision, Applied: !in.Body.DryRun, Plans: []apitype.PlanChange{}, Users: []apitype.UserLimitChange{},
	}
	for _, d := range c.Plans {
		change := apitype.PlanChange{Name: d.Name, Old: optional(d.Old, planRuleOf), New: optional(d.New, planRuleOf)}
		out.Plans = append(out.Plans, change)
		if out.Applied {
			s.auditRule(ctx, "apply plan", "", d.Name, change.Old, change.New)
		}
	}
	for _, d := range c.Users {
		change := apitype.UserLimitChange{UserID: d.User, Old: optional(d.Old, limitRule), New: optional(d.New, limitRule)}
		out.Users = append(out.Users, change)
		if out.Applied {
			s.auditRule(ctx, "apply limit", d.User, "", change.Old, change.New)
		}
	}
	return &reply[apitype.RuleChanges]{out}, nil
}

// auditRule tells of a changed rule: that of a user, or of a plan.
func (s *Server) auditRule(ctx context.Context, what, user, plan string, before, after any) {
	attrs := []slog.Attr{slog.Any("old", before), slog.Any("new", after)}
	if plan != "" {
		attrs = append([]slog.Attr{slog.String("plan", plan)}, attrs...)
	}
	s.audit(ctx, what, user, attrs...)
}

// ruleSet reads the body of an apply.
func ruleSet(b apitype.RuleSet) (lease.RuleSet, *problem) {
	set := lease.RuleSet{Plans: map[string]*lease.Plan{}, Users: map[string]*lease.Override{}}
	for name, rule := range b.Plans {
		set.Plans[name] = new(plan(rule))
	}
	for user, rule := range b.Users {
		o, p := override("body.users."+user, rule)
		if p != nil {
			return set, p
		}
		set.Users[user] = &o
	}
	for _, name := range b.RemovePlans {
		if set.Plans[name] != nil {
			return set, twice("body.removePlans", name)
		}
		set.Plans[name] = nil
	}
	for _, user := range b.RemoveUsers {
		if set.Users[user] != nil {
			return set, twice("body.removeUsers", user)
		}
		set.Users[user] = nil
	}
	return set, nil
}

func twice(where, name string) *problem {
	return invalid.problem("The same name is both set and removed.").at(where, "also set: "+name)
}

// override reads what a user is to have, at that place of a body.
func override(where string, b apitype.LimitRule) (lease.Override, *problem) {
	if (b.Limit == nil) == (b.Plan == "") {
		return lease.Override{}, invalid.problem("A user has either a limit or a plan.").
			at(where, "expected exactly one of limit and plan")
	}
	return lease.Override{Limit: b.Limit, Plan: b.Plan}, nil
}

func limitRule(o lease.Override) apitype.LimitRule {
	return apitype.LimitRule{Limit: o.Limit, Plan: o.Plan}
}

// plan reads a plan, with its defaults.
func plan(b apitype.PlanRule) lease.Plan {
	p := lease.Plan{Limit: b.Limit, OnLimit: lease.OnLimit(b.OnLimit), Count: lease.Counting(b.Count)}
	return p.WithDefaults()
}

func planRuleOf(p lease.Plan) apitype.PlanRule {
	return apitype.PlanRule{Limit: p.Limit, OnLimit: string(p.OnLimit), Count: string(p.Count)}
}

// optional converts what may not be there.
func optional[A, B any](a *A, convert func(A) B) *B {
	if a == nil {
		return nil
	}
	return new(convert(*a))
}
