package apitype

// PlanPattern is the rule for names of plans.
const PlanPattern = `^[A-Za-z0-9._-]{1,64}$`

// A PlanRule is the content of a plan.
type PlanRule struct {
	Limit   *int     `json:"limit,omitempty" minimum:"0" maximum:"60" doc:"How many streams; 0 blocks. It may be left out if there are limits, and is then 60." example:"4"`
	OnLimit string   `json:"onLimit,omitempty" enum:"deny,replace-oldest,replace-lowest" doc:"Which streams a start with replace-oldest may end: none, the oldest, or the oldest of those with the lowest priority, if that is lower than its own. The default is deny."`
	Count   string   `json:"count,omitempty" enum:"streams,content,devices" doc:"What counts: each stream, streams of the same content.id once, or streams on the same device.id once; the default is streams. A stream without the id counts as one."`
	Require []string `json:"require,omitempty" maxItems:"16" doc:"Attributes that a start must state, such as device.id. A start without them gets 422."`
	Limits  []Limit  `json:"limits,omitempty" maxItems:"16" doc:"Further limits. All of them must hold."`
}

// A Plan is a named limit.
type Plan struct {
	Name string `json:"name" example:"family"`
	PlanRule
	Attributes []string `json:"attributes,omitempty" doc:"For a plan with several limits: the attributes that starts should state, because the plan requires them or a limit depends on them."`
	Warnings   []string `json:"warnings,omitempty" doc:"For a plan with several limits: what is probably not intended in it."`
}

// Plans are all plans.
type Plans struct {
	Plans []Plan `json:"plans" nullable:"false" doc:"By name."`
}

// A LimitRule is what is set for one user: a limit or a plan, and numbers for single limits of
// the plan that the user has.
type LimitRule struct {
	Limit  *int    `json:"limit,omitempty" minimum:"0" maximum:"60" doc:"The limit of the user; 0 blocks. Everything else comes from the user's plan."`
	Plan   string  `json:"plan,omitempty" maxLength:"64" doc:"The name of the user's plan, which must exist."`
	Limits Numbers `json:"limits,omitempty" doc:"Numbers, 0 to 60, that replace those of the limits of the user's plan, by the name of the limit. A name that the plan does not have has no effect."`
	Until  *Time   `json:"until,omitempty" format:"date-time" maxLength:"64" doc:"When all this ends by itself, in whole seconds. It may end some seconds later. If it is left out, it does not end."`
}

// Numbers are numbers of limits, by the name of the limit.
type Numbers map[string]int

// A UserLimit is a user with the limit or plan that is set for them.
type UserLimit struct {
	UserID string `json:"userId" example:"maya"`
	LimitRule
}

// A RuleSet is a set of plans and limits to apply in one transaction.
type RuleSet struct {
	Plans       map[string]PlanRule  `json:"plans,omitempty" maxProperties:"1000" doc:"Plans by name."`
	Users       map[string]LimitRule `json:"users,omitempty" maxProperties:"1000" doc:"The overrides of users, by user."`
	RemovePlans []string             `json:"removePlans,omitempty" nullable:"false" maxItems:"1000" doc:"Plans to remove."`
	RemoveUsers []string             `json:"removeUsers,omitempty" nullable:"false" maxItems:"1000" doc:"Users whose limit or plan to remove."`
	DryRun      bool                 `json:"dryRun,omitempty" doc:"Respond with what would change, and change nothing."`
	Revision    int64                `json:"revision,omitempty" minimum:"0" doc:"The revision of a dry run: nothing is changed if any rule has changed since."`
}

// RuleChanges are the changes that a RuleSet makes.
type RuleChanges struct {
	Revision int64             `json:"revision" doc:"The etcd revision at which they were found or applied."`
	Applied  bool              `json:"applied" doc:"False for a dry run."`
	Plans    []PlanChange      `json:"plans" nullable:"false"`
	Users    []UserLimitChange `json:"users" nullable:"false"`
}

// A PlanChange is a plan before and after.
type PlanChange struct {
	Name string    `json:"name"`
	Old  *PlanRule `json:"old,omitempty" doc:"Left out if there was none."`
	New  *PlanRule `json:"new,omitempty" doc:"Left out if it was removed."`
	// Changes is set if the further limits differ.
	Changes []string `json:"changes,omitempty" doc:"The differences in the further limits, by their names, such as limit tv 1 -> 2, + limit kids, - limit uhd."`
}

// A UserLimitChange is the limit or plan of a user before and after.
type UserLimitChange struct {
	UserID string     `json:"userId"`
	Old    *LimitRule `json:"old,omitempty" doc:"Left out if there was nothing."`
	New    *LimitRule `json:"new,omitempty" doc:"Left out if it was removed."`
}
