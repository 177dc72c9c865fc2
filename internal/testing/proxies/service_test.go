package proxies

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/internal/testing/browser"
	"streamcount/internal/testing/freeport"
	"streamcount/internal/testing/longtest"
)

func TestMain(m *testing.M) { os.Exit(browser.Main(m)) }

// A service is a node with the profiles of deploy/edge. Its proxies need a key.
type service struct {
	t      *testing.T
	node   *browser.Node
	edge   string // address of its edge
	key    string // of scope edge
	caller string // key of scope all
}

// secret signs the tokens of viewers.
const secret = "a secret of viewers' tokens, for tests"

// startService starts a node on which each user may have limit streams. profiles is the text of
// its edge file.
func startService(t *testing.T, limit int, profiles string) *service {
	t.Helper()
	port, err := freeport.Find()
	require.NoError(t, err)
	s := &service{t: t, edge: fmt.Sprintf("127.0.0.1:%d", port)}
	keys := "keys:\n"
	for scope, key := range map[string]*string{"edge": &s.key, "all": &s.caller} {
		text, entry, err := access.NewKey(scope, scope)
		require.NoError(t, err)
		*key = text
		keys += fmt.Sprintf("- {name: %s, scope: %s, sha256: %q}\n", entry.Name, entry.Scope, entry.SHA256)
	}
	dir := t.TempDir()
	s.node = browser.StartNode(t, "--ttl=60s", fmt.Sprint("--limit=", limit), "--edge-listen="+s.edge,
		"--edge-allow=192.0.2.0/24", // no proxy of this machine
		"--edge-file="+write(t, filepath.Join(dir, "edge.yaml"), profiles),
		"--auth-keys-file="+write(t, filepath.Join(dir, "keys.yaml"), keys),
		"--auth-secret-file="+write(t, filepath.Join(dir, "viewers.secret"), secret),
		"--auth-issuer=site", "--auth-audience=streamcount")
	return s
}

// token returns a token of a user for one playback.
func (s *service) token(user, playback string) string {
	s.t.Helper()
	claims := jwt.MapClaims{
		"iss": "site", "aud": "streamcount", "sub": user, "jti": playback, "exp": time.Now().Add(time.Hour).Unix(),
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	require.NoError(s.t, err)
	return token
}

// call sends a request to the API.
func (s *service) call(t *testing.T, method, path, body string) apitype.User {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.node.URL+"/api/v1/streams/users/"+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+s.caller)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, 200, resp.StatusCode)
	var user apitype.User
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&user))
	return user
}

// TestLimit checks that each proxy enforces the limit of the service, and that viewers play when
// the service has ended.
func TestLimit(t *testing.T) {
	for _, proxy := range all {
		t.Run(proxy.Name, func(t *testing.T) {
			t.Parallel()
			longtest.Require(t)
			s, o := startService(t, 3, Deployed(t, "edge.yaml")), startOrigin(t)
			v := newViewer(t, proxy.Start(t, Settings{Node: s.edge, Key: s.key, Origin: o.address, Patient: true}))
			checkLimit(t, s, proxy, v)
			s.node.Stop()
			got := v.get("/vod/film-1/0.ts?token=" + s.token("maya", "down"))
			t.Logf("%-14s %-26s %s", proxy.Name, "service down", got)
			assert.Equal(t, 200, got.status)
			assert.Equal(t, segment, got.body)
		})
	}
}

