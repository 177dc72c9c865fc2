//go:build linux

package torture

import (
	"encoding/json"
	"strings"
	"time"
)

// asOp returns the operation that makes the change.
func (r ruleChange) asOp() *op {
	var v struct {
		Limit   *int
		Plan    string
		OnLimit string
	}
	_ = json.Unmarshal([]byte(r.value), &v) // empty after a delete
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
		o.Limit = 0 // as in the operations of clients
	}
	return o
}

// checkRule checks that a rule which a client has set was in force at some moment between call
// and answer, and that there was none if the answer was 404.
func (c *checker) checkRule(o *op) {
	if o.unknown() {
		return
	}
	key := "limits/" + o.User
	if o.Kind == kindPlan {
		key = "plans/" + o.Plan
	}
	same := func(now *op) bool { return now.Limit == o.Limit && now.Plan == o.Plan && now.Evict == o.Evict }
	now, since := (&ruleChange{key: key}).asOp(), time.Duration(0)
	for _, change := range c.rules {
		if change.key != key {
			continue
		}
		if same(now) && since <= o.Return && c.notAfter(change.rev, change.seen) >= o.Call {
			return
		}
		now, since = change.asOp(), c.notBefore(change.rev)
	}
	if !same(now) || since > o.Return {
		c.errorf("a rule that was set was never in force: %v", o)
	}
}
