package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file of rules is accepted or rejected with a usage error.
func FuzzRuleFile(f *testing.F) {
	for _, seed := range []string{
		"plans:\n  family: {limit: 4, count: devices}\n  old: null\nusers:\n  maya: {limit: 5}\n  ben: {plan: family}\n",
		"users: {a: {limit: 1, plan: b}}", "plans: []", "users: {a: }", "{}", "",
	} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "rules.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		set, err := readRuleFile(path, nil)
		if err != nil {
			require.True(t, isUsage(err), "%v", err)
			return
		}
		for user, l := range set.Users {
			require.True(t, (l.Limit == nil) != (l.Plan == ""), "%q", user)
		}
	})
}
