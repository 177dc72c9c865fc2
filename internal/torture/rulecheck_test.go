package torture

import (
	"encoding/json"
	"strings"
	"time"
)

// asOp is a change as the operation that makes it.
func (r ruleChange) asOp() *op {
	var v struct {
		Limit   *int
		Plan    string
		OnLimit string
	}
	_ = json.Unmarshal([]byte(r.value), &v) // of one that was deleted there is nothing
	o := &op{Kind: kindLimit, Limit: -1, Plan: v.Plan, Evict: v.OnLimit == "replace-oldest", Status: 200}
	if v.Limit != nil {
		o.Limit = *v.Limit
	}
	if plan, isPlan := strings.CutPrefix(r.key, "plans/"); isPlan {
		o.Kind, o.Plan = kindPlan, plan
		return o
	}
	o.User = strings.TrimPrefix(r.key, "limits/")
	if o.Plan != "" {
		o.Limit = 0 // as clients say it
	}
	return o
}

// checkRule: what a client set was in force at some time while it waited, and what
// it was told not to be there was not there.
func (c *checker) checkRule(o *op) {
	if o.unknown() {
		return
	}
	key := "limits/" + o.User
	if o.Kind == kindPlan {
		key = "plans/" + o.Plan
	}
	says := func(now *op) bool { return now.Limit == o.Limit && now.Plan == o.Plan && now.Evict == o.Evict }
	now, since := (&ruleChange{key: key}).asOp(), time.Duration(0)
	for _, change := range c.rules {
		if change.key != key {
			continue
		}
		if says(now) && since <= o.Return && c.notAfter(change.rev, change.seen) >= o.Call {
			return
		}
		now, since = change.asOp(), c.notBefore(change.rev)
	}
	if !says(now) || since > o.Return {
		c.complain("what was set was never in force: %v", o)
	}
}
