package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// try runs a command that needs no server.
func try(t *testing.T, want int, args ...string) (out, errOut string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	require.Equal(t, want, run(t.Context(), args, nil, &stdout, &stderr), "%v: %s%s", args, &stdout, &stderr)
	return stdout.String(), stderr.String()
}

// fileWith returns the path of a new file.
func fileWith(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

const onePlan = `
plans:
  one-tv:
    limit: 3
    onLimit: replace-oldest
    limits:
    - {name: tv, where: {device.type: [tv, ""]}, limit: 1}
    - {name: two, limit: 2, observe: true}
  strict: {limit: 1, require: [profile]}
`

func TestPlansTry(t *testing.T) {
	plans := fileWith(t, "plans.yaml", onePlan)
	cases := fileWith(t, "cases.yaml", `
- name: a second TV
  plan: one-tv
  streams: [{device: {type: tv}}]
  start: {device: {type: tv}}
  want: {admitted: false, limits: [tv]}
- {name: a third stream, plan: one-tv, streams: [{device: {type: phone}}, {}], start: {device: {type: phone}}, want: {admitted: true, observed: [two]}}
- {name: no profile, plan: strict, want: {admitted: false, missing: [profile]}}
- {name: an eviction, plan: one-tv, streams: [{session: a}, {device: {type: phone}}], start: {session: a, region: eu}, want: {admitted: true, ends: [0]}}
`)
	out, errOut := try(t, exitOK, "plans", "try", plans, "--cases", cases)
	assert.Equal(t, `ok    one-tv: a second TV
ok    one-tv: a third stream
ok    strict: no profile
ok    one-tv: an eviction
`, out)
	assert.Equal(t, "streamcount: warning: plan one-tv: limit tv depends on device.type, which the player reports\n", errOut)
	out, _ = try(t, exitOK, "plans", "try", plans)
	assert.Equal(t, "2 valid plans\n", out)

	cases = fileWith(t, "cases.yaml", `
- {name: first, plan: one-tv, streams: [{}], start: {}, want: {admitted: true, ends: [0]}}
- {name: second, plan: one-tv, want: {admitted: true}}
- {name: third, plan: strict, want: {admitted: false, missing: [device.id]}}
- {name: fourth, plan: one-tv, streams: [{}], want: {admitted: false, limits: [total], observed: [two]}}
`)
	out, errOut = try(t, exitError, "plans", "try", plans, "--cases", cases)
	assert.Equal(t, `FAIL  one-tv: first: admitted is false, want true; limits are [tv], want []; ends are [], want [0]
ok    one-tv: second
FAIL  strict: third: missing are [profile], want [device.id]
FAIL  one-tv: fourth: limits are [tv], want [total]; observed are [], want [two]
`, out)
	assert.Contains(t, errOut, "3 of 4 cases differ")
	out, _ = try(t, exitError, "plans", "try", plans, "--cases", cases, "--json")
	var results []caseResult
	require.NoError(t, json.Unmarshal([]byte(out), &results))
	assert.Equal(t, caseResult{Plan: "one-tv", Name: "second", OK: true, Result: results[1].Result}, results[1])
	assert.Equal(t, []string{"limits are [tv], want [total]", "observed are [], want [two]"}, results[3].Differences)
	assert.Equal(t, "tv", results[3].Result.Limits[0].Name)
	out, _ = try(t, exitOK, "plans", "try", plans, "--json")
	assert.JSONEq(t, `{"one-tv":["limit tv depends on device.type, which the player reports"],"strict":[]}`, out)
}

func TestPlansTry_BadFiles(t *testing.T) {
	for name, tt := range map[string]struct{ plans, cases, want string }{
		"notYAML":       {"plans: [", "", "want maps of plans and users"},
		"unknownMember": {"plans: {a: {limit: 1, limts: []}}", "", "limts"},
		"noLimit":       {"plans: {a: {}}", "", `plan "a" has no limit`},
		"badLimit":      {"plans: {a: {limit: 61}}", "", "plans.a: limit 61 is not between 0 and 60"},
		"badAttribute": {"plans: {a: {limits: [{name: tv, limit: 1, where: {device.typ: tv}}]}}", "",
			"plans.a.limits[0].where.device.typ: no such attribute; device.type?"},
		"badWhere":     {"plans: {a: {limits: [{name: tv, limit: 1, where: {device.type: {only: tv}}}]}}", "", "only"},
		"noCases":      {onePlan, "[]", "no cases"},
		"notAList":     {onePlan, "{}", "want a list of cases"},
		"twoDocuments": {onePlan, "[]\n---\n[]", "want a list of cases"},
		"misspelled":   {onePlan, "[{name: a, plan: one-tv, strems: [], want: {admitted: true}}]", "strems"},
		"noName":       {onePlan, "[{plan: one-tv, want: {admitted: true}}]", "[0]: a case has a name"},
		"noPlan":       {onePlan, "[{name: a, want: {admitted: true}}]", "[0]: a case names a plan"},
		"noWant":       {onePlan, "[{name: a, plan: one-tv}]", "[0]: want.admitted is true or false"},
		"otherPlan":    {onePlan, "[{name: a, plan: gold, want: {admitted: true}}]", `[0].plan: the plan "gold" is not in the file of plans`},
		"badReplaces":  {onePlan, `[{name: a, plan: one-tv, start: {replaces: "0"}, want: {admitted: true}}]`, "[0].start.replaces: expected the index"},
		"badLabel":     {onePlan, `[{name: a, plan: one-tv, streams: [{}, {labels: {"a b": x}}], want: {admitted: true}}]`, "[0].streams[1].labels"},
		"badOnLimit":   {onePlan, `[{name: a, plan: one-tv, start: {onLimit: explode}, want: {admitted: true}}]`, "[0].start.onLimit: expected deny or replace-oldest"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"plans", "try", fileWith(t, "plans.yaml", tt.plans)}
			if tt.cases != "" {
				args = append(args, "--cases", fileWith(t, "cases.yaml", tt.cases))
			}
			_, errOut := try(t, exitUsage, args...)
			assert.Contains(t, errOut, tt.want)
			assert.Equal(t, 1, strings.Count(strings.ReplaceAll(errOut, "streamcount: warning", ""), "streamcount: "), "one line: %s", errOut)
		})
	}
	try(t, exitUsage, "plans", "try", "/nonexistent/plans.yaml")
	try(t, exitUsage, "plans", "try", fileWith(t, "plans.yaml", onePlan), "--cases", "/nonexistent/cases.yaml")
}

