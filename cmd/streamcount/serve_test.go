package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/testlog"
)

// closedPort returns an address of this machine without a listener.
func closedPort(t *testing.T) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, ln.Close())
	return ln.Addr().String()
}

func status(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func TestServe_StartToStop(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	p, c := serve(t, "--data-dir="+dir, "--limit=2")
	assert.Contains(t, p.out.String(), " on embedded etcd in "+dir+" (limit 2, ttl 90s)\n")
	assert.Equal(t, 1, strings.Count(p.out.String(), "\n"))
	code, _ := status(t, c.server+"/readyz")
	assert.Equal(t, 200, code)

	var first, second apitype.User
	c.json(exitOK, &first, "start", "maya", "--device-name=TV\x1b[2J", "--content-title=Metropolis")
	require.NotNil(t, first.Stream)
	out, _ := c.run(exitOK, "start", "maya", "--session=tab")
	assert.Contains(t, out, "maya now has 2 of 2 streams")

	out, stderr := c.run(exitLimit, "start", "maya")
	assert.Contains(t, stderr, "limit reached: 2 of 2 streams are active")
	assert.Contains(t, stderr, "first one could expire in")
	assert.Contains(t, out, first.Stream.ID)
	assert.Contains(t, out, `TV [2J`)
	var refusal apitype.Problem
	c.json(exitLimit, &refusal, "start", "maya")
	assert.Equal(t, 2, *refusal.Limit)
	assert.Len(t, refusal.Active, 2)

	c.json(exitOK, &second, "start", "maya", "--session=tab") // takes over its own slot
	assert.Equal(t, 2, second.Streams)
	out, _ = c.run(exitOK, "heartbeat", "maya", first.Stream.ID)
	assert.Regexp(t, `alive: expires in 1m([789]|[12]\d|30)s`, out, "at least three quarters of the TTL remain")
	out, _ = c.run(exitOK, "ls", "maya")
	assert.Contains(t, out, "maya has 2 of 2 streams\n")
	assert.Contains(t, out, "Metropolis")
	assert.NotContains(t, out, "\x1b")
	out, _ = c.run(exitOK, "ls")
	assert.Regexp(t, `(?m)^streams +2$`, out)
	assert.Regexp(t, `(?m)^users at the limit +1$`, out)

	out, _ = c.run(exitOK, "stop", "maya", first.Stream.ID)
	assert.Contains(t, out, "maya now has 1 of 2 streams")
	_, stderr = c.run(exitNotFound, "heartbeat", "maya", first.Stream.ID)
	assert.Contains(t, stderr, "the stream has ended: stopped")
	c.run(exitNotFound, "heartbeat", "eve", second.Stream.ID) // the stream of another user
	c.run(exitOK, "stop", "maya")
	c.run(exitNotFound, "stop", "maya")
	c.run(exitNotFound, "ls", "maya")
	c.run(exitOK, "start", "maya")
	c.run(exitOK, "stop", "maya", "--all")
	c.run(exitNotFound, "stop", "maya", "--all")
	c.run(exitUsage, "start", "maya", "--session="+strings.Repeat("x", 201))

	assert.Equal(t, exitOK, p.interrupt(t))
	assert.NotContains(t, p.errOut.String(), "ERROR")
	_, stderr = c.run(exitError, "ls")
	assert.Contains(t, stderr, "connection refused by")
}

func TestServe_StreamsSurviveRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p, c := serve(t, "--data-dir="+dir)
	var u apitype.User
	c.json(exitOK, &u, "start", "maya")
	require.Equal(t, exitOK, p.interrupt(t))
	_, c = serve(t, "--data-dir="+dir)
	c.run(exitOK, "heartbeat", "maya", u.Stream.ID)
}

func TestHeartbeat_EveryUntilInterrupted(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir(), "--ttl=5s")
	var u apitype.User
	c.json(exitOK, &u, "start", "maya")
	p := launch(t, c.environ, "heartbeat", "maya", u.Stream.ID, "--every", "500ms")
	p.awaitOut(t, "keeping the stream alive with a heartbeat every 500ms; press Ctrl-C to stop it")
	began := time.Now()
	require.Eventually(t, func() bool { // longer than the TTL
		c.run(exitOK, "ls", "maya")
		return time.Since(began) > 7*time.Second
	}, time.Minute, 500*time.Millisecond)
	assert.Equal(t, exitOK, p.interrupt(t))
	assert.Contains(t, p.out.String(), "stopped\n")
	c.run(exitNotFound, "ls", "maya")
}

