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

// repetitions is how often TestEnded ends a stream for each reason.
const repetitions = 4

// TestEnded ends streams for each reason while their players request segments without a pause. It
// logs how long the players receive segments, and checks that they are refused with the reason
// and receive no further segment.
func TestEnded(t *testing.T) {
	for _, proxy := range all {
		for _, cache := range []string{"1s", "0s"} {
			if cache == "0s" && proxy.Name != NGINX.Name {
				continue // the others keep no permission
			}
			t.Run(proxy.Name+"/cache="+cache, func(t *testing.T) {
				t.Parallel()
				longtest.Require(t)
				var edits []string
				for _, from := range []string{"from: original", "from: forwarded", "from: request"} {
					edits = append(edits, from, from+"\n    onLimit: replace-oldest\n    cache: "+cache)
				}
				s, o := startService(t, 1, Deployed(t, "edge.yaml", edits...)), startOrigin(t)
				v := newViewer(t, proxy.Start(t, Settings{Node: s.edge, Key: s.key, Origin: o.address, Patient: true}))
				for _, reason := range []string{"stopped", "evicted", "replaced", "removed"} {
					var longest time.Duration
					segments := 0
					for i := range repetitions {
						last, n := checkEnded(t, s, proxy, v, reason, i)
						longest, segments = max(longest, last), segments+n
					}
					t.Logf("%s, cache %s, %s: %d segments after the end of %d streams, the last one after %s",
						proxy.Name, cache, reason, segments, repetitions, longest.Round(time.Millisecond))
				}
			})
		}
	}
}

// checkEnded plays a film, ends its stream, and returns how long afterwards the player received
// its last segment, and how many it received.
func checkEnded(t *testing.T, s *service, proxy Proxy, v *viewer, reason string, i int) (last time.Duration, segments int) {
	t.Helper()
	user := fmt.Sprint(reason, "-", i)
	segment := func(session string, n int) string {
		return fmt.Sprintf("/vod/film/%d.ts?token=%s", n, s.token(user, session))
	}
	target := segment("first", 0)
	for range 20 {
		require.Equal(t, http.StatusOK, v.get(target).status)
	}
	id := s.call(t, "GET", user, "").Active[0].ID
	ended := time.Now()
	switch reason {
	case "stopped":
		s.call(t, "DELETE", user+"/streams/"+id, "")
	case "removed":
		s.call(t, "DELETE", user, "")
	case "replaced":
		s.call(t, "POST", user+"/start", fmt.Sprintf(`{"replaces": [%q]}`, id))
	case "evicted":
		require.Equal(t, http.StatusOK, v.get(segment("second", 0)).status, "another session takes the slot")
	}
	got := v.get(target)
	for ; got.status == http.StatusOK; got = v.get(target) {
		segments, last = segments+1, time.Since(ended)
		require.Less(t, last, time.Minute, "the player is refused")
	}
	checkRefusal(t, proxy, got, reason)
	if proxy.Name != TrafficServer.Name {
		assert.Contains(t, got.body, `"reason":"`+reason+`"`)
	}
	if reason != "evicted" || i > 0 {
		return last, segments
	}
	for n, refused := 1, time.Now(); time.Since(refused) < 3*time.Second; n++ { // nginx keeps a permission for less
		got = v.get(segment("first", n))
		require.Equal(t, http.StatusForbidden, got.status, "%s after the first refusal", time.Since(refused))
		require.Equal(t, reason, got.header.Get("X-Streamcount-Reason"))
		require.Equal(t, http.StatusOK, v.get(segment("second", n)).status, "the other session plays")
	}
	return last, segments
}

// TestObserve checks that no viewer is refused while the profiles only observe, also behind a proxy
// whose key is wrong.
func TestObserve(t *testing.T) {
	for _, proxy := range all {
		t.Run(proxy.Name, func(t *testing.T) {
			t.Parallel()
			longtest.Require(t)
			var edits []string
			for _, from := range []string{"from: original", "from: forwarded", "from: request"} {
				edits = append(edits, from, from+"\n    observe: true")
			}
			s, o := startService(t, 1, Deployed(t, "edge.yaml", edits...)), startOrigin(t)
			for _, key := range []string{s.key, "sck_other"} {
				v := newViewer(t, proxy.Start(t, Settings{Node: s.edge, Key: key, Origin: o.address, FailClosed: true, Patient: true}))
				for _, query := range []string{"?token=" + s.token("maya", "first"), "?token=" + s.token("maya", "second"), "?token=e30.e30.e30", ""} {
					got := v.get("/vod/film/0.ts" + query)
					assert.Equal(t, http.StatusOK, got.status, "%s: %s", query, got)
					assert.Equal(t, segment, got.body)
				}
				assert.Equal(t, 1, s.call(t, "GET", "maya", "").Streams, "the first session is counted")
			}
		})
	}
}
