package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
)

// socketPath returns the path of the embedded etcd's Unix socket, in a separate directory,
// because other users may have access to the data directory.
func socketPath(dataDir string) string {
	if abs, err := filepath.Abs(dataDir); err == nil {
		dataDir = abs
	}
	return filepath.Join(dataDir, "private", "etcd.sock")
}

// maxSocketPath is the length that every system accepts for the path of a socket.
const maxSocketPath = 103

// listenPrivately listens on a Unix socket whose directory only this user may enter. The
// error is errors.ErrUnsupported on a system where the mode of a directory does not control
// access. The caller holds the lock of the
// data directory, so that a socket that exists belongs to no running process.
func listenPrivately(path string) (net.Listener, error) {
	if runtime.GOOS == "windows" {
		return nil, fmt.Errorf("private socket: %w", errors.ErrUnsupported)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, fileutil.PrivateDirMode); err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, fileutil.PrivateDirMode); err != nil {
		return nil, err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() || info.Mode().Perm() != fileutil.PrivateDirMode {
		return nil, fmt.Errorf("%s is open to other users: its mode is %v, and the file system does not change it", dir, info.Mode())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if len(path) <= maxSocketPath {
		return net.Listen("unix", path)
	}
	return listenAt(dir, filepath.Base(path))
}

// listenAt listens in a directory whose path is too long for a socket. On Linux an open
// directory also has a short name.
func listenAt(dir, name string) (net.Listener, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name))
	if err != nil {
		_ = d.Close() // the other error is more specific
		return nil, fmt.Errorf("the path of the socket is longer than %d bytes: %w", maxSocketPath, err)
	}
	return &listenerAt{l, d}, nil
}

// A listenerAt keeps the directory open, because Close removes the socket by that name.
type listenerAt struct {
	net.Listener
	dir *os.File
}

// Close implements net.Listener.
func (l *listenerAt) Close() error { return errors.Join(l.Listener.Close(), l.dir.Close()) }

// SocketURL returns the endpoint of the embedded etcd on a data directory, for other processes
// of the same user.
func SocketURL(dataDir string) string {
	return (&url.URL{Scheme: unixScheme, Path: socketPath(dataDir)}).String()
}
