package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"streamcount/cluster/internal/datadir"
)

// TestStartEmbedded_DamagedData damages every file that matters. Each error is one line that names the directory and the remedy, and the data remains unchanged.
func TestStartEmbedded_DamagedData(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(db, log string) error{
		"log-truncated":      func(_, log string) error { return os.Truncate(log, 4096) },
		"log-half":           func(_, log string) error { return os.Truncate(log, 60_000) },
		"log-empty":          func(_, log string) error { return os.Truncate(log, 0) },
		"log-removed":        func(_, log string) error { return os.RemoveAll(filepath.Dir(log)) },
		"log-overwritten":    func(_, log string) error { return overwrite(log, 8192) },
		"database-truncated": func(db, _ string) error { return os.Truncate(db, 5000) },
		"database-garbage":   func(db, _ string) error { return overwrite(db, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db, log := writeData(t, dir)
			require.NoError(t, damage(db, log))
			before := files(t, dir)
			_, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir})
			require.ErrorContains(t, err, dir)
			require.ErrorContains(t, err, "restore a backup")
			assert.NotContains(t, err.Error(), "\n")
			assert.Subset(t, files(t, dir), before, "nothing is deleted")
		})
	}
}

func TestStartEmbedded_DatabaseIsRebuiltFromTheLog(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(db string) error{
		"gone":  os.Remove,
		"empty": func(db string) error { return os.Truncate(db, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			db, _ := writeData(t, dir)
			require.NoError(t, damage(db))
			e := startEmbedded(t, dir)
			assert.Equal(t, "v", get(t, dial(t, e.ClientConfig()), "k199"))
		})
	}
}

// etcd creates the database before the log. A first start that is killed in
// between must not need an operator.
func TestStartEmbedded_KilledDuringItsFirstStart(t *testing.T) {
	t.Parallel()
	for name, create := range map[string]func(path string) error{
		"empty-file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"no-entries": func(path string) error {
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				return err
			}
			return db.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.MkdirAll(filepath.Join(dir, "member", "snap"), 0o700))
			require.NoError(t, create(filepath.Join(dir, "member", "snap", "db")))
			startEmbedded(t, dir)
		})
	}
}

// writeData leaves 200 keys k000 to k199 in dir.
func writeData(t *testing.T, dir string) (db, log string) {
	t.Helper()
	e := startEmbedded(t, dir)
	c := dial(t, e.ClientConfig())
	for i := range 200 {
		put(t, c, fmt.Sprintf("k%03d", i), "v")
		put(t, c, "pad", string(make([]byte, 1000)))
	}
	require.NoError(t, c.Close())
	require.NoError(t, e.Close())
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	require.NoError(t, err)
	require.Len(t, logs, 1)
	return filepath.Join(dir, "member", "snap", "db"), logs[0]
}

// overwrite damages two places, since one may be a spare copy.
func overwrite(path string, offset int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	garbage := []byte("this is not what etcd wrote here, not at all")
	_, err1 := f.WriteAt(garbage, offset)
	_, err2 := f.WriteAt(garbage, offset+4096)
	return errors.Join(err1, err2, f.Close())
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var paths []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			paths = append(paths, path)
		}
		return err
	}))
	return paths
}

func TestStartEmbedded_WarnsOfAnOpenDirectory(t *testing.T) {
	for mode, warned := range map[os.FileMode]bool{0o700: false, 0o750: false, 0o755: true, 0o777: true, 0o711: true} {
		dir := t.TempDir()
		require.NoError(t, os.Chmod(dir, mode))
		core, lines := observer.New(zap.WarnLevel)
		datadir.WarnIfAccessible(dir, zap.New(core))
		assert.Equal(t, warned, lines.Len() == 1, mode)
	}
}
