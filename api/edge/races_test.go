package edge

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/edge/profile"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// First requests of a session that arrive at once on several nodes start one stream.
func TestFirstRequests_OneStream(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	var nodes []node
	var limiters []*lease.Limiter
	for range 3 {
		l := newLimiter(t, c, lease.Config{Prefix: prefix, Limit: 1})
		limiters, nodes = append(limiters, l), append(nodes, newNode(t, Config{}, l))
	}
	for i := range 5 {
		user := fmt.Sprintf("user %d", i)
		var requests sync.WaitGroup
		for k := range 24 {
			requests.Go(func() {
				target := fmt.Sprintf("/vod/film/%d.ts?sid=a", k)
				assert.Equal(t, 200, nodes[k%3].checkAs(t, "vod", http.MethodGet, target, user).StatusCode)
			})
		}
		requests.Wait()
		assert.Len(t, streams(t, limiters[0], user), 1)
	}
	admitted := int64(0)
	for _, l := range limiters {
		totals, err := l.Totals(t.Context())
		require.NoError(t, err)
		admitted += totals.Admitted
	}
	assert.EqualValues(t, 5, admitted, "no request has taken over the slot of another")
}

// Sessions that compete for the last slot: one gets it.
func TestFirstRequests_Limit(t *testing.T) {
	t.Parallel()
	n, l := startNode(t)
	var allowed, refused atomic.Int64
	var requests sync.WaitGroup
	for i := range 16 {
		requests.Go(func() {
			switch got := n.check(t, "vod", fmt.Sprintf("/vod/film/1.ts?sid=%d", i)); got.StatusCode {
			case 200:
				allowed.Add(1)
			case 403:
				assert.Equal(t, "limit", got.reason())
				refused.Add(1)
			}
		})
	}
	requests.Wait()
	assert.EqualValues(t, 1, allowed.Load())
	assert.EqualValues(t, 15, refused.Load())
	assert.Len(t, streams(t, l, "maya"), 1)
}

// A slot that becomes free is available at once, although a refusal is remembered.
func TestRefusals(t *testing.T) {
	t.Parallel()
	n, _ := startNode(t)
	require.Equal(t, 200, n.check(t, "vod", "/vod/film/1.ts?sid=a").StatusCode)
	require.Equal(t, 403, n.check(t, "vod", "/vod/film/1.ts?sid=b").StatusCode)
	require.Equal(t, 204, send(t, http.MethodPost, n.url+"/edge/v1/vod/leave?sid=a", map[string]string{"X-User": "maya"}).StatusCode)
	assert.Equal(t, 200, n.check(t, "vod", "/vod/film/1.ts?sid=b").StatusCode)
}

// tokenLimits verifies tokens of maya that consist of her limit.
type tokenLimits struct{}

func (tokenLimits) VerifyToken(_ context.Context, token string) (access.Token, error) {
	limit, err := strconv.Atoi(token)
	return access.Token{Caller: access.Caller{Kind: access.Viewer, Name: "maya", Limit: &limit}}, err
}

// An explanation of a start decides like the start: by the limit of the credential and by the
// rules in force, not by those with which the user's streams were started.
func TestExplain_DecidesLikeACheck(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), lease.Config{Prefix: etcdtest.Prefix(t), Limit: 2})
	n := newNode(t, Config{CheckerConfig: CheckerConfig{Verifier: tokenLimits{}}}, l)
	p := (*n.profiles.Load())["bearer"].Profile
	request := func(content, sid string, limit int) profile.Request {
		return profile.Request{
			Method: http.MethodGet, Target: "/vod/" + content + "/1.ts?sid=" + sid, Header: http.Header{"Authorization": {fmt.Sprint("Bearer ", limit)}},
		}
	}
	require.Equal(t, Started, n.Check(t.Context(), p, request("film", "a", 2)).Outcome)
	for _, c := range []struct {
		sid     string
		limit   int
		outcome Outcome
	}{{"b", 0, AtLimit}, {"c", 1, AtLimit}, {"d", 2, Started}, {"e", 2, AtLimit}, {"f", 3, Started}, {"a", 1, Running}} {
		before := len(streams(t, l, "maya"))
		x := n.Explain(t.Context(), p, request("film", c.sid, c.limit))
		assert.Equal(t, c.outcome.String(), x.Reason, "%+v", c)
		assert.Equal(t, c.outcome == AtLimit, x.Would == "be refused", "%+v", c)
		assert.Len(t, streams(t, l, "maya"), before, "an explanation starts nothing")
		if c.outcome != Running {
			require.NotNil(t, x.Limit)
			assert.Equal(t, []int{before, c.limit}, []int{*x.Streams, *x.Limit}, "%+v", c)
		}
		assert.Equal(t, c.outcome, n.Check(t.Context(), p, request("film", c.sid, c.limit)).Outcome, "%+v", c)
	}
	_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, policy.Plan{Limit: 9, OnLimit: policy.Deny, Limits: []policy.Limit{
		{Name: "film", Limit: 0, Where: []policy.Condition{{Attribute: policy.AttrContentID, In: []string{"gone"}}}},
	}})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return n.Explain(t.Context(), p, request("gone", "new", 9)).Would == "be refused"
	}, soon, 10*time.Millisecond)
	var x apitype.EdgeExplanation
	require.Eventually(t, func() bool { // when the stream is old enough to move
		x = n.Explain(t.Context(), p, request("gone", "a", 9))
		return x.Would == "be refused"
	}, soon, 100*time.Millisecond)
	assert.Equal(t, "limit", x.Reason)
	assert.Equal(t, AtLimit, n.Check(t.Context(), p, request("gone", "a", 9)).Outcome)
	assert.Equal(t, "move", n.Explain(t.Context(), p, request("other", "a", 9)).Would)
}

// An explanation has no effect.
func TestExplain(t *testing.T) {
	t.Parallel()
	n, l := startNode(t)
	explain := func(sid, content string) (x struct{ decision, would string }) {
		r := profile.Request{
			Method: http.MethodGet, Target: "/vod/" + content + "/1.ts?sid=" + sid, Header: http.Header{"X-User": {"maya"}},
		}
		got := n.Explain(t.Context(), (*n.profiles.Load())["vod"].Profile, r)
		return struct{ decision, would string }{got.Decision + " " + got.Reason, got.Would}
	}
	type answer = struct{ decision, would string }
	assert.Equal(t, answer{"allow started", "start"}, explain("a", "film"))
	assert.Empty(t, streams(t, l, "maya"))
	require.Equal(t, 200, n.check(t, "vod", "/vod/film/1.ts?sid=a").StatusCode)
	assert.Equal(t, answer{"allow running", "renew"}, explain("a", "film"))
	assert.Equal(t, answer{"deny limit", "be refused"}, explain("b", "film"))
	all := streams(t, l, "maya")
	_, err := l.Stop(t.Context(), "maya", all[0].ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return explain("a", "film") == answer{"deny stopped", "nothing"} }, soon, time.Millisecond)

	body := strings.NewReader(`{"uri": "/vod/film/1.ts?sid=a", "header": {"x-user": ["maya"]}}`)
	resp, err := http.Post(n.url+"/edge/v1/vod/explain", "application/json", body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 200, resp.StatusCode)
	resp, err = http.Post(n.url+"/edge/v1/vod/explain", "application/json", strings.NewReader("x"))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	assert.Equal(t, 400, resp.StatusCode)
}
