package main

import (
	"os"
	"path/filepath"
	"testing"

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
		"plans: {p: {limt: 1}}":                 "unknown field",
		"plans: {p: {}}":                        `plan "p" has no limit`,
		"plans: {p: {limit: 1}, p: {limit: 2}}": "already",
		"users: {maya: {}}":                     "either a limit or a plan",
		"users: {maya: {limit: 1, plan: p}}":    "either a limit or a plan",
		"people: {}":                            "unknown field",
		"[":                                     "want maps of plans and users",
		"plans: {p: {limit: 99}}":               "limit",
		"users: {maya: {plan: nowhere}}":        "plan",
	} {
		_, errOut := c.run(exitUsage, "limits", "set", file(content), "--yes")
		assert.Contains(t, errOut, want, content)
	}
	c.run(exitUsage, "limits", "set", "--file=/none")
	c.run(exitUsage, "limits", "set", "maya", set)
}
