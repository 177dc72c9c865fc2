package api

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/problem"
	"streamcount/api/preview"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
	"streamcount/lease/userid"
)

// ruleStore is what the handlers of limits and plans call. It is implemented by a rules.Store
// and a shard.Router.
type ruleStore interface {
	Plans(ctx context.Context) (map[string]policy.Plan, error)
	Plan(ctx context.Context, name string) (policy.Plan, error)
	SetPlan(ctx context.Context, name string, p policy.Plan) (old *policy.Plan, err error)
	RemovePlan(ctx context.Context, name string) (old policy.Plan, err error)
	Override(ctx context.Context, user string) (policy.Override, error)
	SetOverride(ctx context.Context, user string, o policy.Override) (old *policy.Override, err error)
	RemoveOverride(ctx context.Context, user string) (old policy.Override, err error)
	Explain(ctx context.Context, user string) (rules.Explanation, error)
	Apply(ctx context.Context, set rules.Set, how rules.Options) (rules.Changes, error)
}

const (
	limitsPath = "/api/v1/limits/users/{user}"
	plansPath  = "/api/v1/plans"
	rulesPath  = "/api/v1/rules"
)

// ruleRoutes are the routes of limits and plans.
func (s *Server) ruleRoutes(a huma.API) {
	handle(a, "GET", limitsPath, openapi.GetLimit(), s.getLimit)
	handle(a, "PUT", limitsPath, openapi.SetLimit(), s.setLimit)
	handle(a, "DELETE", limitsPath, openapi.RemoveLimit(), s.removeLimit)
	handle(a, "GET", limitsPath+"/explain", openapi.ExplainLimits(), s.explainLimits)
	handle(a, "POST", plansPath+"/try", openapi.TryPlan(), s.tryPlan)
	handle(a, "GET", plansPath, openapi.ListPlans(), s.listPlans)
	handle(a, "GET", plansPath+"/{plan}", openapi.GetPlan(), s.getPlan)
	handle(a, "PUT", plansPath+"/{plan}", openapi.SetPlan(), s.setPlan)
	handle(a, "DELETE", plansPath+"/{plan}", openapi.RemovePlan(), s.removePlan)
	handle(a, "POST", rulesPath, openapi.ApplyRules(), s.apply)
}

// A planName is a path parameter with the rule for names of plans.
type planName string

// Schema is the rule as huma checks and documents it.
func (planName) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: apitype.PlanPattern, PatternDescription: convert.PlanNameRule,
		Description: "The plan: " + convert.PlanNameRule + ". \"default\" is that of users who have no other.",
		Examples:    []any{"family"},
	}
}

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
	o, p := convert.Override("body", in.Body, time.Now())
	if p != nil {
		return nil, p
	}
	old, err := s.rules().SetOverride(ctx, string(in.User), o)
	s.auditOverride(ctx, "set limit", rules.OverrideChange{User: string(in.User), Old: old, New: &o}, err)
	return limitReply(in.User, o, err)
}

func (s *Server) removeLimit(ctx context.Context, in *userInput) (*reply[apitype.UserLimit], error) {
	old, err := s.rules().RemoveOverride(ctx, string(in.User))
	s.auditOverride(ctx, "remove limit", rules.OverrideChange{User: string(in.User), Old: &old}, err)
	return limitReply(in.User, old, err)
}

func limitReply(user userID, o policy.Override, err error) (*reply[apitype.UserLimit], error) {
	if err != nil {
		return nil, err
	}
	return &reply[apitype.UserLimit]{apitype.UserLimit{UserID: string(user), LimitRule: convert.LimitRule(o)}}, nil
}

func (s *Server) listPlans(ctx context.Context, _ *struct{}) (*reply[apitype.Plans], error) {
	plans, err := s.rules().Plans(ctx)
	if err != nil {
		return nil, err
	}
	out := apitype.Plans{Plans: []apitype.Plan{}}
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		out.Plans = append(out.Plans, apitype.Plan{Name: name, PlanRule: convert.PlanRule(plans[name])})
	}
	return &reply[apitype.Plans]{out}, nil
}

func (s *Server) getPlan(ctx context.Context, in *planInput) (*reply[apitype.Plan], error) {
	p, err := s.rules().Plan(ctx, string(in.Plan))
	return planReply(in.Plan, p, err)
}

func (s *Server) setPlan(ctx context.Context, in *setPlanInput) (*reply[apitype.Plan], error) {
	p, bad := convert.Plan("body", in.Body)
	if bad != nil {
		return nil, bad
	}
	old, err := s.rules().SetPlan(ctx, string(in.Plan), p)
	s.auditPlan(ctx, "set plan", rules.PlanChange{Name: string(in.Plan), Old: old, New: &p}, err)
	return planReply(in.Plan, p, err)
}

