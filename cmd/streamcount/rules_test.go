package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

func TestRules_SingleChanges(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	out, _ := c.run(exitOK, "plans", "set", "family", "--limit=2", "--on-limit=replace-oldest", "--count=content")
	assert.Equal(t, "plan family: limit 2, starts may request replace-oldest, counts content\n", out)
	out, _ = c.run(exitOK, "plans", "ls")
	assert.Regexp(t, `(?m)^family +2 +replace-oldest +content +-$`, out)
	_, errOut := c.run(exitNotFound, "limits", "get", "maya")
	assert.Contains(t, errOut, "the effective limit is 3")
	out, _ = c.run(exitOK, "limits", "set", "maya", "--plan=family")
	assert.Equal(t, "user maya: plan family\n", out)
	out, _ = c.run(exitOK, "limits", "set", "maya", "--limit=1")
	assert.Equal(t, "user maya: limit 1\n", out)
	c.run(exitOK, "start", "maya")
	_, errOut = c.run(exitLimit, "start", "maya")
	assert.Contains(t, errOut, "1 of 1 streams")
	out, _ = c.run(exitOK, "limits", "rm", "maya")
	assert.Equal(t, "removed from user maya: limit 1\n", out)
	c.run(exitOK, "start", "maya")
	var p apitype.Plan
	c.json(exitOK, &p, "plans", "get", "family")
	assert.Equal(t, 2, *p.Limit)
	out, _ = c.run(exitOK, "plans", "rm", "family")
	assert.Contains(t, out, "removed plan family")
	c.run(exitNotFound, "plans", "rm", "family")
	for _, args := range [][]string{
		{"limits", "set", "maya"}, {"limits", "set", "maya", "--limit=1", "--plan=p"}, {"limits", "set", "--limit=1"},
		{"limits", "set", "maya", "--plan=none"}, {"limits", "set", "maya", "--limit=61"}, {"limits", "set", "a\nb", "--limit=1"},
		{"plans", "set", "p"}, {"plans", "set", "a/b", "--limit=1"}, {"plans", "set", "p", "--limit=1", "--count=sheep"},
		{"plans", "set", "p", "--limit=1", "--file=f"}, {"limits", "get"}, {"plans", "get", "a", "b"},
	} {
		c.run(exitUsage, args...)
	}
}

// An add-on has numbers for limits of the user's plan, and ends.
func TestRules_AddOns(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	path := filepath.Join(t.TempDir(), "rules.yaml")
	until := time.Now().Add(48 * time.Hour).Truncate(time.Second).UTC().Format(time.RFC3339)
	write := func(numbers string) {
		t.Helper()
		require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, `
plans:
  one-tv: {limit: 3, limits: [{name: tv, where: {device.type: tv}, limit: 1}]}
users:
  maya: {plan: one-tv, limits: %s, until: %s}
`, numbers, until), 0o600))
	}
	write("{tv: 2}")
	out, _ := c.run(exitOK, "limits", "set", "--file="+path, "--yes")
	assert.Contains(t, out, "+ user maya: plan one-tv, limits tv=2, until "+until+"\n")
	for range 2 {
		c.run(exitOK, "start", "maya", "--device-type=tv")
	}
	c.run(exitLimit, "start", "maya", "--device-type=tv")
	c.run(exitOK, "limits", "set", "tom", "--plan=one-tv")
	c.run(exitOK, "start", "tom", "--device-type=tv")
	c.run(exitLimit, "start", "tom", "--device-type=tv")

	write("{tv: 0, kids: 1}")
	out, _ = c.run(exitOK, "limits", "set", "--file="+path, "--dry-run")
	assert.Equal(t, "~ user maya: plan one-tv, limits tv=2, until "+until+" -> plan one-tv, limits kids=1,tv=0, until "+until+"\n", out)
	out, _ = c.run(exitOK, "limits", "get", "maya")
	assert.Equal(t, "user maya: plan one-tv, limits tv=2, until "+until+"\n", out)
	var got apitype.UserLimit
	c.json(exitOK, &got, "limits", "set", "maya", "--limit=4", "--limits=tv=3,kids=1", "--until="+until)
	assert.Equal(t, apitype.Numbers{"tv": 3, "kids": 1}, got.Limits)
	assert.Equal(t, until, got.Until.UTC().Format(time.RFC3339))
	out, _ = c.run(exitOK, "limits", "set", "maya", "--limits=tv=2")
	assert.Equal(t, "user maya: limits tv=2\n", out)
	for _, args := range [][]string{
		{"--until=" + until}, {"--limits=tv"}, {"--limits=tv=x"}, {"--limits=tv=61"}, {"--limits=total=2"}, {"--limit=1", "--until=2027-01-31"},
		{"--limit=1", "--until=2020-01-31T00:00:00Z"}, {"--limits=tv=2", "--file=" + path},
	} {
		c.run(exitUsage, append([]string{"limits", "set", "maya"}, args...)...)
	}
}

