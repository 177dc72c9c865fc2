// Package etcdtest runs real etcd servers for tests: one shared server per test process,
// separate servers and clusters that a test can stop and restart, and gRPC interceptors that
// lose requests and replies. Only tests import it.
//
// The servers run without fsync and with short election timeouts.
package etcdtest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// process has the shared server of the test process. It is global because a server per test
// would take more time than the tests themselves.
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
	runParallel()
	code := m.Run()
	if err := stopShared(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdtest:", err)
		return max(code, 1)
	}
	return code
}

// parallelTests is the minimum number of parallel tests without -parallel. Tests mostly wait
// for etcd and for timers, so it may exceed the number of processors.
const parallelTests = 8

func runParallel() {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if n := strconv.Itoa(max(parallelTests, runtime.GOMAXPROCS(0))); !given {
		_ = flag.Set("test.parallel", n) // it is a number
	}
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
		return nil, errors.New("the server would not be stopped: add to this package's tests " +
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
