package players

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/browser"
	"streamcount/internal/testing/freeport"
	"streamcount/internal/testing/longtest"
)

// tokensConfig is a configuration of nginx with the maps and the location of docs/playback-tokens.md
// for a token in a cookie, but for the directory of the files. Its arguments are the address, the page
// and that directory.
const tokensConfig = `user root;
daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    types { text/html html; application/vnd.apple.mpegurl m3u8; video/mp4 mp4 m4s; }
    map $cookie_sc $sc_md5     { "~^(?<sc_m>[A-Za-z0-9_-]+)\." $sc_m; }
    map $cookie_sc $sc_expires { "~\.(?<sc_e>[0-9]+)$" $sc_e; }
    server {
        listen %s;
        location = /player { default_type text/html; alias %s; }
        location ~ ^(?<sc_dir>/vod/[A-Za-z0-9._-]+/)(?<sc_file>.+)$ {
            add_header X-Time $msec always;
            secure_link $sc_md5,$sc_expires;
            secure_link_md5 "$sc_expires$sc_dir a secret of 16 characters or more";
            if ($secure_link = "")  { return 403; }
            if ($secure_link = "0") { return 403; }
            alias %s/$sc_file;
        }
    }
}
`

// startNginx starts nginx with the film and the page that plays it, and returns its URL.
func startNginx(t *testing.T) string {
	t.Helper()
	program := longtest.Program(t, "nginx", "/usr/sbin/nginx")
	page, err := filepath.Abs(filepath.Join("testdata", "tokens.html"))
	require.NoError(t, err)
	port, err := freeport.Find()
	require.NoError(t, err)
	addr, dir := fmt.Sprintf("127.0.0.1:%d", port), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "nginx.conf"), fmt.Appendf(nil, tokensConfig, addr, page, filmDir), 0o600))
	nginx := exec.Command(program, "-p", dir, "-c", "nginx.conf")
	nginx.Stderr = os.Stderr
	require.NoError(t, nginx.Start())
	t.Cleanup(func() { _ = nginx.Process.Signal(os.Interrupt); _ = nginx.Wait() })
	require.Eventually(t, func() bool {
		c, err := net.Dial("tcp", addr)
		return err == nil && assert.NoError(t, c.Close())
	}, time.Minute, progress)
	return "http://" + addr
}

// TestPlaybackTokens plays in Chromium through nginx, which checks playback tokens and does not ask the
// service. Heartbeats renew the token, so that the film plays on after the first one has expired. A
// viewer who is evicted, and ignores it, gets no file after the time that docs/playback-tokens.md
// states.
func TestPlaybackTokens(t *testing.T) {
	t.Parallel()
	longtest.Require(t, "ffmpeg")
	require.NoError(t, makeFilm())
	const life = 30 * time.Second
	formats := filepath.Join(t.TempDir(), "formats.yaml")
	require.NoError(t, os.WriteFile(formats,
		[]byte(`secureLink: {secret: a secret of 16 characters or more, expression: "{expires}/vod/{content}/ {secret}"}`), 0o600))
	site := startNginx(t)
	node := browser.StartNode(t, "--ttl=30s", "--limit=1", "--cors-origins="+site, "--token-issuer=https://streams.example",
		"--token-life="+life.String(), "--token-formats-file="+formats)
	resp, err := http.Get(site + "/vod/film-77/master.m3u8")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusForbidden, resp.StatusCode, "without a token")

	tab := browser.Open(t).Tab(site + "/player?" + url.Values{"node": {node.URL}}.Encode())
	tab.Wait("the film plays", playing)
	tab.WaitFor(3*time.Minute, "a file after the first token has expired", `answers.some((a) => a.status === 200 && a.at > expiries[0] + 1)`)
	tokens := browser.Eval[int](tab, `expiries.length`)
	assert.Greater(t, tokens, 2, "each heartbeat has renewed the token")
	assert.True(t, browser.Eval[bool](tab, `answers.every((a) => a.status === 200)`), "no file was refused")

	// The most time is left right after a heartbeat.
	tab.WaitFor(3*time.Minute, "the next token", fmt.Sprintf(`expiries.length > %d`, tokens))
	require.Equal(t, http.StatusOK, node.Call(http.MethodPost, "/api/v1/streams/users/maya/start", `{"onLimit":"replace-oldest"}`, nil))
	evicted := time.Now()
	tab.WaitFor(3*time.Minute, "nginx refuses files", `answers.slice(-5).every((a) => a.status === 403)`)
	tab.WaitFor(3*time.Minute, "the film stops", `stoppedAt > 0`)
	assert.Equal(t, "evicted", browser.Eval[string](tab, `ending`))

	type answer struct {
		Status int
		At     float64 // seconds since 1970
	}
	answers := browser.Eval[[]answer](tab, `answers`)
	first := slices.IndexFunc(answers, func(a answer) bool { return a.Status != http.StatusOK })
	for _, a := range answers[first:] {
		assert.Equal(t, http.StatusForbidden, a.Status, "an evicted viewer stays refused")
	}
	after := func(seconds float64) time.Duration { return time.UnixMilli(int64(seconds * 1000)).Sub(evicted) }
	last := after(answers[first-1].At)
	t.Logf("nginx answered the last request with a file %s after the eviction, and the film stopped %s after it",
		last.Round(100*time.Millisecond), after(browser.Eval[float64](tab, `stoppedAt`)).Round(100*time.Millisecond))
	assert.LessOrEqual(t, last, life+time.Second, "nginx compares whole seconds")
	assert.LessOrEqual(t, after(browser.Eval[float64](tab, `Math.max(...expiries)`)), life)
}