func TestRules_File(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	dir := t.TempDir()
	file := func(content string) string {
		path := filepath.Join(dir, "rules.yaml")
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return "--file=" + path
	}
	c.run(exitOK, "plans", "set", "old", "--limit=9")
	c.run(exitOK, "limits", "set", "tom", "--limit=3")
	c.run(exitOK, "limits", "set", "ida", "--limit=3")
	set := file(`
plans:
  family: {limit: 5, onLimit: replace-oldest}
  old: null
users:
  maya: {plan: family}
  tom: {limit: 1}
  ida: null
`)
	diff := `+ plan family: limit 5, starts may request replace-oldest
- plan old: limit 9
- user ida: limit 3
+ user maya: plan family
~ user tom: limit 3 -> limit 1
`
	out, _ := c.run(exitOK, "limits", "set", set, "--dry-run")
	assert.Equal(t, diff, out)
	c.run(exitNotFound, "limits", "get", "maya")
	out, errOut := c.run(exitUsage, "limits", "set", set)
	assert.Equal(t, diff, out)
	assert.Contains(t, errOut, "pass --yes")
	out, _ = c.run(exitOK, "plans", "set", set, "--yes")
	assert.Contains(t, out, diff)
	assert.Contains(t, out, "applied 5 changes at revision")
	out, _ = c.run(exitOK, "limits", "get", "maya")
	assert.Equal(t, "user maya: plan family\n", out)
	out, _ = c.run(exitOK, "limits", "set", set, "--yes")
	assert.Equal(t, "no differences\n", out)
	var changes apitype.RuleChanges
	c.json(exitOK, &changes, "limits", "set", file("users: {maya: {limit: 7}}"), "--yes")
	assert.True(t, changes.Applied)
	assert.Equal(t, 7, *changes.Users[0].New.Limit)

	for content, want := range map[string]string{
		"plans: {p: {limt: 1}}":                                  "unknown field",
		"plans: {p: {}}":                                         `plan "p" has no limit`,
		"plans: {p: {limit: 1}, p: {limit: 2}}":                  "already",
		"users: {maya: {}}":                                      "a limit or a plan, or limits by name",
		"users: {maya: {limits: {total: 2}}}":                    "body.users.maya.limits.total",
		"users: {maya: {limits: {tv: two}}}":                     "limits",
		"users: {maya: {limit: 1, until: 2027}}":                 "want maps of plans and users",
		"users: {maya: {limit: 1, until: 2020-01-31T00:00:00Z}}": "body.users.maya.until",
		"users: {maya: {limit: 1, plan: p}}":                     "either a limit or a plan",
		"people: {}":                                             "unknown field",
		"[":                                                      "want maps of plans and users",
		"plans: {p: {limit: 99}}":                                "limit",
		"users: {maya: {plan: nowhere}}":                         "plan",
	} {
		_, errOut := c.run(exitUsage, "limits", "set", file(content), "--yes")
		assert.Contains(t, errOut, want, content)
	}
	c.run(exitUsage, "limits", "set", "--file=/none")
	c.run(exitUsage, "limits", "set", "maya", set)
}
