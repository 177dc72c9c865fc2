package datadir

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.uber.org/zap"
)

// Lock creates the data directory if it does not exist, and locks it for this process. etcd
// has its own locks, but waits for them without a message.
func Lock(dir string) (*fileutil.LockedFile, error) {
	if dir == "" {
		return nil, errors.New("no data directory given: name one for the embedded etcd")
	}
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		return nil, fmt.Errorf("data directory %s is a file: choose another data directory", dir)
	}
	if err := os.MkdirAll(dir, fileutil.PrivateDirMode); err != nil {
		return nil, notWritable(dir, err)
	}
	if err := fileutil.IsDirWriteable(dir); err != nil {
		return nil, notWritable(dir, err)
	}
	path := filepath.Join(dir, "lock")
	lock, err := fileutil.TryLockFile(path, os.O_WRONLY|os.O_CREATE, fileutil.PrivateFileMode)
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("data directory %s is used by another process: "+
			"stop that process or choose another data directory", dir)
	}
	if err != nil {
		return nil, notWritable(dir, err)
	}
	return lock, nil
}

// WarnIfAccessible logs a warning if every user of this machine may enter the data directory. It does
// not change the mode, because the directory may have files of other programs.
func WarnIfAccessible(dir string, log *zap.Logger) {
	info, err := os.Stat(dir)
	if err == nil && log != nil && info.Mode().Perm()&0o005 != 0 && runtime.GOOS != "windows" { // which has no such modes
		log.Warn("every user of this machine can read the data directory: remove that permission, for example with chmod 700",
			zap.String("dir", dir), zap.Stringer("mode", info.Mode()))
	}
}

func notWritable(dir string, err error) error {
	return fmt.Errorf("data directory %s is not writable: give this user write permission "+
		"or choose another data directory: %w", dir, err)
}

// UnreadableError returns the error of a directory whose data etcd cannot use.
func UnreadableError(dir string, err error) error {
	return fmt.Errorf("data directory %s: etcd cannot use the data in it: %w: restore a backup, "+
		"or move the directory away to start without data; nothing was deleted", dir, err)
}

// Check returns an error for a database that cannot be opened, because etcd would panic in
// another goroutine, and for a write-ahead log that ends before the database: a part of it was
// lost, and etcd would never become ready, without a message.
func Check(dir string) error {
	db, logs := datadir.ToBackendFileName(dir), datadir.ToWALDir(dir)
	info, err := os.Stat(db)
	if err != nil || info.Size() == 0 {
		return nil // etcd was killed while it created it, or fills it from the log
	}
	applied, err := appliedIndex(db)
	if err != nil {
		return fmt.Errorf("read %s: %w", db, err)
	}
	if applied == 0 {
		return nil
	}
	if !wal.Exist(logs) {
		return fmt.Errorf("%s is there, but its write-ahead log %s is missing", db, logs)
	}
	last, err := lastIndex(logs)
	if err != nil {
		return fmt.Errorf("read %s: %w", logs, err)
	}
	if last < applied {
		return fmt.Errorf("the write-ahead log %s is truncated: it ends at entry %d, "+
			"the database at entry %d", logs, last, applied)
	}
	return nil
}

// appliedIndex returns the number of the last log entry that is in the
// database, 0 if there is none.
func appliedIndex(path string) (uint64, error) {
	opts := bbolt.Options{ReadOnly: true, Timeout: time.Second}
	db, err := bbolt.Open(path, fileutil.PrivateFileMode, &opts)
	if errors.Is(err, bolterrors.ErrTimeout) {
		return 0, errors.New("another process has it open")
	}
	if err != nil {
		return 0, err
	}
	var index uint64
	err = db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket([]byte("meta"))
		if meta == nil {
			return nil // etcd was killed while it created the database
		}
		if v := meta.Get([]byte("consistent_index")); len(v) == 8 {
			index = binary.BigEndian.Uint64(v)
		}
		return nil
	})
	return index, errors.Join(err, db.Close())
}

// lastIndex returns the number of the last entry that can be read from the
// write-ahead log. A torn last record is normal after a crash.
func lastIndex(dir string) (uint64, error) {
	log := zap.NewNop()
	snaps, err := wal.ValidSnapshotEntries(log, dir)
	if err != nil {
		return 0, err
	}
	start := &walpb.Snapshot{}
	if len(snaps) > 0 {
		start = snaps[len(snaps)-1]
	}
	w, err := wal.OpenForRead(log, dir, start)
	if err != nil {
		return 0, err
	}
	defer func() { _ = w.Close() }() // in read mode its error is only that there is no directory to sync
	_, _, entries, err := w.ReadAll()
	if err != nil {
		return 0, err
	}
	if len(entries) == 0 {
		return start.GetIndex(), nil
	}
	return entries[len(entries)-1].GetIndex(), nil
}
