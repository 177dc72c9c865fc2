package config

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A config file is accepted or rejected with an Error.
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
		fs := c.Flags()
		require.NoError(t, fs.Parse([]string{"--config=" + path}))
		if err := c.Load(fs, nil); err != nil {
			require.ErrorAs(t, err, new(Error))
		}
	})
}