func TestHeartbeat_EveryPrintsEndReason(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir(), "--ttl=5s")
	var u apitype.User
	c.json(exitOK, &u, "start", "maya")
	p := launch(t, c.environ, "heartbeat", "maya", u.Stream.ID, "--every")
	p.awaitOut(t, "a heartbeat every 1s")
	c.run(exitOK, "stop", "maya", "--all")
	assert.Equal(t, exitNotFound, p.end(t))
	assert.Contains(t, p.errOut.String(), "streamcount: the stream has ended: removed")
}

func TestServe_PortInUse(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	dir := filepath.Join(t.TempDir(), "data")
	_, stderr := cli{t: t}.run(exitError, "serve", "--data-dir="+dir, "--listen="+ln.Addr().String())
	assert.Contains(t, stderr, "cannot listen on "+ln.Addr().String()+" (from the command line)")
	assert.Contains(t, stderr, "address already in use")
	assert.NoDirExists(t, dir, "etcd must not have been started")
}

func TestServe_DataDirInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve(t, "--data-dir="+dir)
	stderr := lastErrorLine(t, "serve", "--listen=127.0.0.1:0", "--data-dir="+dir)
	assert.Contains(t, stderr, dir+" is used by another process")
}

// lastErrorLine returns the last line that a command logs before it fails.
func lastErrorLine(t *testing.T, args ...string) string {
	t.Helper()
	p := launch(t, nil, args...)
	require.Equal(t, exitError, p.end(t))
	lines := strings.Split(strings.TrimSpace(p.errOut.String()), "\n")
	last := lines[len(lines)-1]
	assert.True(t, strings.HasPrefix(last, "streamcount: "), last)
	return last
}

func TestServe_WithoutEtcd(t *testing.T) {
	t.Parallel()
	address := closedPort(t)
	p := launch(t, nil, "serve", "--listen="+address, "--etcd-endpoints="+closedPort(t))
	var code int
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + address + "/healthz") //nolint:noctx // bounded by Eventually
		if err != nil {
			return false
		}
		code = resp.StatusCode
		return resp.Body.Close() == nil
	}, time.Minute, 10*time.Millisecond)
	assert.Equal(t, 200, code)
	code, body := status(t, "http://"+address+"/readyz")
	assert.Equal(t, 503, code)
	assert.Contains(t, body, "etcd has not been reached")
	_, stderr := cli{t: t}.run(exitError, "start", "maya", "--server=http://"+address)
	assert.Contains(t, stderr, "503")
	require.Eventually(t, func() bool { return strings.Contains(p.errOut.String(), "cannot connect to etcd") },
		time.Minute, 10*time.Millisecond, "the log says that it keeps trying")
	assert.Empty(t, p.out.String(), "not ready")
	assert.Equal(t, exitOK, p.interrupt(t))
}

// A configuration error that retries cannot fix ends the node.
func TestServe_WrongPasswordFile(t *testing.T) {
	stderr := lastErrorLine(t, "serve", "--listen=127.0.0.1:0", "--etcd-endpoints="+closedPort(t),
		"--etcd-user=root", "--etcd-password-file=/does/not/exist")
	assert.Contains(t, stderr, "etcd password file: open /does/not/exist")
}

func TestServe_TwoNodesOnOneEtcd(t *testing.T) {
	etcd := "--etcd-endpoints=" + strings.Join(etcdtest.Endpoints(t), ",")
	prefix := "--etcd-prefix=" + etcdtest.Prefix(t)
	east, c := serve(t, etcd, prefix, "--limit=1", "--region=east", "--log-format=json")
	_, d := serve(t, etcd, prefix, "--limit=1", "--region=west")
	assert.Contains(t, east.out.String(), " on etcd at ")
	var u apitype.User
	c.json(exitOK, &u, "start", "maya")
	d.run(exitLimit, "start", "maya")
	d.run(exitOK, "heartbeat", "maya", u.Stream.ID)
	require.Equal(t, exitOK, east.interrupt(t))
	d.run(exitOK, "stop", "maya", u.Stream.ID)
	d.run(exitOK, "start", "maya")
	var stats apitype.Stats
	d.json(exitOK, &stats, "ls")
	assert.Equal(t, "west", stats.Node.Region)
	require.Len(t, stats.Shards, 1)
	assert.Equal(t, 1, stats.Shards[0].Members)
	assert.NotEmpty(t, stats.Leader)
}

