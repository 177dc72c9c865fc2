package proxies

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
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
