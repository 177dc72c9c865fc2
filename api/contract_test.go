package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/events"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

// A service is a Server with a Limiter on etcd.
type service struct {
	t        *testing.T
	server   *Server
	contract contract
}

func newService(t *testing.T, limit int) service {
	t.Helper()
	return newServiceWith(t, limit, Config{})
}

func newServiceWith(t *testing.T, limit int, cfg Config) service {
	t.Helper()
	feed := events.NewFeed()
	l, err := lease.New(lease.FromClient(etcdtest.Client(t)), lease.Config{
		Prefix: etcdtest.Prefix(t), Limit: limit, Region: "eu", Secret: []byte("0123456789abcdef"), Timeout: time.Minute, Observer: feed.Publisher(""),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	s, err := New(cfg)
	require.NoError(t, err)
	s.SetBackend(Backend{Limiter: l, Ready: func(context.Context) error { return nil }, TopUsers: l.TopUsers, Feed: feed})
	return service{t, s, loadContract(t)}
}

// do makes a call, checks its answer against the OpenAPI documents, and decodes it.
func (s service) do(method, target, body string, status int, into any) http.Header {
	s.t.Helper()
	w := call(s.server, method, target, body)
	require.Equal(s.t, status, w.Code, "%s %s: %s", method, target, w.Body)
	s.contract.check(s.t, &exchange{about: method + " " + target, method: method, target: target, body: body}, w)
	if status >= 400 {
		require.Equal(s.t, problem.MediaType, w.Header().Get("Content-Type"))
	}
	require.NoError(s.t, json.Unmarshal(w.Body.Bytes(), into))
	return w.Header()
}

func (s service) start(body string) apitype.User {
	s.t.Helper()
	var u apitype.User
	s.do("POST", userBase+"/start", body, 200, &u)
	require.NotNil(s.t, u.Stream)
	return u
}

func (s service) problem(method, target, body string, status int) apitype.Problem {
	s.t.Helper()
	var p apitype.Problem
	s.do(method, target, body, status, &p)
	require.Equal(s.t, status, p.Status)
	require.Equal(s.t, p.Title, p.Text)
	return p
}

func TestContract_StreamLifecycle(t *testing.T) {
	s := newService(t, 3)
	assert.Equal(t, "User not found", s.problem("GET", userBase, "", 404).Title)

	before := time.Now()
	started := s.start(`{"session":"tab-1","device":{"name":"TV","type":"tv"},"content":{"title":"Metropolis"}}`)
	assert.Equal(t, []any{"maya", 1, 3}, []any{started.UserID, started.Streams, started.Limit})
	st := started.Stream
	assert.Equal(t, []any{90, 30, "eu", "tab-1"}, []any{st.TTLSeconds, st.HeartbeatSeconds, st.Region, st.Session})
	assert.Equal(t, &apitype.Device{Name: "TV", Type: "tv"}, st.Device)
	assert.Equal(t, &apitype.Content{Title: "Metropolis"}, st.Content)
	assert.WithinRange(t, st.ExpiresAt.Time, before.Add(67*time.Second), time.Now().Add(90*time.Second))
	assert.Regexp(t, `^[A-Za-z0-9_-]{1,64}$`, st.ID)

	var renewed apitype.Stream
	s.do("POST", userBase+"/streams/"+st.ID+"/heartbeat", "", 200, &renewed)
	assert.Equal(t, st.ID, renewed.ID)
	assert.False(t, renewed.ExpiresAt.Before(st.ExpiresAt.Time))
	assert.False(t, renewed.Degraded)

	var u apitype.User
	s.do("GET", userBase, "", 200, &u)
	require.Len(t, u.Active, 1)
	assert.Equal(t, st.ID, u.Active[0].ID)
	assert.Equal(t, st.StartedAt.UnixMilli(), u.Active[0].StartedAt.UnixMilli())

	s.do("DELETE", userBase+"/streams/"+st.ID, "", 200, &u)
	assert.Equal(t, 0, u.Streams)
	assert.Equal(t, "User has no active streams and has been removed from tracking", u.Message)
	for _, again := range [][2]string{
		{"DELETE", userBase + "/streams/" + st.ID}, {"POST", userBase + "/streams/" + st.ID + "/stop"},
		{"POST", userBase + "/streams/" + st.ID + "/heartbeat"},
	} {
		p := s.problem(again[0], again[1], "", 410)
		assert.Equal(t, "stopped", p.Reason)
	}
	s.problem("GET", userBase, "", 404)
}

func TestContract_TheLimit(t *testing.T) {
	s := newService(t, 3)
	var ids []string
	for n := 1; n <= 3; n++ {
		u := s.start(fmt.Sprintf(`{"device":{"name":"device %d"}}`, n))
		assert.Equal(t, n, u.Streams)
		ids = append(ids, u.Stream.ID)
	}
	var p apitype.Problem
	header := s.do("POST", userBase+"/start", "{}", 403, &p)
	assert.Equal(t, "Maximum number of streams reached", p.Title)
	assert.Equal(t, "Maximum number of streams reached", p.Text)
	assert.Equal(t, []int{3, 3}, []int{*p.Limit, *p.Streams})
	require.Len(t, p.Active, 3)
	for i, a := range p.Active {
		assert.Equal(t, []string{ids[i], fmt.Sprintf("device %d", i+1)}, []string{a.ID, a.Device.Name})
		assert.NotNil(t, a.ExpiresAt)
	}
	assert.Regexp(t, `^(8[5-9]|90)$`, header.Get("Retry-After"))

	handed := s.start(`{"replaces":"` + ids[0] + `","device":{"name":"new"}}`)
	assert.Equal(t, 3, handed.Streams)
	gone := s.problem("POST", userBase+"/streams/"+ids[0]+"/heartbeat", "", 410)
	assert.Equal(t, "replaced", gone.Reason)
	assert.Equal(t, "new", gone.By.Device.Name)
	assert.NotNil(t, gone.By.StartedAt)

	evicting := s.start(`{"onLimit":"replace-oldest"}`)
	assert.Equal(t, 3, evicting.Streams)
	assert.Equal(t, "evicted", s.problem("POST", userBase+"/streams/"+ids[1]+"/heartbeat", "", 410).Reason)

	var removed apitype.Removed
	s.do("DELETE", userBase, "", 200, &removed)
	assert.Equal(t, apitype.Removed{UserID: "maya", Message: "User removed from tracking"}, removed)
	assert.Equal(t, "removed", s.problem("POST", userBase+"/streams/"+ids[2]+"/heartbeat", "", 410).Reason)
	assert.Equal(t, "User not found", s.problem("DELETE", userBase, "", 404).Title)
}

// Clients of the old service send no stream ids.
func TestContract_StopWithoutAnID(t *testing.T) {
	s := newService(t, 3)
	assert.Equal(t, "User has no active streams to stop", s.problem("POST", userBase+"/stop", "", 404).Title)
	s.start("")
	st := s.start("").Stream
	var u apitype.User
	s.do("POST", userBase+"/stop", "", 200, &u)
	assert.Equal(t, 1, u.Streams)
	assert.Empty(t, u.Message)
	s.do("POST", userBase+"/stop", `{"streamId":"`+st.ID+`"}`, 200, &u)
	assert.Equal(t, 0, u.Streams)
	s.problem("POST", userBase+"/stop", `{"streamId":"`+st.ID+`"}`, 410)
}

func TestContract_ASessionTakesOver(t *testing.T) {
	s := newService(t, 1)
	first := s.start(`{"session":"tab"}`)
	second := s.start(`{"session":"tab"}`)
	assert.Equal(t, 1, second.Streams)
	assert.NotEqual(t, first.Stream.ID, second.Stream.ID)
	s.problem("POST", userBase+"/start", `{"session":"other"}`, 403)
	assert.Equal(t, "replaced", s.problem("DELETE", userBase+"/streams/"+first.Stream.ID, "", 410).Reason)
}

func TestContract_AnotherUsersStream(t *testing.T) {
	s := newService(t, 3)
	id := s.start("").Stream.ID
	const ben = "/api/v1/streams/users/ben"
	var u apitype.User
	s.do("POST", ben+"/start", "", 200, &u)
	s.problem("POST", ben+"/streams/"+id+"/heartbeat", "", 404)
	s.problem("POST", ben+"/streams/"+id+"/stop", "", 404)
	s.problem("DELETE", ben+"/streams/"+id, "", 404)
	s.problem("POST", ben+"/stop", `{"streamId":"`+id+`"}`, 404)
	s.problem("POST", ben+"/start", `{"replaces":"`+id+`"}`, 404)
	s.problem("DELETE", ben+"/streams/zzz", "", 422)
	s.do("GET", userBase, "", 200, &u)
	assert.Equal(t, 1, u.Streams)
	for bit := range len(id) { // with one character changed, at each position
		forged := []byte(id)
		forged[bit] ^= 1
		code := 0
		// While the replica is not current, the id may be one of a secret that the node has not read.
		require.Eventually(t, func() bool {
			code = call(s.server, "DELETE", userBase+"/streams/"+string(forged), "").Code
			return code != 503
		}, time.Minute, time.Millisecond)
		assert.Contains(t, []int{404, 422}, code, "%s", forged)
	}
}

func TestContract_ManyHeartbeats(t *testing.T) {
	s := newService(t, 3)
	alive, stopped := s.start("").Stream.ID, s.start("").Stream.ID
	call(s.server, "DELETE", userBase+"/streams/"+stopped, "")
	var got apitype.HeartbeatsResult
	s.do("POST", "/api/v1/streams/heartbeats", `{"heartbeats":[
		{"userId":"maya","streamId":"`+alive+`"}, {"userId":"maya","streamId":"`+stopped+`"},
		{"userId":"ben","streamId":"`+alive+`"}, {"userId":"maya","streamId":"zzz"}, {"userId":"a/b","streamId":"zzz"}]}`, 200, &got)
	assert.Equal(t, apitype.HeartbeatsResult{Alive: 1, Ended: []apitype.EndedHeartbeat{
		{UserID: "maya", StreamID: stopped, Reason: "stopped"},
		{UserID: "ben", StreamID: alive, Reason: "ended"},
		{UserID: "maya", StreamID: "zzz", Reason: "ended"},
		{UserID: "a/b", StreamID: "zzz", Reason: "ended"},
	}}, got)
}

func TestContract_Stats(t *testing.T) {
	s := newService(t, 1)
	s.start("")
	s.problem("POST", userBase+"/start", "", 403)
	var got apitype.Stats
	s.do("GET", "/api/v1/stats", "", 200, &got)
	assert.Equal(t, []int{1, 1, 1}, []int{got.Streams, got.Users, got.UsersAtLimit})
	assert.Equal(t, map[string]int{"eu": 1}, got.Regions)
	assert.Equal(t, []int64{1, 1, 0}, []int64{got.Admitted, got.Refused, got.Expired})
}

// 12 concurrent starts for each of 30 users, over HTTP.
func TestContract_Race(t *testing.T) {
	s := newService(t, 3)
	var mu sync.Mutex
	answers := map[int]int{}
	var wg sync.WaitGroup
	for i := range 30 * 12 {
		wg.Go(func() {
			r := httptest.NewRequest("POST", fmt.Sprintf("/api/v1/streams/users/user-%d/start", i%30), nil)
			w := httptest.NewRecorder()
			s.server.Handler().ServeHTTP(w, r)
			mu.Lock()
			defer mu.Unlock()
			answers[w.Code]++
		})
	}
	wg.Wait()
	assert.Equal(t, map[int]int{200: 30 * 3, 403: 30 * 9}, answers)
}
