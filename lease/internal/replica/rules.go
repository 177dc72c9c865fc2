package replica

import (
	"maps"
	"strings"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// Rules are the rules in a replica. They are a [policy.Source], and safe for concurrent
// use.
type Rules struct {
	mu        sync.RWMutex
	plans     map[string]cachedRule[policy.Plan]
	overrides map[string]cachedRule[policy.Override]
}

// cachedRule is a rule with the revision of its last put. The rule is nil if the stored
// value is invalid.
type cachedRule[T any] struct {
	rule           *T
	revision       int64
	listGeneration uint32 // of the last list that contained it
}

func newRules() *Rules {
	return &Rules{plans: map[string]cachedRule[policy.Plan]{}, overrides: map[string]cachedRule[policy.Override]{}}
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

// put stores a rule. It ignores a key that is not that of a rule.
func (r *Rules) put(k schema.Keys, kv *mvccpb.KeyValue, generation uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if user, ok := k.ParseOverride(kv.Key); ok {
		r.overrides[user] = cachedRule[policy.Override]{schema.DecodeOverride(kv.Value), kv.ModRevision, generation}
	} else if name, ok := strings.CutPrefix(string(kv.Key), k.PlansPrefix()); ok {
		r.plans[name] = cachedRule[policy.Plan]{schema.DecodePlan(kv.Value), kv.ModRevision, generation}
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

// Plans returns the valid plans.
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
