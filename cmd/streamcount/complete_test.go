package main

import (
	"context"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/client"
)

// complete returns the completions that a shell would receive, and the directive.
func (c cli) complete(args ...string) (words []string, directive string) {
	c.t.Helper()
	out, _ := c.run(exitOK, append([]string{"__complete"}, args...)...)
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return lines[:len(lines)-1], lines[len(lines)-1]
}

const (
	noFiles   = ":4"
	onlyDirs  = ":16"
	shellsOwn = ":0"
)

func TestComplete_WithoutServer(t *testing.T) {
	c := cli{t: t, environ: []string{"STREAMCOUNT_SERVER=http://" + closedPort(t)}}
	for line, want := range map[string]struct {
		words     string
		directive string
	}{
		"sto":                               {"stop", noFiles},
		"start maya --on-limit ":            {"deny replace-oldest", noFiles},
		"serve --log-level ":                {"debug info warn error", noFiles},
		"serve --log-format ":               {"text json", noFiles},
		"serve --on-outage ":                {"deny admit", noFiles},
		"plans set p --count ":              {"streams content devices", noFiles},
		"keys new --scope ":                 {"all read operator", noFiles},
		"serve --etcd-ca ":                  {"", shellsOwn},
		"serve --data-dir ":                 {"", onlyDirs},
		"serve --limit ":                    {"", noFiles},
		"serve ":                            {"", noFiles},
		"ls ":                               {"", noFiles},
		"stop maya ":                        {"", noFiles},
		"plans get ":                        {"", noFiles},
		"man ":                              {"", onlyDirs},
		"ls --server 127.0.0.1 ":            {"", noFiles},
		"completion ":                       {"bash fish powershell zsh", noFiles},
		"limits set maya --file ":           {"", shellsOwn},
		"health --ca ":                      {"", shellsOwn},
		"ls maya ":                          {"", noFiles},
		"start maya --device-name ":         {"", noFiles},
		"limits set maya --limit 3 --plan ": {"", noFiles},
	} {
		words, directive := c.complete(strings.Split(line, " ")...)
		assert.Equal(t, want.directive, directive, line)
		var bare []string
		for _, w := range words {
			bare = append(bare, strings.SplitN(w, "\t", 2)[0])
		}
		assert.Equal(t, strings.Fields(want.words), append([]string{}, bare...), line)
	}
}

// A server that accepts the connection and does not respond must not block the shell.
func TestComplete_Timeout(t *testing.T) {
	t.Parallel()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer ln.Close()
	words, _ := cli{t: t}.complete("stop", "--server=http://"+ln.Addr().String(), "ma")
	assert.Empty(t, words)

	a := &app{}
	cmd := a.lsCommand()
	cmd.SetContext(t.Context())
	_, ok := queryServer(a, cmd, func(ctx context.Context, _ *client.Client) (struct{}, error) {
		deadline, limited := ctx.Deadline()
		assert.True(t, limited)
		assert.False(t, deadline.After(time.Now().Add(completionTimeout)))
		return struct{}{}, nil
	})
	assert.True(t, ok)
}

func TestComplete_WithServer(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	var u apitype.User
	c.json(exitOK, &u, "start", "maya", "--device-name=TV\x1b[2J", "--content-title=Metropolis")
	c.run(exitOK, "start", "tom")
	c.run(exitOK, "plans", "set", "family", "--limit=4")
	require.Eventually(t, func() bool {
		words, _ := c.complete("stop", "ma")
		return len(words) == 1
	}, time.Minute, 50*time.Millisecond)
	words, directive := c.complete("stop", "ma")
	assert.Equal(t, []string{"maya\t1 of 3 streams"}, words)
	assert.Equal(t, noFiles, directive)
	words, _ = c.complete("ls", "")
	assert.Len(t, words, 2)
	words, _ = c.complete("stop", "maya", "")
	assert.Equal(t, []string{u.Stream.ID + "\t" + `TV [2J (Metropolis, local)`}, words)
	words, _ = c.complete("heartbeat", "maya", "x")
	assert.Empty(t, words)
	words, _ = c.complete("start", "maya", "--replaces", u.Stream.ID[:4])
	assert.Len(t, words, 1)
	words, _ = c.complete("limits", "set", "maya", "--plan", "f")
	assert.Equal(t, []string{"family\tlimit 4"}, words)
	words, _ = c.complete("plans", "rm", "")
	assert.Len(t, words, 1)
	words, _ = c.complete("top", "--prefix", "t")
	assert.Equal(t, []string{"tom\t1 of 3 streams"}, words)
}

// The scripts are valid for their shells.
func TestCompletion_Scripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		out, _ := cli{t: t}.run(exitOK, "completion", shell)
		assert.Contains(t, out, "streamcount", shell)
		program, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue // bash is present wherever these tests run
		}
		cmd := exec.CommandContext(t.Context(), program, "-n")
		cmd.Stdin = strings.NewReader(out)
		text, err := cmd.CombinedOutput()
		assert.NoError(t, err, "%s: %s", shell, text)
	}
}
