package replica

import (
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// Rules are the rules in a replica. They are a [policy.Source], and safe for concurrent
// use.
type Rules struct {
	log       *slog.Logger
	mu        sync.RWMutex
	plans     ruleTable[policy.Plan]
	overrides ruleTable[policy.Override]
	ending    map[string]time.Time // the users whose overrides end, and when
	firstEnd  time.Time            // no override ends earlier; zero if none ends
}

func newRules(log *slog.Logger) *Rules {
	return &Rules{
		log: log, plans: newRuleTable[policy.Plan](), overrides: newRuleTable[policy.Override](), ending: map[string]time.Time{},
	}
}

// Override implements [policy.Source].
func (r *Rules) Override(user string) (*policy.Override, int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	o := r.overrides.rules[user]
	return o.rule, o.revision
}

// Plan implements [policy.Source].
func (r *Rules) Plan(name string) (*policy.Plan, int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.plans.rules[name]
	return p.rule, p.revision
}

// HasOverrides reports whether any user has an override.
func (r *Rules) HasOverrides() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.overrides.rules) > 0
}

// setEnd records when the override of a user ends. o is nil if this version cannot read it.
func (r *Rules) setEnd(user string, value []byte, o *policy.Override) {
	var until time.Time
	if o != nil {
		until = o.Until
	} else {
		until = schema.DecodeUntil(value)
	}
	if until.IsZero() {
		delete(r.ending, user)
		return
	}
	r.ending[user] = until
	if r.firstEnd.IsZero() || until.Before(r.firstEnd) {
		r.firstEnd = until
	}
}

// Ended returns overrides that were to end before a time, at most limit of them: the
// revisions of their puts, by user.
func (r *Rules) Ended(before time.Time, limit int) map[string]int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.firstEnd.IsZero() || !r.firstEnd.Before(before) {
		return nil
	}
	out, first := map[string]int64{}, time.Time{}
	for user, until := range r.ending {
		if until.Before(before) {
			out[user] = r.overrides.rules[user].revision
		}
		if len(out) == limit {
			return out
		}
		if first.IsZero() || until.Before(first) {
			first = until
		}
	}
	r.firstEnd = first
	return out
}

// Unreadable returns the names of the plans, and of the users with an override, that this
// version cannot read, in order.
func (r *Rules) Unreadable() (plans, users []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.plans.unreadableNames(), r.overrides.unreadableNames()
}

// CountUnreadable returns the numbers of plans and overrides that this version cannot read.
func (r *Rules) CountUnreadable() (plans, overrides int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.plans.unreadable), len(r.overrides.unreadable)
}

// Needs returns what a version must support to apply all rules that this version can read,
// in order.
func (r *Rules) Needs() []string {
	needs := map[string]int{}
	r.mu.RLock()
	defer r.mu.RUnlock()
	maps.Copy(needs, r.plans.needs)
	maps.Copy(needs, r.overrides.needs)
	return sortedKeys(needs)
}

// put stores a rule. It ignores a key that is not that of a rule.
func (r *Rules) put(k schema.Keys, kv *mvccpb.KeyValue, generation uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user, ok := k.ParseOverride(kv.Key); ok {
		o := schema.DecodeOverride(kv.Value)
		r.setEnd(user, kv.Value, o)
		warn := r.overrides.put(user, cachedRule[policy.Override]{o, kv.ModRevision, generation})
		r.warnUnreadable(warn, "limit or plan of a user", user)
	} else if name, ok := strings.CutPrefix(string(kv.Key), k.PlansPrefix()); ok {
		warn := r.plans.put(name, cachedRule[policy.Plan]{schema.DecodePlan(kv.Value), kv.ModRevision, generation})
		r.warnUnreadable(warn, "plan", name)
	}
}

// maxWarnings is the number of unreadable rules from which on no further ones are logged.
const maxWarnings = 20

func (r *Rules) warnUnreadable(warn bool, kind, name string) {
	switch n := len(r.plans.unreadable) + len(r.overrides.unreadable); {
	case warn && n <= maxWarnings:
		r.log.Warn("this version cannot read a stored rule: starts that depend on it are answered as unavailable", "rule", kind, "name", name)
	case warn && n == maxWarnings+1:
		r.log.Warn("this version cannot read further stored rules, which are not logged", "logged", maxWarnings)
	}
}

// remove removes the rule with that key, if it is the key of a rule.
func (r *Rules) remove(k schema.Keys, key []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user, ok := k.ParseOverride(key); ok {
		r.overrides.remove(user)
		delete(r.ending, user)
	} else if name, ok := strings.CutPrefix(string(key), k.PlansPrefix()); ok {
		r.plans.remove(name)
	}
}

// sweep removes the rules that the list of that generation did not contain.
func (r *Rules) sweep(generation uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.overrides.sweep(generation)
	maps.DeleteFunc(r.ending, func(user string, _ time.Time) bool { return r.overrides.rules[user].revision == 0 })
	r.plans.sweep(generation)
}

// Plans returns the plans that this version can read.
func (r *Rules) Plans() map[string]policy.Plan {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make(map[string]policy.Plan, len(r.plans.rules))
	for name, p := range r.plans.rules {
		if p.rule != nil {
			out[name] = *p.rule
		}
	}
	return out
}
