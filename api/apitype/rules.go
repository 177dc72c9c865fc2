package apitype

// PlanPattern is the rule for names of plans.
const PlanPattern = `^[A-Za-z0-9._-]{1,64}$`

// PlanRule is what a plan says.
type PlanRule struct {
	Limit   int    `json:"limit" minimum:"0" maximum:"60" doc:"How many streams; 0 blocks." example:"4"`
	OnLimit string `json:"onLimit,omitempty" enum:"deny,replace-oldest" doc:"Whether a start may ask for replace-oldest; deny unless said otherwise."`
	Count   string `json:"count,omitempty" enum:"streams,content,devices" doc:"What counts: each stream, streams of the same content.id once, or streams on the same device.id once; streams unless said otherwise. A stream without the id counts alone."`
}

// A Plan is a named limit.
type Plan struct {
	Name string `json:"name" example:"family"`
	PlanRule
}

// Plans are all plans.
type Plans struct {
	Plans []Plan `json:"plans" nullable:"false" doc:"By name."`
}

// LimitRule is what one user has of his own: either a limit or a plan.
type LimitRule struct {
	Limit *int   `json:"limit,omitempty" minimum:"0" maximum:"60" doc:"The user's own limit; 0 blocks. The rest is as in the user's plan."`
	Plan  string `json:"plan,omitempty" maxLength:"64" doc:"The name of the user's plan, which must exist."`
}

// A UserLimit is what a user has of his own.
type UserLimit struct {
	UserID string `json:"userId" example:"maya"`
	LimitRule
}

// A RuleSet is a set of plans and limits to be made true at once.
type RuleSet struct {
	Plans       map[string]PlanRule  `json:"plans,omitempty" doc:"Plans by name."`
	Users       map[string]LimitRule `json:"users,omitempty" doc:"What users have of their own, by user."`
	RemovePlans []string             `json:"removePlans,omitempty" nullable:"false" maxItems:"1000" doc:"Plans that shall be gone."`
	RemoveUsers []string             `json:"removeUsers,omitempty" nullable:"false" maxItems:"1000" doc:"Users who shall have nothing of their own."`
	DryRun      bool                 `json:"dryRun,omitempty" doc:"Say what would change, and change nothing."`
	Revision    int64                `json:"revision,omitempty" minimum:"0" doc:"That of a dry run: nothing is changed if any rule was since."`
}

// RuleChanges are the differences that a RuleSet makes.
type RuleChanges struct {
	Revision int64             `json:"revision" doc:"The etcd revision at which they were found or applied."`
	Applied  bool              `json:"applied" doc:"False for a dry run."`
	Plans    []PlanChange      `json:"plans" nullable:"false"`
	Users    []UserLimitChange `json:"users" nullable:"false"`
}

// PlanChange is a plan before and after.
type PlanChange struct {
	Name string    `json:"name"`
	Old  *PlanRule `json:"old,omitempty" doc:"Left out if there was none."`
	New  *PlanRule `json:"new,omitempty" doc:"Left out if it is gone."`
}

// UserLimitChange is what a user has of his own, before and after.
type UserLimitChange struct {
	UserID string     `json:"userId"`
	Old    *LimitRule `json:"old,omitempty" doc:"Left out if there was nothing."`
	New    *LimitRule `json:"new,omitempty" doc:"Left out if it is gone."`
}