func TestServe_Demo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var id string
	for range 2 { // the second time with the data of the first
		left := id
		p, c := serve(t, "--data-dir="+dir, "--demo", "--limit=2", "--ttl=10s")
		require.Eventually(t, func() bool {
			var out strings.Builder
			return run(t.Context(), []string{"ls", "1"}, c.environ, &out, io.Discard) == exitOK
		}, time.Minute, 20*time.Millisecond)
		require.Eventually(t, func() bool {
			var one apitype.User
			c.json(exitOK, &one, "ls", "1")
			require.Equal(t, 1, one.Streams)
			require.Equal(t, "demo-user-1", one.Active[0].Session)
			id = one.Active[0].ID
			var stats apitype.Stats
			c.json(exitOK, &stats, "ls")
			return stats.Users > 2 && id != left
		}, time.Minute, 100*time.Millisecond)

		c.run(exitOK, "stop", "1", id)
		require.Eventually(t, func() bool {
			var out strings.Builder
			if run(t.Context(), []string{"ls", "1", "--json"}, c.environ, &out, io.Discard) != exitOK {
				return false
			}
			var one apitype.User
			require.NoError(t, json.Unmarshal([]byte(out.String()), &one))
			id = one.Active[0].ID
			return one.Streams == 1
		}, time.Minute, 100*time.Millisecond, "user 1 comes back after the next heartbeat")
		require.Equal(t, exitOK, p.interrupt(t))
	}
}

// process runs the program in a separate process.
func process(t *testing.T, args ...string) (cmd *exec.Cmd, stdout, stderr *testlog.Buffer) {
	t.Helper()
	cmd = exec.CommandContext(context.WithoutCancel(t.Context()), os.Args[0], args...)
	cmd.Env = []string{asMain + "=1", "PATH=" + os.Getenv("PATH")}
	var out, errOut testlog.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended unless the test failed
		if t.Failed() {
			t.Logf("stdout:\n%s\nstderr:\n%s", &out, &errOut)
		}
	})
	return cmd, &out, &errOut
}

// servingProcess returns a process that is ready, and its address.
func servingProcess(t *testing.T, args ...string) (*exec.Cmd, string) {
	t.Helper()
	cmd, out, _ := process(t, append([]string{"serve", "--listen=127.0.0.1:0"}, args...)...)
	require.Eventually(t, func() bool { return servingAt.MatchString(out.String()) },
		time.Minute, 10*time.Millisecond)
	return cmd, servingAt.FindStringSubmatch(out.String())[1]
}

func wait(t *testing.T, cmd *exec.Cmd, atMost time.Duration) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the test checks its state instead
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(atMost):
		require.Fail(t, "still running")
	}
}

func TestServe_Signals(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd, _ := servingProcess(t, "--data-dir="+t.TempDir())
			require.NoError(t, cmd.Process.Signal(sig))
			wait(t, cmd, 20*time.Second)
			assert.Equal(t, 0, cmd.ProcessState.ExitCode())
		})
	}
}

// A signal during the start is not an error.
func TestServe_SignalWhileStarting(t *testing.T) {
	cmd, _, stderr := process(t, "serve", "--listen=127.0.0.1:0", "--data-dir="+t.TempDir())
	require.Eventually(t, func() bool { return strings.Contains(stderr.String(), "listening") },
		time.Minute, time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	wait(t, cmd, 20*time.Second)
	assert.Equal(t, 0, cmd.ProcessState.ExitCode())
}

// The first signal drains the node; the second ends it at once.
func TestServe_SecondSignal(t *testing.T) {
	t.Parallel()
	cmd, url := servingProcess(t, "--data-dir="+t.TempDir(), "--drain=60s")
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	require.NoError(t, err)
	defer conn.Close()
	// A request whose body has not arrived keeps the server draining. The response 100 shows
	// that the server waits for the body.
	_, err = io.WriteString(conn, "POST /api/v1/streams/users/maya/start HTTP/1.1\r\nHost: localhost\r\n"+
		"Content-Type: application/json\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	answer, err := bufio.NewReader(conn).ReadString('\n')
	require.NoError(t, err)
	require.Contains(t, answer, "100 Continue")
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.Eventually(t, func() bool { // it accepts no new connections
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		return err != nil || c.Close() != nil
	}, time.Minute, 5*time.Millisecond)
	ended := make(chan struct{})
	defer close(ended)
	go func() { // the first signal may arrive before the process restores the default handler, so it is sent again
		for {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-ended:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	}()
	wait(t, cmd, 5*time.Second)
	state, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	assert.Equal(t, syscall.SIGTERM, state.Signal(), "ended by the signal")
}
