package cluster

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"streamcount/cluster/internal/datadir"
	"streamcount/internal/testing/etcdtest"
)

// childDir makes this test binary a process that holds an embedded etcd on
// the directory that it names, until it is killed.
const childDir = "STREAMCOUNT_TEST_CHILD_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	code := etcdtest.Main(m)
	// Stopped members of a cluster close what they had open to each other when
	// it has been idle for 5 s.
	err := goleak.Find()
	for deadline := time.Now().Add(15 * time.Second); err != nil && time.Now().Before(deadline); {
		err = goleak.Find()
	}
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// child prints the endpoint, or the error, as one line.
func child(dir string) int {
	e, err := StartEmbedded(context.Background(), EmbedConfig{DataDir: dir})
	if err != nil {
		fmt.Println("error:", err)
		return 1
	}
	fmt.Println(e.Endpoints()[0])
	select {} // until killed
}

func TestEmbedded_ServesAndStops(t *testing.T) {
	before := goleak.IgnoreCurrent()
	e := startEmbedded(t, t.TempDir())
	c := dial(t, e.ClientConfig())
	put(t, c, "k", "v")
	members, err := c.MemberList(t.Context())
	require.NoError(t, err)
	assert.Equal(t, e.Endpoints(), members.Members[0].ClientURLs)

	watch := c.Watch(t.Context(), "k") // must not hold up Close
	began := time.Now()
	require.NoError(t, e.Close())
	require.NoError(t, e.Close(), "twice")
	assert.Less(t, time.Since(began), soon)
	_, ok := <-e.Err()
	assert.False(t, ok, "Close is no death")
	require.NoError(t, c.Close())
	for range watch { // until closed
	}
	goleak.VerifyNone(t, before)
}

func TestEmbedded_RestartOnTheSameData(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "here")
	for i := range 3 {
		e := startEmbedded(t, dir)
		c := dial(t, e.ClientConfig())
		if i > 0 {
			assert.Equal(t, "v", get(t, c, "k"))
		}
		put(t, c, "k", "v")
		require.NoError(t, c.Close())
		require.NoError(t, e.Close())
	}
	info, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), info.Mode().Perm())
}

func TestEmbedded_SurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kill, endpoint := startChild(t, dir)
	c := dial(t, ClientConfig{Endpoints: []string{endpoint}})
	for i := range 200 { // by the socket, from another process
		put(t, c, fmt.Sprintf("k%03d", i), "v")
	}
	kill()
	e := startEmbedded(t, dir)
	resp, err := dial(t, e.ClientConfig()).
		Get(t.Context(), "k", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	assert.EqualValues(t, 200, resp.Count)
}

func TestEmbedded_SecondProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	kill, _ := startChild(t, dir)
	_, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir})
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "used by another process")
	require.ErrorContains(t, err, "stop that process or choose another")
	kill()
	startEmbedded(t, dir)
}

func TestEmbedded_SecondInThisProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	startEmbedded(t, dir)
	_, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir})
	require.ErrorContains(t, err, "used by another process")
}

func TestEmbedded_BadDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for name, tc := range map[string]struct{ dir, want string }{
		"none":         {"", "no data directory given"},
		"a-file":       {file, "is a file"},
		"below-a-file": {filepath.Join(file, "x"), "not writable"},
		"not-writable": {"/proc", "not writable"}, // for root too
	} {
		t.Run(name, func(t *testing.T) {
			_, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: tc.dir})
			require.ErrorContains(t, err, tc.want)
			require.ErrorContains(t, err, tc.dir)
			assert.NotContains(t, err.Error(), "\n")
		})
	}
}

func TestEmbedded_ContextEndsBeforeReady(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 50 * time.Millisecond} {
		dir := t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), after)
		e, err := StartEmbedded(ctx, EmbedConfig{DataDir: dir})
		cancel()
		if err == nil { // a quick machine
			require.NoError(t, e.Close())
			require.Greater(t, after, time.Millisecond)
			continue
		}
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, dir)
		// Sooner or later the directory is free again.
		require.Eventually(t, func() bool {
			lock, err := datadir.Lock(dir)
			return err == nil && lock.Close() == nil
		}, time.Minute, time.Millisecond)
	}
}

func TestEmbedded_TellsWhenItDies(t *testing.T) {
	t.Parallel()
	e := startEmbedded(t, t.TempDir())
	e.etcd.Server.HardStop()
	select {
	case err := <-e.Err():
		require.ErrorContains(t, err, "embedded etcd")
	case <-time.After(time.Minute):
		t.Fatal("the server's end was not reported")
	}
	require.NoError(t, e.Close())
}

// A new and a restarted etcd log nothing. On a slow machine etcd may log a warning about its
// slowness, so one quiet pair of many is enough.
func TestEmbedded_QuietStart(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	var dir string
	for range 10 {
		logs.TakeAll()
		dir = filepath.Join(t.TempDir(), "data")
		for range 2 {
			e, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir, Log: zap.New(core)})
			require.NoError(t, err)
			require.NoError(t, e.Close())
		}
		if logs.Len() == 0 {
			break
		}
	}
	for _, entry := range logs.All() {
		t.Error(entry.Level, entry.LoggerName, entry.Message, entry.ContextMap())
	}

	require.NoError(t, os.Chmod(dir, 0o755))
	e, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir, Log: zap.New(core)})
	require.NoError(t, err)
	require.NoError(t, e.Close())
	assert.NotEmpty(t, logs.FilterMessage("check file permission").All(), "real warnings get through")
}

func TestEmbedded_QuotaRaisesNoSpace(t *testing.T) {
	t.Parallel()
	e, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: t.TempDir(), QuotaBytes: 1 << 20})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	c := dial(t, e.ClientConfig())
	require.NoError(t, Ready(t.Context(), c, "/p"))
	fill(t, c)
	err = Ready(t.Context(), c, "/p")
	require.ErrorContains(t, err, "full")
}

// fill writes until etcd says that it is full.
func fill(t *testing.T, c *clientv3.Client) {
	t.Helper()
	value := strings.Repeat("x", 512<<10)
	require.Eventually(t, func() bool {
		_, err := c.Put(t.Context(), "big", value)
		return err != nil && strings.Contains(err.Error(), "space")
	}, time.Minute, time.Millisecond)
}

func startEmbedded(t *testing.T, dir string) *Embedded {
	t.Helper()
	e, err := StartEmbedded(t.Context(), EmbedConfig{DataDir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, e.Close()) })
	return e
}

// startChild runs an embedded etcd in a child process. The process is
// killed, with no chance to tidy up, by kill or when the test ends.
func startChild(t *testing.T, dir string) (kill func(), endpoint string) {
	t.Helper()
	cmd := exec.Command(os.Args[0]) // not bound to t.Context: kill ends it
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	killed := false
	kill = func() {
		if !killed {
			killed = true
			assert.NoError(t, cmd.Process.Kill())
			assert.Error(t, cmd.Wait())
		}
	}
	t.Cleanup(kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Regexp(t, "^unix:///", line)
	return kill, strings.TrimSpace(line)
}

func dial(t *testing.T, cfg ClientConfig) *clientv3.Client {
	t.Helper()
	c, err := Dial(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // the test may have closed it before
	return c
}

func put(t *testing.T, c *clientv3.Client, key, value string) {
	t.Helper()
	_, err := c.Put(t.Context(), key, value)
	require.NoError(t, err)
}

func get(t *testing.T, c *clientv3.Client, key string) string {
	t.Helper()
	resp, err := c.Get(t.Context(), key)
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1, "key %s", key)
	return string(resp.Kvs[0].Value)
}
