package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A configuration file is obeyed or refused, as the user's mistake and in words.
func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{
		"limit: 3\nttl: 90s\n", "listen: 127.0.0.1:0\nauth-none: true", "shard:\n- a=http://a:1\n- b=http://b:1",
		"limit: 1e400", "limit: '3'", "data-dir: [a, b]", "ttl: {a: b}", "a: &a [*a]", "\x00", "etcd-endpoints: http://u:p@h:1",
	} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		require.NoError(t, os.WriteFile(path, text, 0o600))
		var c Config
		fs := c.flags()
		require.NoError(t, fs.Parse([]string{"--config=" + path}))
		if err := c.load(fs, nil); err != nil {
			require.True(t, isUsage(err), "%v", err)
		}
	})
}

// A file of rules is read or refused, as the user's mistake and in words.
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
