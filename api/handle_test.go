package api

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/lease"
	"streamcount/lease/streamid"
)

// maySeeStreamIDs lists the callers who get the ids of maya's streams.
var maySeeStreamIDs = map[string]bool{"service": true, "operator": true, "maya": true}

// No answer has the id of a stream if the caller may not stop it.
func TestHandles_EveryRouteAndCaller(t *testing.T) {
	id := someStream().ID
	full := &lease.LimitError{Limit: 1, Active: []lease.Stream{someStream()}}
	listed := map[string]bool{}
	for _, err := range []error{nil, full} {
		s := withFeed(newServer(t, Config{Access: callers}, &fake{err: err}))
		for route, row := range routeTable {
			for as := range callers {
				w := call(s, strings.Fields(route)[0], row.target, row.body, asHeader, as)
				contains := strings.Contains(w.Body.String(), `"id":"`+id+`"`)
				sent := as == "anonymous" && strings.Contains(row.target+row.body, id)
				assert.True(t, !contains || maySeeStreamIDs[as] || sent, "%s as %s: %s", route, as, w.Body)
				if err == nil && strings.Contains(w.Body.String(), `"handle":"`+streamid.Handle(id)+`"`) {
					listed[as] = true
				}
			}
		}
	}
	assert.Equal(t, map[string]bool{"reader": true}, listed, "callers that get handles")
}

func TestHandles_WithoutAccessControl(t *testing.T) {
	w := call(newServer(t, Config{}, &fake{}), "GET", u, "")
	assert.Contains(t, w.Body.String(), `"id":"`+someStream().ID+`"`)
}

// A handle is the same in lists and events. It cannot be used to renew or stop a stream.
func TestHandles_InAService(t *testing.T) {
	s := newServiceWith(t, 3, Config{Access: callers})
	addr, _ := run(t, s.server)
	reader, operator := listenAs(t, addr, "reader"), listenAs(t, addr, "operator")
	reader.mark()
	operator.mark()
	do := func(method, target, body, as string) (int, apitype.User, apitype.Problem) {
		w := call(s.server, method, target, body, asHeader, as)
		var user apitype.User
		var p apitype.Problem
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &user))
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
		return w.Code, user, p
	}
	_, started, _ := do("POST", u+"/start", "", "service")
	id := started.Stream.ID
	require.NotEmpty(t, id)
	for as, want := range map[string]apitype.Stream{
		"reader": {Handle: streamid.Handle(id)}, "operator": {ID: id}, "service": {ID: id}, "maya": {ID: id},
	} {
		_, list, _ := do("GET", u, "", as)
		require.Len(t, list.Active, 1)
		assert.Equal(t, []string{want.ID, want.Handle}, []string{list.Active[0].ID, list.Active[0].Handle}, as)
	}
	handle := streamid.Handle(id)
	e, cursor := reader.event()
	assert.Equal(t, []string{"start", "", handle}, []string{e.Type, e.Stream.ID, e.Stream.Handle})
	e, _ = operator.event()
	assert.Equal(t, []string{"start", id, ""}, []string{e.Type, e.Stream.ID, e.Stream.Handle})
	assert.NotContains(t, cursor, id)

	for _, as := range []string{"anonymous", "service", "operator", "maya"} {
		for _, c := range []struct{ method, target, body string }{
			{"POST", "/streams/" + handle + "/heartbeat", ""}, {"POST", "/streams/" + handle + "/stop", ""},
			{"DELETE", "/streams/" + handle, ""}, {"POST", "/stop", `{"streamId":"` + handle + `"}`},
		} {
			status, _, p := do(c.method, u+c.target, c.body, as)
			assert.Equal(t, http.StatusUnprocessableEntity, status, "%s %s as %s", c.method, c.target, as)
			assert.Contains(t, p.Detail, "handle")
		}
	}
	status, _, p := do("POST", u+"/start", `{"replaces":"`+handle+`"}`, "service")
	assert.Equal(t, http.StatusUnprocessableEntity, status)
	assert.Contains(t, p.Detail, "handle")
	w := call(s.server, "POST", "/api/v1/streams/heartbeats",
		`{"heartbeats":[{"userId":"maya","streamId":"`+handle+`"}]}`, asHeader, "service")
	assert.Contains(t, w.Body.String(), `"alive":0`)
	_, list, _ := do("GET", u, "", "operator")
	assert.Equal(t, id, list.Active[0].ID, "the stream is still there")

	// A reader may continue at the cursor of an operator, and still gets handles.
	status, _, _ = do("DELETE", u+"/streams/"+id, "", "operator")
	require.Equal(t, 200, status)
	_, operatorsCursor := operator.event()
	_, _, _ = do("POST", u+"/start", "", "service")
	again := listenAs(t, addr, "reader", "Last-Event-ID", operatorsCursor)
	e, _ = again.event()
	assert.Equal(t, "start", e.Type)
	assert.True(t, e.Stream.ID == "" && streamid.IsHandle(e.Stream.Handle))
}

// Exactly the callers who may stop streams get ids.
func TestMaySeeIDs(t *testing.T) {
	for as, c := range callers {
		assert.Equal(t, maySeeStreamIDs[as] || as == "ben", maySeeIDs(c), as)
	}
	assert.True(t, maySeeIDs(access.Caller{Kind: access.Unrestricted}))
}
