package proxies

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var all = []Proxy{NGINX, HAProxy, Varnish, TrafficServer, Caddy, Traefik}

// TestAnswers checks what a viewer receives for each answer of the edge.
func TestAnswers(t *testing.T) {
	for _, proxy := range all {
		t.Run(proxy.Name, func(t *testing.T) {
			t.Parallel()
			n, o := startNode(t), startOrigin(t)
			v := newViewer(t, proxy.Start(t, Settings{Node: n.address, Key: key, Origin: o.address, Patient: true}))
			t.Logf("%-28s | %-60s | %s", "request", "check", "response")
			show := func(method, target string, headers ...string) (response, []check) {
				got, checks := v.send(method, target, headers...), n.take()
				for _, c := range checks {
					t.Logf("%-28s | %-60s | %s", method+" "+target, c.method+" "+c.target, got)
				}
				return got, checks
			}

			got, checks := show("GET", "/vod/film/0.ts?token=ann")
			require.Len(t, checks, 1)
			t.Log("headers of the check:", checks[0].header)
			checkSent(t, checks[0], "GET", "/vod/film/0.ts?token=ann")
			assert.Equal(t, 200, got.status)
			assert.Equal(t, segment, got.body)
			assert.Empty(t, got.header.Values("Set-Cookie"))
			for _, r := range o.take() {
				assert.Empty(t, r.Header.Get("X-Streamcount-Key"), "the key is not sent to the server of the media")
			}

			got, _ = show("GET", "/vod/film/1.ts?token=limit")
			checkDenial(t, proxy, got, "limit")
			for _, credential := range []string{"Authorization: Bearer limit", "Cookie: a=b; " + checks[0].cookie() + "=limit"} {
				got, _ = show("GET", "/vod/film/1.ts", credential)
				checkDenial(t, proxy, got, "limit")
			}
			got, _ = show("GET", "/t/stopped/film/1.ts")
			checkDenial(t, proxy, got, "stopped")
			got, _ = show("GET", "/vod/film/1.ts")
			assert.Equal(t, http.StatusUnauthorized, got.status)
			assert.Equal(t, "Bearer", got.header.Get("WWW-Authenticate"))
			assert.Empty(t, o.take(), "a denied request does not reach the server of the media")

			got, _ = show("GET", "/vod/film/0.ts?token=cookie")
			assert.Equal(t, 200, got.status)
			if proxy.Name != TrafficServer.Name {
				require.Len(t, got.header.Values("Set-Cookie"), 1)
				assert.Equal(t, checks[0].cookie()+"=new; Path=/; HttpOnly", got.header.Get("Set-Cookie"))
			}
			got, checks = show("HEAD", "/vod/film/0.ts?token=ann")
			assert.Equal(t, 200, got.status)
			require.Len(t, checks, 1)
			checkSent(t, checks[0], "HEAD", "/vod/film/0.ts?token=ann")
			got, checks = show("OPTIONS", "/vod/film/0.ts?token=ann", "Origin: https://player.example")
			assert.Equal(t, http.StatusNoContent, got.status)
			require.Len(t, checks, 1)
			checkSent(t, checks[0], "OPTIONS", "/vod/film/0.ts?token=ann")
			got, _ = show("GET", "/vod/film/2.ts?token=ann", "Range: bytes=2-4")
			assert.Equal(t, http.StatusPartialContent, got.status)
			assert.Equal(t, "234", got.body)
		})
	}
}

// checkSent checks what a proxy has sent for a request of a viewer on this machine: each value once.
func checkSent(t *testing.T, c check, method, target string) {
	t.Helper()
	gotMethod, gotTarget := c.original()
	assert.Equal(t, method+" "+target, gotMethod+" "+gotTarget)
	assert.Equal(t, []string{key}, c.header.Values("X-Streamcount-Key"))
	for _, name := range c.originalHeaders() {
		assert.Len(t, c.header.Values(name), 1, name)
	}
	addresses := strings.Split(strings.Join(c.header.Values("X-Forwarded-For"), ","), ",")
	assert.Equal(t, "127.0.0.1", strings.TrimSpace(addresses[len(addresses)-1]), "the last address is that of the viewer")
	assert.Zero(t, c.length, "a check has no body")
}

