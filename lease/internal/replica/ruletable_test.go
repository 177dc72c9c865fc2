package replica

import (
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// The counts of a table are always those of its rules.
func TestRuleTable_Counts(t *testing.T) {
	plans := []*policy.Plan{nil, {Limit: 1}, {Limit: 2, Limits: []policy.Limit{{Name: "tv"}}}}
	rapid.Check(t, func(t *rapid.T) {
		table, revision, generation := newRuleTable[policy.Plan](), int64(0), uint32(0)
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				name, p, again := names.Draw(t, "name"), rapid.SampledFrom(plans).Draw(t, "plan"), rapid.Bool().Draw(t, "again")
				old, exists := table.rules[name]
				if again && exists {
					old.listGeneration = generation
					assert.False(t, table.put(name, old), "the same put is not new")
					return
				}
				revision++
				assert.Equal(t, p == nil, table.put(name, cachedRule[policy.Plan]{p, revision, generation}))
			},
			"remove": func(t *rapid.T) { table.remove(names.Draw(t, "name")) },
			"list":   func(*rapid.T) { generation++ },
			"sweep": func(*rapid.T) {
				table.sweep(generation)
				for _, r := range table.rules {
					assert.Equal(t, generation, r.listGeneration)
				}
			},
			"": func(t *rapid.T) {
				unreadable, needs := []string(nil), map[string]int{}
				for _, name := range slices.Sorted(maps.Keys(table.rules)) {
					switch p := table.rules[name].rule; {
					case p == nil:
						unreadable = append(unreadable, name)
					case len(p.Limits) > 0:
						needs[policy.NeedLimits]++
					}
				}
				assert.Equal(t, unreadable, table.unreadableNames())
				assert.Equal(t, needs, table.needs)
			},
		})
	})
}

// An unreadable rule is logged once for each put, and not more often when the rules are listed
// again. Of many rules only the first are logged.
func TestRules_LogUnreadable(t *testing.T) {
	var log strings.Builder
	r, k := newRules(slog.New(slog.NewTextHandler(&log, nil))), schema.Keys{Prefix: "/p"}
	lines := func() int {
		defer log.Reset()
		return strings.Count(log.String(), "\n")
	}
	put := func(key, value string, revision int64, generation uint32) {
		r.put(k, &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: revision}, generation)
	}
	for range 3 {
		put(k.Plan("gold"), "junk", 7, 1)
	}
	assert.Contains(t, log.String(), "rule=plan name=gold")
	assert.Equal(t, 1, lines())
	put(k.Plan("gold"), "other junk", 8, 1)
	put(k.Override("maya"), `{"limit":1,"needs":["teleport"]}`, 9, 1)
	assert.Contains(t, log.String(), "name=maya")
	assert.Equal(t, 2, lines())
	put(k.Override("maya"), `{"limit":1}`, 10, 1)
	put(k.Plan("gold"), `{"limit":1}`, 10, 1)
	assert.Zero(t, lines())
	for generation := range uint32(2) {
		for i := range int64(100) {
			put(k.Override(strconv.FormatInt(i, 10)), "junk", 100+i, generation)
		}
	}
	assert.Equal(t, maxWarnings+1, lines())
	plans, overrides := r.CountUnreadable()
	assert.Equal(t, [2]int{0, 100}, [2]int{plans, overrides})
}