func (s *Server) removePlan(ctx context.Context, in *planInput) (*reply[apitype.Plan], error) {
	old, err := s.rules().RemovePlan(ctx, string(in.Plan))
	s.auditPlan(ctx, "remove plan", rules.PlanChange{Name: string(in.Plan), Old: &old}, err)
	return planReply(in.Plan, old, err)
}

func planReply(name planName, p policy.Plan, err error) (*reply[apitype.Plan], error) {
	if errors.Is(err, policy.ErrNoPlan) {
		return nil, convert.ErrPlanInPath
	}
	if err != nil {
		return nil, err
	}
	return &reply[apitype.Plan]{preview.Plan(string(name), p)}, nil
}

func (s *Server) apply(ctx context.Context, in *applyInput) (*reply[apitype.RuleChanges], error) {
	set, p := ruleSet(in.Body)
	if p != nil {
		return nil, p
	}
	c, err := s.rules().Apply(ctx, set, rules.Options{DryRun: in.Body.DryRun, Since: in.Body.Revision})
	if err != nil {
		if attrs, ok := outcomeAttrs(err); ok && !in.Body.DryRun {
			s.audit(ctx, "apply", "", append(attrs, slog.Any("rules", in.Body))...)
		}
		return nil, err
	}
	out := apitype.RuleChanges{
		Revision: c.Revision, Applied: !in.Body.DryRun, Plans: []apitype.PlanChange{}, Users: []apitype.UserLimitChange{},
	}
	for _, d := range c.Plans {
		change := apitype.PlanChange{Name: d.Name, Old: convertOptional(d.Old, convert.PlanRule), New: convertOptional(d.New, convert.PlanRule)}
		if d.Old != nil && d.New != nil && !d.Unreadable {
			change.Changes = d.Limits()
		}
		out.Plans = append(out.Plans, change)
		if out.Applied {
			s.auditPlan(ctx, "apply plan", d, nil)
		}
	}
	for _, d := range c.Users {
		change := apitype.UserLimitChange{UserID: d.User, Old: convertOptional(d.Old, convert.LimitRule), New: convertOptional(d.New, convert.LimitRule)}
		out.Users = append(out.Users, change)
		if out.Applied {
			s.auditOverride(ctx, "apply limit", d, nil)
		}
	}
	return &reply[apitype.RuleChanges]{out}, nil
}

// ruleSet reads the body of an apply.
func ruleSet(b apitype.RuleSet) (rules.Set, *problem.Problem) {
	set := rules.Set{Plans: map[string]*policy.Plan{}, Users: map[string]*policy.Override{}}
	for name, rule := range b.Plans {
		if !policy.ValidPlan(name) {
			return set, notAPlan("body.plans")
		}
		p, bad := convert.Plan("body.plans."+name, rule)
		if bad != nil {
			return set, bad
		}
		set.Plans[name] = &p
	}
	for user, rule := range b.Users {
		if !userid.Valid(user) {
			return set, notAUser("body.users")
		}
		o, p := convert.Override("body.users."+user, rule, time.Now())
		if p != nil {
			return set, p
		}
		set.Users[user] = &o
	}
	for _, name := range b.RemovePlans {
		if !policy.ValidPlan(name) {
			return set, notAPlan("body.removePlans")
		}
		if set.Plans[name] != nil {
			return set, duplicate("body.removePlans", name)
		}
		set.Plans[name] = nil
	}
	for _, user := range b.RemoveUsers {
		if !userid.Valid(user) {
			return set, notAUser("body.removeUsers")
		}
		if set.Users[user] != nil {
			return set, duplicate("body.removeUsers", user)
		}
		set.Users[user] = nil
	}
	return set, nil
}

// notAUser and notAPlan do not repeat the name, which may be long.
func notAUser(where string) *problem.Problem {
	return problem.Invalid.New("A name in "+where+" is not a user id: "+userid.Rule+".").WithField(where, "expected user ids")
}

func notAPlan(where string) *problem.Problem {
	return problem.Invalid.New("A name in "+where+" is not a plan's: "+convert.PlanNameRule+".").WithField(where, "expected names of plans")
}

func duplicate(where, name string) *problem.Problem {
	return problem.Invalid.New("The same name is both set and removed.").WithField(where, "also set: "+name)
}

// convertOptional converts what may not be there.
func convertOptional[A, B any](a *A, convert func(A) B) *B {
	if a == nil {
		return nil
	}
	return new(convert(*a))
}
