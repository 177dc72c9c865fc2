package proxies

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

// TestNGINXCache checks which answers nginx keeps, and for which viewers.
func TestNGINXCache(t *testing.T) {
	t.Parallel()
	n, o := startNode(t), startOrigin(t)
	v := newViewer(t, NGINX.Start(t, Settings{Node: n.address, Key: key, Origin: o.address, Patient: true}))

	const requests = 200
	began := time.Now()
	for range requests {
		got := v.get("/vod/film/0.ts?token=cookie-1")
		require.Equal(t, 200, got.status)
		assert.Equal(t, "sc=new; Path=/; HttpOnly", got.header.Get("Set-Cookie"), "a cached permission has the cookie")
	}
	checks, took := len(n.take()), time.Since(began)
	t.Logf("%d requests of a viewer in %s made %d checks", requests, took.Round(time.Millisecond), checks)
	assert.LessOrEqual(t, checks, 2+int(took/time.Second), "a permission is kept for a second or more")

	// The permission of one viewer is not used for another one. $arg_token is empty in the
	// subrequest, so a key of the cache with it would be the same for both.
	checkDenial(t, NGINX, v.get("/vod/film/0.ts?token=limit"), "limit")
	checkDenial(t, NGINX, v.get("/t/limit/film/0.ts"), "limit")
	require.Equal(t, 200, v.get("/t/ann/film/0.ts").status)
	checkDenial(t, NGINX, v.get("/t/limit/film/0.ts"), "limit")
	assert.Equal(t, http.StatusUnauthorized, v.get("/vod/film/0.ts").status)

	// nginx does not find these credentials, so it keeps no permission for them.
	for _, target := range []string{"/vod/film/0.ts?%74oken=", "/%74/"} {
		rest := map[bool]string{true: "/film/0.ts"}[target == "/%74/"]
		n.take()
		require.Equal(t, 200, v.get(target+"ann"+rest).status, target)
		checkDenial(t, NGINX, v.get(target+"limit"+rest), "limit")
		assert.Len(t, n.take(), 2, target)
	}

	// Denials are not kept.
	n.take()
	for range 5 {
		checkDenial(t, NGINX, v.get("/vod/film/0.ts?token=limit-2"), "limit")
	}
	assert.Len(t, n.take(), 5)

	// The server of the media receives the path of the file without the token.
	o.take()
	require.Equal(t, 200, v.get("/t/ann/a%20film/0.ts").status)
	received := o.take()
	require.Len(t, received, 1)
	assert.Equal(t, "/vod/a%20film/0.ts", received[0].RequestURI)
}

// TestNGINXLeave checks that a player ends its stream through nginx, and no other one.
func TestNGINXLeave(t *testing.T) {
	t.Parallel()
	longtest.Require(t)
	s, o := startService(t, 3, Deployed(t, "edge.yaml")), startOrigin(t)
	v := newViewer(t, NGINX.Start(t, Settings{Node: s.edge, Key: s.key, Origin: o.address, Patient: true}))
	token := func(n int) string { return s.token("maya", fmt.Sprint("playback-", n)) }
	for n := 1; n <= 3; n++ {
		require.Equal(t, 200, v.get("/t/"+token(n)+"/a%20film/index.m3u8").status)
	}
	require.Equal(t, 3, s.call(t, "GET", "maya", "").Streams)
	for what, tt := range map[string]struct {
		method, target, header string
		status                 int
	}{
		"no token":              {"POST", "/leave/vod/film/index.m3u8", "Accept: */*", 401},
		"the route of the edge": {"POST", "/leave/../_streamcount", "Accept: */*", 404},
		"another method":        {"GET", "/leave/t/" + token(1) + "/film/index.m3u8", "Accept: */*", 405},
		"without a stream":      {"POST", "/leave/t/" + token(4) + "/film/index.m3u8", "Accept: */*", 204},
	} {
		assert.Equal(t, tt.status, v.send(tt.method, tt.target, tt.header).status, what)
	}
	assert.Equal(t, 3, s.call(t, "GET", "maya", "").Streams)
	for left, target := range []string{
		"/leave/t/" + token(1) + "/a%20film/index.m3u8", "/leave/vod/a%20film/0.ts?token=" + token(2), "/leave/vod/a%20film/0.ts",
	} {
		header := map[bool]string{true: "Authorization: Bearer " + token(3), false: "Accept: */*"}[left == 2]
		got := v.send("POST", target, "Content-Type: text/plain;charset=UTF-8", "Content-Length: 0", header)
		assert.Equal(t, http.StatusNoContent, got.status, target)
		if left < 2 {
			assert.Equal(t, 2-left, s.call(t, "GET", "maya", "").Streams, target)
		}
	}
	for n := 4; n <= 6; n++ {
		assert.Equal(t, 200, v.get("/t/"+token(n)+"/film/index.m3u8").status, "the slot is free")
	}
}
