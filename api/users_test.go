package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/events"
	"streamcount/lease"
)

// User ids of identity providers are accepted by each call that has a user, on real etcd.
func TestUsers_EveryCall(t *testing.T) {
	s := newService(t, 2)
	users := []string{
		"S//808E9UOiYKKAkagOBLGxvuLUbDCXlp8sZz6ilew8=", `CORP\ann`, "o'brien@x.example", "müller", "mu\u0308ller", "ann lee", "tom/admin",
		"tom", "tom%2Fadmin", "tom%252Fadmin", "a+b@x.example", "a b@x.example", "auth0|abc", "..", ".", "/", "📺", `"<&>`, strings.Repeat("é", 64),
	}
	for _, user := range users {
		at := "/api/v1/streams/users/" + url.PathEscape(user)
		if user == "." || user == ".." {
			at = "/api/v1/streams/users/" + everyByteEscaped(user)
		}
		events, err := s.server.backend.Load().Feed.Follow(t.Context(), "", user)
		require.NoError(t, err)
		var u apitype.User
		s.do("POST", at+"/start", `{"session":"one"}`, 200, &u)
		require.Equal(t, []any{user, 1}, []any{u.UserID, u.Streams})
		id := u.Stream.ID
		assert.Equal(t, user, nextEvent(t, events).User)
		var st apitype.Stream
		s.do("POST", at+"/streams/"+id+"/heartbeat", "", 200, &st)
		assert.False(t, st.Degraded)
		assert.Equal(t, "Stream not found", s.problem("POST", userBase+"/streams/"+id+"/heartbeat", "", 404).Title)
		for _, how := range []string{"", "?consistency=linearizable"} {
			s.do("GET", at+how, "", 200, &u)
			require.Equal(t, []any{user, 1}, []any{u.UserID, len(u.Active)})
		}
		name, err := json.Marshal(user)
		require.NoError(t, err)
		var batch apitype.HeartbeatsResult
		s.do("POST", "/api/v1/streams/heartbeats", fmt.Sprintf(`{"heartbeats":[{"userId":%s,"streamId":%q}]}`, name, id), 200, &batch)
		assert.Equal(t, apitype.HeartbeatsResult{Alive: 1, Ended: []apitype.EndedHeartbeat{}}, batch)
		s.do("POST", at+"/start", "", 200, &u)
		require.Equal(t, 2, u.Streams)
		full := s.problem("POST", at+"/start", "", 403)
		assert.Len(t, full.Active, 2)
		var top apitype.TopUsers
		require.Eventually(t, func() bool {
			s.do("GET", "/api/v1/streams/users?prefix="+url.QueryEscape(user), "", 200, &top)
			return len(top.Users) > 0 && top.Users[0] == apitype.TopUser{UserID: user, Streams: 2, Limit: 2}
		}, time.Minute, 50*time.Millisecond, "%v", top)
		s.do("POST", at+"/stop", fmt.Sprintf(`{"streamId":%q}`, id), 200, &u)
		assert.Equal(t, "stopped", s.problem("DELETE", at+"/streams/"+id, "", 410).Reason)
		var gone apitype.Removed
		s.do("DELETE", at, "", 200, &gone)
		assert.Equal(t, []any{user, 0}, []any{gone.UserID, gone.Streams})
	}
}

// nextEvent returns the next event of a follower.
func nextEvent(t *testing.T, f *events.Follower) *events.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		e := f.Next()
		if e != nil && e.Kind != events.Gap { // the feed may begin with a gap
			return e
		}
		if e != nil {
			continue
		}
		require.NoError(t, f.Wait(ctx))
	}
}

// A set may have rules of the maximum number of users, with the longest ids.
func TestRules_AThousandUsersAndPlans(t *testing.T) {
	s := newService(t, 2)
	s.server.SetBackend(Backend{Rules: s.server.backend.Load().Limiter.(*lease.Limiter).Rules()})
	set := func(member string, n int, name, rule string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"%s":%s`, fmt.Sprintf(name, i), rule)
		}
		return fmt.Sprintf(`{%q:{%s}}`, member, b.String()[1:])
	}
	longest := strings.Repeat(`\u00e9`, 62) + "%04d"
	for _, c := range []struct {
		body   string
		status int
	}{
		{set("users", 1000, "u%d", `{"limit":0}`), 200},
		{set("users", 1000, longest, `{"limit":0}`), 200},
		{set("users", 1001, "u%d", `{"limit":0}`), 422},
		{set("plans", 1000, "p%d", `{"limit":4,"onLimit":"replace-oldest","count":"content"}`), 200},
		{set("plans", 1001, "p%d", `{"limit":4}`), 422},
		{set("users", 1000, strings.Repeat("u", 124)+"%04d", `{"plan":"p7"}`), 200},
		{`{"users":{"a":{"limit":1}},"removeUsers":[` + strings.Repeat(`"u1",`, 999) + `"u1"]}`, 200},
	} {
		w := call(s.server, "POST", "/api/v1/rules", c.body)
		assert.Equal(t, c.status, w.Code, "%.100s: %.300s", c.body, w.Body)
	}
	assert.Equal(t, 403, call(s.server, "POST", "/api/v1/streams/users/u999/start", "").Code)
	var limit apitype.UserLimit
	long := url.PathEscape(strings.Repeat("é", 62) + "0999")
	s.do("GET", "/api/v1/limits/users/"+long, "", 200, &limit)
	assert.Equal(t, 0, *limit.Limit)
	s.do("PUT", "/api/v1/limits/users/tom%2Fadmin", `{"limit":5}`, 200, &limit)
	assert.Equal(t, "tom/admin", limit.UserID)
	s.do("DELETE", "/api/v1/limits/users/tom%2Fadmin", "", 200, &limit)
}
