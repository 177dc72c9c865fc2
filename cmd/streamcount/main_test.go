package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/testlog"
)

// asMain makes the test binary run the program, for tests that send signals to a process.
const asMain = "RUN_AS_STREAMCOUNT"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
	}
	os.Exit(etcdtest.Main(m))
}

// A proc is one run of the program inside the test process.
type proc struct {
	out, errOut testlog.Buffer
	cancel      context.CancelFunc
	done        chan struct{}
	code        int // valid once done
}

func launch(tb testing.TB, environ []string, args ...string) *proc {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	p := &proc{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.code = run(ctx, args, environ, &p.out, &p.errOut)
	}()
	tb.Cleanup(func() {
		cancel()
		<-p.done
		if tb.Failed() {
			tb.Logf("streamcount %s\nstdout:\n%s\nstderr:\n%s", strings.Join(args, " "), &p.out, &p.errOut)
		}
	})
	return p
}

// end waits for the program and returns its exit code.
func (p *proc) end(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.done:
		return p.code
	case <-time.After(time.Minute):
		require.Fail(tb, "still running")
		return -1
	}
}

func (p *proc) interrupt(t *testing.T) int {
	t.Helper()
	p.cancel()
	return p.end(t)
}

func (p *proc) awaitOut(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(p.out.String(), text) },
		time.Minute, 5*time.Millisecond, "no %q on stdout", text)
}

var servingAt = regexp.MustCompile(`serving (http://\S+) on`)

// serve starts a node on a free port and waits until it is ready.
func serve(tb testing.TB, args ...string) (*proc, cli) {
	tb.Helper()
	p := launch(tb, nil, append([]string{"serve", "--listen=127.0.0.1:0"}, args...)...)
	require.Eventually(tb, func() bool { return ended(p) || servingAt.MatchString(p.out.String()) },
		time.Minute, 5*time.Millisecond)
	found := servingAt.FindStringSubmatch(p.out.String())
	require.NotNil(tb, found, "stderr: %s", &p.errOut)
	return p, cli{tb, []string{"STREAMCOUNT_SERVER=" + found[1]}, found[1]}
}

func ended(p *proc) bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// A cli runs client commands against one server.
type cli struct {
	t       testing.TB
	environ []string
	server  string
}

// run runs a command, checks its exit code, and returns its output.
func (c cli) run(code int, args ...string) (stdout, stderr string) {
	c.t.Helper()
	var out, errOut bytes.Buffer
	got := run(c.t.Context(), args, c.environ, &out, &errOut)
	require.Equal(c.t, code, got, "streamcount %s\n%s%s", strings.Join(args, " "), &out, &errOut)
	if code != exitOK {
		assert.Equal(c.t, 1, strings.Count(errOut.String(), "\n"), "one line: %s", &errOut)
		assert.True(c.t, strings.HasPrefix(errOut.String(), "streamcount: "))
	}
	return out.String(), errOut.String()
}

// json runs a command that prints JSON.
func (c cli) json(code int, into any, args ...string) {
	c.t.Helper()
	out, _ := c.run(code, append(args, "--json")...)
	require.NoError(c.t, json.Unmarshal([]byte(out), into), out)
}

func TestUsage(t *testing.T) {
	c := cli{t: t}
	for name, tc := range map[string]struct{ args, want string }{
		"command":       {"sart maya", `unknown command "sart": did you mean "start"?`},
		"flag":          {"start maya --sesion x", `unknown flag: --sesion (did you mean session?)`},
		"flag_value":    {"serve --limit many", `limit "many" (from the command line): want a whole number`},
		"no_user":       {"start", `usage: streamcount start USER`},
		"too_many":      {"ls a b", `usage: streamcount ls [USER]`},
		"stop_both":     {"stop maya id --all", `--all cannot be combined with a stream id`},
		"every":         {"heartbeat maya id --every=fast", `a duration of 100ms or more, such as 10s`},
		"server":        {"ls --server 127.0.0.1:3000", `want http://HOST:PORT or https://HOST:PORT`},
		"user":          {"ls a\x01b", `user id "a\x01b": it has a control character, U+0001, at byte 1: want 1 to 128 bytes of UTF-8 without control characters`},
		"serve_setting": {"serve --ttl 1s", `ttl "1s" (from the command line)`},
		"serve_arg":     {"serve now", `usage: streamcount serve`},
	} {
		t.Run(name, func(t *testing.T) {
			_, stderr := cli{t: t}.run(exitUsage, strings.Fields(tc.args)...)
			assert.Contains(t, stderr, tc.want)
		})
	}
	out, _ := c.run(exitOK, "--help")
	assert.Contains(t, out, "Exit codes: 0 success, 1 error, 2 invalid usage")
	out, _ = c.run(exitOK)
	assert.Contains(t, out, "Available Commands")
}

func TestVersion(t *testing.T) {
	c := cli{t: t}
	out, _ := c.run(exitOK, "version")
	assert.Regexp(t, `^streamcount 0\.1\.0-dev \(.*go1\.\d+.*\)\n$`, out)
	var b build
	c.json(exitOK, &b, "version")
	assert.Equal(t, version, b.Version)
	flag, _ := c.run(exitOK, "--version")
	assert.Equal(t, out, flag)
}

func TestNoServer(t *testing.T) {
	t.Parallel()
	ln := closedPort(t)
	c := cli{t: t, environ: []string{"STREAMCOUNT_SERVER=http://" + ln}}
	commands := []string{
		"ls", "ls maya", "start maya", "stop maya", "heartbeat maya x", "heartbeat maya x --every",
	}
	for _, args := range commands {
		_, stderr := c.run(exitError, strings.Fields(args)...)
		assert.Contains(t, stderr, "connection refused by http://"+ln+`: start a server with "streamcount serve"`)
	}
	_, stderr := c.run(exitError, "ls", "--server=http://maya:hunter2@"+ln)
	assert.Contains(t, stderr, "connection refused")
	assert.NotContains(t, stderr, "hunter2")
	_, stderr = c.run(exitError, "ls", "--server=http://no-such-host.invalid:3000")
	assert.Contains(t, stderr, "no-such-host.invalid")
}
