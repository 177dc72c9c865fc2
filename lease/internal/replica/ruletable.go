package replica

import (
	"maps"
	"slices"
)

// A ruleTable has the rules of one kind by name. It counts what concerns all rules with
// every change, because there may be an override for each of a million users.
type ruleTable[T ruleKind] struct {
	rules      map[string]cachedRule[T]
	unreadable map[string]struct{} // the names of the rules that this version cannot read
	needs      map[string]int      // how many rules have a need
}

// A ruleKind is a plan or an override.
type ruleKind interface{ Needs() []string }

// cachedRule is a rule with the revision of its last put. The rule is nil if this version
// cannot read the stored value.
type cachedRule[T any] struct {
	rule           *T
	revision       int64
	listGeneration uint32 // of the last list that contained it
}

func newRuleTable[T ruleKind]() ruleTable[T] {
	return ruleTable[T]{map[string]cachedRule[T]{}, map[string]struct{}{}, map[string]int{}}
}

// put stores a rule. It reports whether the rule is unreadable, and not the same put as before.
func (t *ruleTable[T]) put(name string, r cachedRule[T]) (newUnreadable bool) {
	old := t.rules[name]
	t.remove(name)
	t.rules[name] = r
	if r.rule == nil {
		t.unreadable[name] = struct{}{}
		return old.revision != r.revision
	}
	for _, need := range (*r.rule).Needs() {
		t.needs[need]++
	}
	return false
}

func (t *ruleTable[T]) remove(name string) {
	r, exists := t.rules[name]
	if !exists {
		return
	}
	delete(t.rules, name)
	delete(t.unreadable, name)
	if r.rule == nil {
		return
	}
	for _, need := range (*r.rule).Needs() {
		if t.needs[need]--; t.needs[need] == 0 {
			delete(t.needs, need)
		}
	}
}

// sweep removes the rules that the list of that generation did not contain.
func (t *ruleTable[T]) sweep(generation uint32) {
	for name, r := range t.rules {
		if r.listGeneration != generation {
			t.remove(name)
		}
	}
}

func (t *ruleTable[T]) unreadableNames() []string { return sortedKeys(t.unreadable) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