func checkDenial(t *testing.T, proxy Proxy, got response, reason string) {
	t.Helper()
	assert.Equal(t, http.StatusForbidden, got.status)
	assert.Equal(t, reason, got.header.Get("X-Streamcount-Reason"))
	assert.Equal(t, "17", got.header.Get("Retry-After"))
	if proxy.Name != TrafficServer.Name {
		assert.Equal(t, "application/problem+json", got.header.Get("Content-Type"))
		assert.Contains(t, got.body, `"reason":"`+reason+`"`)
	}
}

// TestForgedRequests checks that no form of a path and no header of a viewer evades the check.
func TestForgedRequests(t *testing.T) {
	for _, proxy := range all {
		t.Run(proxy.Name, func(t *testing.T) {
			t.Parallel()
			n, o := startNode(t), startOrigin(t)
			v := newViewer(t, proxy.Start(t, Settings{Node: n.address, Key: key, Origin: o.address, Patient: true}))
			for _, target := range []string{"/%76od/film/0.ts", "//vod/film/0.ts", "/y/../vod/film/0.ts", "/vod/./film/0.ts"} {
				got, checks := v.get(target+"?token=limit"), n.take()
				require.NotEmpty(t, checks, "%s is checked", target)
				want := target
				if proxy.Name == Traefik.Name { // it checks the path that it sends to the server of the media
					want = "/vod/film/0.ts"
				}
				_, original := checks[0].original()
				assert.Equal(t, strings.TrimLeft(want, "/"), strings.TrimLeft(strings.TrimSuffix(original, "?token=limit"), "/"))
				assert.Equal(t, http.StatusForbidden, got.status, target)
			}
			forged := []string{
				"X-Original-URI: /free/0.ts?token=ann", "X-Original-Method: OPTIONS", "X-Forwarded-Uri: /free/0.ts?token=ann",
				"X-Forwarded-Method: OPTIONS", "X-Streamcount-Key: sck_other", "X-Sc: allowed", "X-Sc-Id: ann", "X-Sc-Cookie: sc=forged",
				"X-Streamcount-Decision: allow", "X-Streamcount-Reason: none", "X-Forwarded-For: 203.0.113.9",
			}
			got, checks := v.get("/vod/film/0.ts?token=limit", forged...), n.take()
			require.NotEmpty(t, checks)
			checkDenial(t, proxy, got, "limit")
			for _, c := range checks {
				checkSent(t, c, "GET", "/vod/film/0.ts?token=limit")
			}
			// A second copy of each header is not used either.
			got = v.get("/vod/film/0.ts?token=limit", append(forged, forged...)...)
			checkDenial(t, proxy, got, "limit")
			for _, c := range n.take() {
				checkSent(t, c, "GET", "/vod/film/0.ts?token=limit")
			}
			got = v.get("/vod/film/0.ts?token=ann", forged...)
			assert.Equal(t, 200, got.status)
			assert.Empty(t, got.header.Values("Set-Cookie"))
		})
	}
}

// TestConnections checks that a proxy keeps its connections to the edge open.
func TestConnections(t *testing.T) {
	for _, proxy := range all {
		t.Run(proxy.Name, func(t *testing.T) {
			t.Parallel()
			n, o := startNode(t), startOrigin(t)
			v := newViewer(t, proxy.Start(t, Settings{Node: n.address, Key: key, Origin: o.address, Patient: true}))
			for range 20 {
				assert.Equal(t, http.StatusForbidden, v.get("/vod/film/0.ts?token=limit").status)
			}
			connections := map[string]bool{}
			for _, c := range n.take() {
				connections[c.connection] = true
			}
			t.Logf("20 denied checks on %d connections", len(connections))
			assert.Less(t, len(connections), 10)
		})
	}
}
