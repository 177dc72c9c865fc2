package replica

import (
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// Rules are the rules in a replica. They are a [policy.Source], and safe for concurrent
// use.
type Rules struct {
	log       *slog.Logger
	mu        sync.RWMutex
	plans     map[string]cachedRule[policy.Plan]
	overrides map[string]cachedRule[policy.Override]
}

// cachedRule is a rule with the revision of its last put. The rule is nil if this version
// cannot read the stored value.
type cachedRule[T any] struct {
	rule           *T
	revision       int64
	listGeneration uint32 // of the last list that contained it
}

func newRules(log *slog.Logger) *Rules {
	return &Rules{log: log, plans: map[string]cachedRule[policy.Plan]{}, overrides: map[string]cachedRule[policy.Override]{}}
}

// Override implements [policy.Source].
func (r *Rules) Override(user string) (*policy.Override, int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	o := r.overrides[user]
	return o.rule, o.revision
}

// Plan implements [policy.Source].
func (r *Rules) Plan(name string) (*policy.Plan, int64) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	p := r.plans[name]
	return p.rule, p.revision
}

// HasOverrides reports whether any user has an override.
func (r *Rules) HasOverrides() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.overrides) > 0
}

// Unreadable returns the names of the plans, and of the users with an override, that this
// version cannot read, in order.
func (r *Rules) Unreadable() (plans, users []string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return unreadable(r.plans), unreadable(r.overrides)
}

func unreadable[T any](rules map[string]cachedRule[T]) (names []string) {
	for name, rule := range rules {
		if rule.rule == nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// put stores a rule. It ignores a key that is not that of a rule.
func (r *Rules) put(k schema.Keys, kv *mvccpb.KeyValue, generation uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user, ok := k.ParseOverride(kv.Key); ok {
		o := schema.DecodeOverride(kv.Value)
		r.overrides[user] = cachedRule[policy.Override]{o, kv.ModRevision, generation}
		r.warnUnreadable(o == nil, "limit or plan of a user", user)
	} else if name, ok := strings.CutPrefix(string(kv.Key), k.PlansPrefix()); ok {
		p := schema.DecodePlan(kv.Value)
		r.plans[name] = cachedRule[policy.Plan]{p, kv.ModRevision, generation}
		r.warnUnreadable(p == nil, "plan", name)
	}
}

func (r *Rules) warnUnreadable(unreadable bool, kind, name string) {
	if unreadable {
		r.log.Warn("this version cannot read a stored rule: starts that depend on it are answered as unavailable", "rule", kind, "name", name)
	}
}

// remove removes the rule with that key, if it is the key of a rule.
func (r *Rules) remove(k schema.Keys, key []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user, ok := k.ParseOverride(key); ok {
		delete(r.overrides, user)
	} else if name, ok := strings.CutPrefix(string(key), k.PlansPrefix()); ok {
		delete(r.plans, name)
	}
}

// sweep removes the rules that the list of that generation did not contain.
func (r *Rules) sweep(generation uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.overrides, func(_ string, o cachedRule[policy.Override]) bool { return o.listGeneration != generation })
	maps.DeleteFunc(r.plans, func(_ string, p cachedRule[policy.Plan]) bool { return p.listGeneration != generation })
}

// Plans returns the plans that this version can read.
func (r *Rules) Plans() map[string]policy.Plan {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := make(map[string]policy.Plan, len(r.plans))
	for name, p := range r.plans {
		if p.rule != nil {
			out[name] = *p.rule
		}
	}
	return out
}
