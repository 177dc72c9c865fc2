package etcdtest

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A BackedUpMember is a member that can be restored from a backup of itself.
type BackedUpMember struct {
	*Member
	Conn        *clientv3.Client
	dir, backup string
}

// StartWithBackup starts a member of a single-member cluster.
func StartWithBackup(t *testing.T) *BackedUpMember {
	t.Helper()
	dir := t.TempDir()
	m := Start(t, Config{Dir: dir})
	return &BackedUpMember{Member: m, Conn: m.Client(t), dir: dir}
}

// Backup restarts the member and keeps a copy of its data.
func (b *BackedUpMember) Backup(t *testing.T) {
	t.Helper()
	b.backup = t.TempDir() + "/backup"
	b.replace(t, b.backup, b.dir)
}

// Restore restarts the member on the copy.
func (b *BackedUpMember) Restore(t *testing.T) {
	t.Helper()
	b.replace(t, b.dir, b.backup)
}

// replace restarts the member after it has replaced a directory by a copy of another.
func (b *BackedUpMember) replace(t *testing.T, old, by string) {
	t.Helper()
	b.Stop()
	require.NoError(t, os.RemoveAll(old))
	require.NoError(t, os.CopyFS(old, os.DirFS(by)))
	b.Restart(t)
	require.Eventually(t, func() bool { // the client has to connect again
		_, err := b.Conn.Get(t.Context(), "x")
		return err == nil
	}, time.Minute, 10*time.Millisecond)
}
