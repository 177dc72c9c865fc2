// Package proxies runs the proxies for which deploy/edge has configurations, with these
// configurations. Each proxy is a process that ends with the test.
package proxies

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/internal/bench/child"
	"streamcount/internal/testing/freeport"
	"streamcount/internal/testing/longtest"
	"streamcount/internal/testing/testlog"
)

// Settings are the values of the names in the files of deploy/edge.
type Settings struct {
	Node       string // host:port of the listener of the edge
	OtherNode  string // that of a second node; if it is "", Node
	Key        string // API key of scope edge
	Origin     string // host:port of the server of the media
	FailClosed bool   // answer 503 if no node answers, and not the media
	Patient    bool   // wait a minute for a node, so that no viewer is let through on a busy machine
}

func (s Settings) otherNode() string {
	if s.OtherNode == "" {
		return s.Node
	}
	return s.OtherNode
}

// A Proxy is a proxy that deploy/edge has a configuration for.
type Proxy struct {
	Name  string
	start func(tb testing.TB, s Settings, address string)
}

// The proxies.
var (
	NGINX         = Proxy{"nginx", startNGINX}
	HAProxy       = Proxy{"HAProxy", startHAProxy}
	Varnish       = Proxy{"Varnish", startVarnish}
	TrafficServer = Proxy{"Traffic Server", startTrafficServer}
	Caddy         = Proxy{"Caddy", startCaddy}
	Traefik       = Proxy{"Traefik", startTraefik}
)

// Start runs the proxy until the test ends, and returns its URL. It skips the test if long
// tests are off or the program is not installed.
func (p Proxy) Start(tb testing.TB, s Settings) string {
	tb.Helper()
	port, err := freeport.Find()
	require.NoError(tb, err)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	p.start(tb, s, address)
	return "http://" + address
}

// program returns the path of a program. Debian installs servers outside of the PATH of
// users.
func program(tb testing.TB, name string) string {
	tb.Helper()
	return longtest.Program(tb, name, "/usr/sbin/"+name)
}

// run starts a program and waits until it accepts connections at address.
func run(tb testing.TB, address string, cmd *exec.Cmd) {
	tb.Helper()
	out := &testlog.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	process, err := child.Start(cmd)
	require.NoError(tb, err)
	tb.Cleanup(func() {
		process.Stop(10 * time.Second)
		if tb.Failed() {
			tb.Logf("output of %s:\n%s", filepath.Base(cmd.Path), out)
		}
	})
	dialer := net.Dialer{Timeout: time.Second}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		conn, err := dialer.DialContext(tb.Context(), "tcp", address)
		if err == nil {
			require.NoError(tb, conn.Close())
			return
		}
		select {
		case <-process.Done():
			require.Fail(tb, "the proxy has exited", "%s: %v\n%s", cmd.Path, process.Err(), out)
		default:
			require.True(tb, time.Now().Before(deadline), "%s does not listen: %v\n%s", cmd.Path, err, out)
		}
	}
}

// command returns a command that no context ends: run ends it.
func command(path string, args ...string) *exec.Cmd {
	return exec.CommandContext(context.Background(), path, args...)
}

// Deployed returns the text of a file of deploy/edge, in which each old text is replaced by
// the new one after it, as the file describes it. The test fails if an old text is missing
// or if a name to replace is left.
func Deployed(tb testing.TB, name string, oldnew ...string) string {
	tb.Helper()
	content, err := os.ReadFile(filepath.Join(directory(), filepath.FromSlash(name)))
	require.NoError(tb, err)
	var lines []string // comments have the names as well
	for line := range strings.Lines(string(content)) {
		if !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	text := strings.Join(lines, "")
	for i := 0; i < len(oldnew); i += 2 {
		require.Contains(tb, text, oldnew[i], "deploy/edge/%s", name)
		text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
	}
	require.NotContains(tb, text, "${SC_", "deploy/edge/%s", name)
	return text
}

// patient replaces the timeouts and health checks in a configuration if s is patient.
func (s Settings) patient(tb testing.TB, text string, oldnew ...string) string {
	tb.Helper()
	for i := 0; i < len(oldnew); i += 2 {
		require.Contains(tb, text, oldnew[i])
		if s.Patient {
			text = strings.ReplaceAll(text, oldnew[i], oldnew[i+1])
		}
	}
	return text
}

// directory returns the path of deploy/edge.
func directory() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..", "deploy", "edge")
}

// withoutLines returns text without the lines that end in mark.
func withoutLines(tb testing.TB, text, mark string) string {
	tb.Helper()
	require.Contains(tb, text, mark)
	kept := ""
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(strings.TrimRight(line, "\n"), mark) {
			kept += line
		}
	}
	return kept
}

func write(tb testing.TB, path, content string) string {
	tb.Helper()
	require.NoError(tb, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(tb, os.WriteFile(path, []byte(content), 0o644))
	return path
}

func split(tb testing.TB, address string) (host, port string) {
	tb.Helper()
	host, port, err := net.SplitHostPort(address)
	require.NoError(tb, err)
	return host, port
}
