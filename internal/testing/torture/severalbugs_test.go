//go:build linux

package torture

// severalMutants are deliberate bugs of plans with several limits.
var severalMutants = []mutant{
	{name: "an eviction satisfies a limit that denies", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "		if !t.evict {\n", "		if !t.evict && !(MUTANT) {\n",
	}}},
	{name: "evictions that are not needed stand", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "	e.restore(first)\n", "	if !(MUTANT) {\n		e.restore(first)\n	}\n",
	}}},
	{name: "the priority of a victim does not count", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "n == most && priority < lowest", "n == most && priority < lowest && !(MUTANT)",
	}}},
	{name: "the number of violated limits does not count", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "		if n > most ||", "		if n > most && !(MUTANT && most > 0) ||",
	}}},
	{name: "a stream of the same priority is evicted", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "Priority >= attributesOf(e.start.Attributes).Priority {",
		"Priority >= attributesOf(e.start.Attributes).Priority &&\n" +
			"			!(MUTANT && attributesOf(e.streams[j].Attributes).Priority == attributesOf(e.start.Attributes).Priority) {",
	}}},
	{name: "one stream of a device is evicted", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "e.remains[i] && t.unit[i] == t.unit[victim]", "e.remains[i] && (t.unit[i] == t.unit[victim] && !(MUTANT) || i == victim)",
	}}},
	{name: "per is ignored", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "if t.limit.Per != \"\" && as", "if t.limit.Per != \"\" && !(MUTANT) && as",
	}}},
	{name: "conditions are those of the stream before", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "		if !l.selects(attributesOf(s.Attributes)) {\n",
		"		by := s.Attributes\n		if MUTANT && e.slot >= 0 {\n			by = streams[e.endings[0].index].Attributes\n		}\n" +
			"		if !l.selects(attributesOf(by)) {\n",
	}}},
	{name: "a session that continues has the bare limit", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "		if e.slot >= 0 {\n			t.most", "		if e.slot >= 0 && !(MUTANT) {\n			t.most",
	}}},
	{name: "a session that continues adds to a limit", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "			t.most = max(t.most, e.countHeld(&t))\n",
		"			t.most = max(t.most, e.countHeld(&t))\n			if MUTANT {\n				t.most = MaxLimit\n			}\n",
	}}},
	{name: "a limit that observes rejects", scene: "several limits", patches: []patch{{
		"lease/policy/several.go", "		if l.Observe {\n", "		if l.Observe && !(MUTANT) {\n",
	}}},
	{name: "a changed plan with several limits is not guarded", scene: "several changes", patches: []patch{{
		"lease/admission.go", "	t.Compare = append(t.Compare, a.l.rules.Guards(a.user, a.rule)...)\n",
		"	if !(MUTANT && a.rule.NeedsAttributes()) {\n		t.Compare = append(t.Compare, a.l.rules.Guards(a.user, a.rule)...)\n	}\n",
	}}},
}
