// Package etcdtest gives tests real etcd: one shared server per test process,
// servers and clusters of their own that can be stopped and started again, and
// gRPC interceptors that lose requests and replies. Only tests import it.
//
// Nothing here keeps data safe: servers run without fsync and with short
// election timeouts.
package etcdtest

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// process is what all tests of one process share. It is global because a
// server per test would cost more than the tests themselves.
var process struct {
	mu     sync.Mutex
	inMain bool
	dir    string
	member *Member

	prefixes atomic.Int64
}

// Main runs the tests of a package and then stops the shared server and
// removes its data. A package whose tests call [Client] or [Endpoints] needs
//
//	func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }
func Main(m *testing.M) int {
	process.mu.Lock()
	process.inMain = true
	process.mu.Unlock()
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdtest:", err)
		return max(code, 1)
	}
	return code
}

// Client returns a new client of the shared server, which is started on first
// use. The client is closed when the test ends.
func Client(tb testing.TB) *clientv3.Client {
	tb.Helper()
	return FaultyClient(tb, Endpoints(tb), nil)
}

// Endpoints returns the shared server's client address, starting it if needed.
func Endpoints(tb testing.TB) []string {
	tb.Helper()
	m, err := shared()
	require.NoError(tb, err, "start the shared etcd")
	return []string{m.Endpoint()}
}

// Prefix returns a key prefix that no other call in this process returns.
func Prefix(tb testing.TB) string {
	tb.Helper()
	name := regexp.MustCompile(`[^A-Za-z0-9_-]+`).ReplaceAllString(tb.Name(), "-")
	return fmt.Sprintf("/test/%s/%d", name, process.prefixes.Add(1))
}

func shared() (*Member, error) {
	process.mu.Lock()
	defer process.mu.Unlock()
	if !process.inMain {
		return nil, errors.New("nobody would stop it: add to this package's tests " +
			"func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }")
	}
	if process.member != nil {
		return process.member, nil
	}
	dir, err := os.MkdirTemp("", "etcdtest")
	if err != nil {
		return nil, err
	}
	m := &Member{cfg: Config{Dir: dir}.withDefaults(), name: "shared"}
	if err := m.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	process.dir, process.member = dir, m
	return m, nil
}

func stopShared() error {
	process.mu.Lock()
	defer process.mu.Unlock()
	if process.member == nil {
		return nil
	}
	process.member.Stop()
	process.member = nil
	return os.RemoveAll(process.dir)
}