// checkLimit plays four films of one user, each in a session.
func checkLimit(t *testing.T, s *service, proxy Proxy, v *viewer) {
	t.Helper()
	const user = "maya"
	path := func(n int, file string) string {
		return fmt.Sprintf("/vod/film-%d/%s?token=%s", n, file, s.token(user, fmt.Sprint("playback-", n)))
	}
	get := func(what, target string, headers ...string) response {
		got := v.get(target, headers...)
		t.Logf("%-14s %-26s %s", proxy.Name, what, got)
		return got
	}
	var cookies []string
	for n := 1; n <= 3; n++ {
		got := get("within the limit", path(n, "index.m3u8"))
		require.Equal(t, 200, got.status)
		cookies = append(cookies, got.header.Values("Set-Cookie")...)
		require.Equal(t, 200, v.get(path(n, "0.ts")).status)
	}
	account := s.call(t, "GET", user, "")
	assert.Equal(t, 3, account.Streams)

	got := get("fourth session", path(4, "index.m3u8"))
	checkRefusal(t, proxy, got, "limit")
	if proxy.Name != NGINX.Name && proxy.Name != TrafficServer.Name {
		assert.Contains(t, got.body, "Maximum number of streams reached")
	}
	assert.Equal(t, http.StatusUnauthorized, get("no token", "/vod/film-1/0.ts").status)
	assert.Equal(t, http.StatusUnauthorized, get("bad token", "/vod/film-1/0.ts?token=e30.e30.e30").status)
	assert.Equal(t, 200, v.send("HEAD", path(4, "0.ts")).status, "HEAD sends no media and takes no slot")
	assert.Equal(t, http.StatusNoContent, v.send("OPTIONS", "/vod/film-1/0.ts").status)
	got = get("range", path(1, "1.ts"), "Range: bytes=2-4")
	assert.Equal(t, http.StatusPartialContent, got.status)
	assert.Equal(t, "234", got.body)
	assert.Equal(t, 200, get("token in the path", "/t/"+s.token(user, "playback-1")+"/film-1/0.ts").status)
	for _, before := range []string{"/%76od/", "//vod/", "/y/../vod/", "/vod/./"} {
		target := strings.Replace(path(4, "0.ts"), "/vod/", before, 1)
		checkRefusal(t, proxy, get(before, target), "limit")
	}
	forged := []string{"X-Original-URI: " + path(1, "0.ts"), "X-Original-Method: OPTIONS", "X-Forwarded-Method: OPTIONS", "X-Sc: allowed"}
	checkRefusal(t, proxy, get("forged headers", path(4, "0.ts"), forged...), "limit")

	if proxy.Name != TrafficServer.Name {
		require.Len(t, cookies, 3, "one cookie for each session")
		cookie, _, _ := strings.Cut(cookies[1], ";")
		assert.Equal(t, 200, get("cookie", "/vod/film-2/0.ts", "Cookie: "+cookie).status)
	}
	assert.Equal(t, 3, s.call(t, "GET", user, "").Streams, "none of these took a slot")

	for _, stream := range account.Active {
		if stream.Content.ID == "film-1" {
			s.call(t, "DELETE", user+"/streams/"+stream.ID, "")
		}
	}
	require.Eventually(t, func() bool {
		got = v.get(path(1, "0.ts"))
		return got.status == http.StatusForbidden
	}, time.Minute, 10*time.Millisecond, "the stopped session gets no media")
	t.Logf("%-14s %-26s %s", proxy.Name, "stopped session", got)
	checkRefusal(t, proxy, got, "stopped")
	free := func() bool { return v.get(path(4, "index.m3u8")).status == 200 }
	require.Eventually(t, free, time.Minute, 10*time.Millisecond, "the slot is free")
	assert.Equal(t, http.StatusForbidden, v.get(path(1, "0.ts")).status, "it stays refused")
}

// checkRefusal checks a 403 of the service.
func checkRefusal(t *testing.T, proxy Proxy, got response, reason string) {
	t.Helper()
	assert.Equal(t, http.StatusForbidden, got.status)
	assert.Equal(t, reason, got.header.Get("X-Streamcount-Reason"))
	assert.NotEmpty(t, got.header.Get("Retry-After"))
	if proxy.Name != TrafficServer.Name {
		assert.Equal(t, "application/problem+json", got.header.Get("Content-Type"))
	}
}

// TestEnvoy checks the edge with the requests that envoy.yaml makes Envoy send, which is not run
// here: the method, and the path and query behind path_prefix, as they are; Host, a length of 0 in
// place of a body, and of the other headers those that envoy.yaml lists.
func TestEnvoy(t *testing.T) {
	longtest.Require(t)
	s := startService(t, 3, Deployed(t, "edge.yaml"))
	v := newViewer(t, "http://"+s.edge)
	const user = "envoy"
	send := func(method, target string, more ...string) response {
		got := v.send(method, "/edge/v1/vod-request/uri"+target, append([]string{
			"Content-Length: 0", "X-Forwarded-For: 203.0.113.9", "X-Streamcount-Key: " + s.key,
		}, more...)...)
		t.Logf("%s %.60s: %s", method, target, got)
		return got
	}
	token := func(n int) string { return s.token(user, fmt.Sprint("playback-", n)) }
	var cookie string
	for n := 1; n <= 3; n++ {
		got := send("GET", "/vod/film/index.m3u8", "Authorization: Bearer "+token(n))
		require.Equal(t, 200, got.status)
		require.Len(t, got.header.Values("Set-Cookie"), 1)
		cookie, _, _ = strings.Cut(got.header.Get("Set-Cookie"), ";")
	}
	for _, before := range []string{"/vod/", "/%76od/", "//vod/", "/y/../vod/", "/t/../vod/"} {
		got := send("GET", before+"film/0.ts?token="+token(4))
		checkRefusal(t, NGINX, got, "limit")
		assert.Contains(t, got.body, "Maximum number of streams reached")
	}
	assert.Equal(t, http.StatusUnauthorized, send("GET", "/vod/film/0.ts").status)
	assert.Equal(t, 200, send("OPTIONS", "/vod/film/0.ts").status)
	assert.Equal(t, 200, send("POST", "/vod/film/0.ts").status)
	assert.Equal(t, 200, send("HEAD", "/vod/film/0.ts?token="+token(4)).status)
	assert.Equal(t, 200, send("GET", "/t/"+token(1)+"/film/0.ts").status)
	assert.Equal(t, 200, send("GET", "/vod/film/0.ts", "Cookie: "+cookie).status)
	assert.Equal(t, 3, s.call(t, "GET", user, "").Streams)

	got := v.get("/edge/v1/vod-request/uri/vod/film/0.ts", "X-Streamcount-Key: sck_other")
	assert.Equal(t, http.StatusForbidden, got.status)
	assert.Equal(t, "edge-key", got.header.Get("X-Streamcount-Reason"))
}
