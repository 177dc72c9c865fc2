package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/etcdtest"
)

const edgeFile = `profiles:
  vod: {paths: ["/vod/{content}/{file...}"], user: ["header:X-User"], session: [derive]}
`

var edgeAddress = regexp.MustCompile(`listening for proxies.*"address": "([^"]+)"`)

// serveEdge starts a node that proxies use, and returns the URL of that listener.
func serveEdge(t *testing.T, prefix string) (*proc, cli, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.yaml")
	require.NoError(t, os.WriteFile(path, []byte(edgeFile), 0o600))
	p, c := serve(t, "--etcd-endpoints="+etcdtest.Endpoints(t)[0], "--etcd-prefix="+prefix, "--limit=1", "--edge-listen=127.0.0.1:0", "--edge-file="+path)
	found := edgeAddress.FindStringSubmatch(p.errOut.String())
	require.NotNil(t, found, "stderr: %s", &p.errOut)
	return p, c, "http://" + found[1]
}

// edgeCheck sends a check as a proxy does, and returns the status and the headers.
func edgeCheck(t *testing.T, edge, agent string) (int, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, edge+"/edge/v1/vod/check", nil)
	require.NoError(t, err)
	for name, value := range map[string]string{"X-Original-URI": "/vod/film/1.ts", "X-User": "maya", "User-Agent": agent} {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode, resp.Header
}

// Nodes of one service agree about the sessions of players. A command explains a decision.
func TestEdge(t *testing.T) {
	prefix := etcdtest.Prefix(t)
	p, c, first := serveEdge(t, prefix)
	_, _, second := serveEdge(t, prefix)
	events := c.watch(t)
	code, headers := edgeCheck(t, first, "tv")
	assert.Equal(t, 200, code)
	code, other := edgeCheck(t, second, "tv")
	assert.Equal(t, 200, code, "the derived session is the same on all nodes")
	assert.Equal(t, headers.Get("X-Streamcount-Session"), other.Get("X-Streamcount-Session"))
	code, _ = edgeCheck(t, second, "phone")
	assert.Equal(t, 403, code)
	var u apitype.User
	c.json(exitOK, &u, "ls", "maya")
	assert.Len(t, u.Active, 1)

	command := []string{"edge", "check", "--edge", first, "--profile=vod", "--uri=/vod/film/1.ts", "--header=X-User: maya"}
	out, _ := c.run(exitOK, append(command, "--header=User-Agent: phone")...)
	assert.Regexp(t, `(?m)^decision +deny \(403, limit\)$`, out)
	assert.Regexp(t, `(?m)^streams +1 of 1$`, out)
	var x apitype.EdgeExplanation
	c.json(exitOK, &x, append(command, "--header=User-Agent: tv")...)
	assert.Equal(t, "running", x.Reason)
	assert.Equal(t, "film", x.Stream.Content.ID)
	assert.Empty(t, x.Stream.ID)
	for _, args := range [][]string{{"--profile=none"}, {"--edge=" + c.server}} {
		c.run(exitError, append(command, args...)...)
	}
	for _, args := range [][]string{{"--header=x"}, {"--uri="}, {"--edge=x"}, {"--edge=ftp://127.0.0.1"}, {"--client=phone"}} {
		c.run(exitUsage, append(command, args...)...)
	}
	c.run(exitOK, "stop", "maya")
	require.Eventually(t, func() bool { code, headers = edgeCheck(t, first, "tv"); return code == 403 }, time.Minute, time.Millisecond)
	assert.Equal(t, "stopped", headers.Get("X-Streamcount-Reason"))
	events.awaitOut(t, "stopped")
	assert.Regexp(t, `(?m) start +1/1 +maya +local +(\S+, )?film, via edge:vod$`, events.out.String())
	assert.Equal(t, exitOK, events.interrupt(t))
	assert.Equal(t, exitOK, p.interrupt(t))
}

// A file of profiles with a mistake is an error at start.
func TestEdge_BadFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "edge.yaml")
	require.NoError(t, os.WriteFile(path, []byte("profiles: {vod: {mistake: 1}}"), 0o600))
	p := launch(t, nil, "serve", "--listen=127.0.0.1:0", "--edge-listen=127.0.0.1:0", "--edge-file="+path, "--data-dir="+t.TempDir())
	assert.Equal(t, exitUsage, p.end(t))
	assert.Contains(t, p.errOut.String(), "mistake")
}

// A key is sent to another machine only over https, and no redirect is followed.
func TestEdgeCheck_Key(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "edge.key")
	require.NoError(t, os.WriteFile(key, []byte("sck_secret"), 0o600))
	c := cli{t: t}
	command := []string{"edge", "check", "--profile=vod", "--uri=/vod/film/1.ts", "--key-file=" + key}
	_, errOut := c.run(exitUsage, append(command, "--edge=http://edge.invalid:3001")...)
	assert.Contains(t, errOut, "use https, or add --plaintext-key")
	_, errOut = c.run(exitError, append(command, "--edge=http://edge.invalid:3001", "--plaintext-key")...)
	assert.NotContains(t, errOut, "use https")
	_, errOut = cli{t: t, environ: []string{"STREAMCOUNT_PLAINTEXT_KEY=true"}}.run(exitError, append(command, "--edge=http://edge.invalid:3001")...)
	assert.NotContains(t, errOut, "use https")

	var keys atomic.Int64 // that other hosts have received
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Streamcount-Key") != "" {
			keys.Add(1)
		}
		_, _ = w.Write([]byte("{}"))
	}))
	t.Cleanup(other.Close)
	redirect := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	t.Cleanup(redirect.Close)
	_, errOut = c.run(exitError, append(command, "--edge="+redirect.URL)...)
	assert.Contains(t, errOut, "307 Temporary Redirect: is it the address of edge-listen?")
	assert.Zero(t, keys.Load())
	_, errOut = c.run(exitError, append(command, "--edge="+other.URL)...)
	assert.Contains(t, errOut, "is it the address of edge-listen?", "an answer that is not an explanation")
}