// The examples have the results that their cases state.
func TestPlansTry_Examples(t *testing.T) {
	const dir = "../../examples/plans"
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	require.NoError(t, err)
	files, err := filepath.Glob(filepath.Join(dir, "*.cases.yaml"))
	require.NoError(t, err)
	require.Len(t, files, 10)
	for _, cases := range files {
		name := strings.TrimSuffix(filepath.Base(cases), ".cases.yaml")
		t.Run(name, func(t *testing.T) {
			out, _ := try(t, exitOK, "plans", "try", filepath.Join(dir, name+".yaml"), "--cases", cases)
			assert.GreaterOrEqual(t, strings.Count(out, "ok    "+name+": "), 5)
			assert.Contains(t, string(readme), "["+name+"]("+name+".yaml)")
		})
	}
}

func TestPlans_SeveralLimits(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	family := `
limit: 4
require: [device.id]
limits:
- {name: tv, where: {device.type: [tv, stb, ""]}, limit: 1, onLimit: replace-oldest, message: Only one TV}
- {name: kids, where: {labels.kids: {not: ["", "no"]}}, count: devices, per: profile, limit: 2}
`
	file := "--file=" + fileWith(t, "family.yaml", family)
	out, _ := c.run(exitOK, "plans", "set", "family", file, "--dry-run")
	assert.Equal(t, `+ plan family: limit 4, further limits tv 1, kids 2
  warning: plan family: limit tv depends on device.type, which the player reports
  warning: plan family: limit kids depends on profile and device.id, which the player reports
`, out)
	c.run(exitNotFound, "plans", "show", "family")
	c.run(exitUsage, "plans", "set", "family", file)
	out, _ = c.run(exitOK, "plans", "set", "family", file, "--yes")
	assert.Contains(t, out, "applied 1 changes")
	out, _ = c.run(exitOK, "plans", "show", "family")
	assert.Equal(t, `plan family: limit 4
  limit tv: 1 stream where device.type is tv, stb or missing, starts may request replace-oldest; message "Only one TV"
  limit kids: 2 devices for each profile where labels.kids is not missing or no
  starts must state device.id
  depends on device.id, device.type, profile, labels.kids
  warning: limit tv depends on device.type, which the player reports
  warning: limit kids depends on profile and device.id, which the player reports
`, out)
	changed := strings.NewReplacer("limit: 4", "limit: 5", "limit: 1", "limit: 2", "name: kids", "name: children").Replace(family)
	out, _ = c.run(exitOK, "plans", "set", "family", "--file="+fileWith(t, "family.json", changed), "--dry-run")
	assert.Equal(t, `~ plan family: limit 4 -> limit 5
~ plan family: limit tv 1 -> 2
~ plan family: + limit children
~ plan family: - limit kids
  warning: plan family: limit tv depends on device.type, which the player reports
  warning: plan family: limit children depends on profile and device.id, which the player reports
`, out)
	for _, args := range [][]string{
		{"plans", "set", "family", file, "--limit=1"}, {"limits", "set", "maya", file},
		{"plans", "set", "family", "--file=" + fileWith(t, "empty.yaml", "{}")},
		{"plans", "set", "family", "--file=" + fileWith(t, "typo.yaml", "limitt: 1")},
	} {
		c.run(exitUsage, args...)
	}

	c.run(exitOK, "limits", "set", "maya", "--plan=family")
	out, _ = c.run(exitOK, "plans", "explain", "maya")
	assert.Regexp(t, `(?m)^user maya: plan family, set for the user$`, out)
	assert.Regexp(t, `(?m)^kids +each profile +0 +2 +2 +counts devices$`, out)
	c.run(exitOK, "start", "maya", "--device-id=a", "--device-type=tv", "--profile=ada", "--label=kids=yes")
	out, _ = c.run(exitOK, "plans", "explain", "maya")
	assert.Regexp(t, `(?m)^total +- +1 +4 +3 +-$`, out)
	assert.Regexp(t, `(?m)^tv +- +1 +1 +0 +-$`, out)
	assert.Regexp(t, `(?m)^kids +profile ada +1 +2 +1 +counts devices$`, out)
	var x apitype.Explanation
	c.json(exitOK, &x, "plans", "explain", "tom")
	assert.Equal(t, []any{"default", "configuration", 1}, []any{x.Plan, x.From, len(x.Limits)})
}
