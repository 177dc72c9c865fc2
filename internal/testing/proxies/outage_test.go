package proxies

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestOutage checks what viewers receive while no node answers, in both forms of each
// configuration, and that the limit is enforced again afterwards.
func TestOutage(t *testing.T) {
	for _, proxy := range all {
		for _, closed := range []bool{false, true} {
			form := map[bool]string{false: "open", true: "closed"}[closed]
			t.Run(proxy.Name+"/"+form, func(t *testing.T) {
				t.Parallel()
				n, o := startNode(t), startOrigin(t)
				v := newViewer(t, proxy.Start(t, Settings{Node: n.address, Key: key, Origin: o.address, FailClosed: closed}))
				limited := func() bool { return v.get("/vod/film/0.ts?token=limit").status == http.StatusForbidden }
				for _, fault := range []string{"503", "hang", "dead"} {
					require.Eventually(t, limited, time.Minute, 10*time.Millisecond, "the limit is enforced before %s", fault)
					o.take()
					if fault == "dead" {
						n.close()
					} else {
						n.set(fault)
					}
					began := time.Now()
					got := v.get("/vod/film/0.ts?token=limit")
					t.Logf("%-5s: %s after %s", fault, got, time.Since(began).Round(time.Millisecond))
					if closed {
						assert.GreaterOrEqual(t, got.status, 500, fault)
						if proxy.Name == NGINX.Name || proxy.Name == HAProxy.Name {
							assert.Equal(t, http.StatusServiceUnavailable, got.status, fault)
							assert.Equal(t, "1", got.header.Get("Retry-After"))
							assert.Equal(t, "unavailable", got.header.Get("X-Streamcount-Reason"))
						}
						assert.Empty(t, o.take(), "no media is sent")
					} else {
						assert.Equal(t, 200, got.status, fault)
						assert.Equal(t, segment, got.body)
					}
					n.set("")
				}
			})
		}
	}
}

// twoNodes are the proxies whose configuration has two nodes.
var twoNodes = []Proxy{NGINX, HAProxy, Varnish, Caddy, Traefik}

// TestAffinity checks that all requests of a viewer reach the same node.
func TestAffinity(t *testing.T) {
	for _, proxy := range twoNodes {
		t.Run(proxy.Name, func(t *testing.T) {
			t.Parallel()
			nodes, o := [2]*node{startNode(t), startNode(t)}, startOrigin(t)
			v := newViewer(t, proxy.Start(t, Settings{
				Node: nodes[0].address, OtherNode: nodes[1].address, Key: key, Origin: o.address, Patient: true,
			}))
			cookie := "sc="
			if proxy.Name == Caddy.Name || proxy.Name == Traefik.Name {
				cookie = "sc-forwarded="
			}
			var used [2]int
			for i := range 32 {
				token := fmt.Sprint("limit-", i)
				for _, requests := range [][2][]string{
					{{"/vod/film/0.ts?token=" + token}, {"/vod/film/1.ts?x=1&token=" + token}},
					{{"/t/" + token + "/film/0.ts"}, {"/t/" + token + "/film/1.ts?x=1"}},
					{{"/vod/film/0.ts", "Authorization: Bearer " + token}, {"/vod/film/1.ts?x=1", "Authorization: Bearer " + token}},
					{{"/vod/film/0.ts", "Cookie: " + cookie + token}, {"/vod/film/1.ts?x=1", "Cookie: " + cookie + token}},
				} {
					for _, r := range requests {
						require.Equal(t, http.StatusForbidden, v.get(r[0], r[1:]...).status)
					}
					first, second := len(nodes[0].take()), len(nodes[1].take())
					assert.ElementsMatch(t, []int{0, 2}, []int{first, second}, "checks of viewer %d at the nodes: %q", i, requests)
					used[0] += first / 2
					used[1] += second / 2
				}
			}
			t.Logf("32 viewers with four credentials each: %v at each node", used)
			if proxy.Name == Traefik.Name {
				assert.Zero(t, used[1], "the second node is used if the first one fails")
				return
			}
			assert.NotZero(t, used[0])
			assert.NotZero(t, used[1])
		})
	}
}

// TestOneNodeDown checks that the limit is enforced while one of two nodes fails, whichever it is.
func TestOneNodeDown(t *testing.T) {
	for _, proxy := range twoNodes {
		for _, fault := range []string{"never started", "503", "hang", "dead"} {
			for failed := range 2 {
				t.Run(fmt.Sprintf("%s/%s/%d", proxy.Name, fault, failed+1), func(t *testing.T) {
					t.Parallel()
					nodes, o := [2]*node{startNode(t), startNode(t)}, startOrigin(t)
					addresses := [2]string{nodes[0].address, nodes[1].address}
					if fault == "never started" {
						addresses[failed] = closedAddress(t)
					}
					v := newViewer(t, proxy.Start(t, Settings{
						Node: addresses[0], OtherNode: addresses[1], Key: key, Origin: o.address,
					}))
					limited := func() bool {
						for i := range 32 {
							if v.get(fmt.Sprintf("/vod/film/0.ts?token=limit-%d", i)).status != http.StatusForbidden {
								return false
							}
						}
						return true
					}
					require.Eventually(t, limited, time.Minute, 10*time.Millisecond)
					switch fault {
					case "never started":
						return
					case "dead":
						nodes[failed].close()
					default:
						nodes[failed].set(fault)
					}
					began, through := time.Now(), 0
					for i := 0; i < 32; i++ { // until the other node checks all viewers
						if v.get(fmt.Sprintf("/vod/film/0.ts?token=limit-%d", i)).status != http.StatusForbidden {
							require.Less(t, time.Since(began), time.Minute)
							i, through = -1, through+1
						}
					}
					t.Logf("%s: %d requests were not checked, for %s", t.Name(), through, time.Since(began).Round(time.Millisecond))
				})
			}
		}
	}
}
