package api

import (
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/gorilla/mux"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/openapi"
	"streamcount/api/internal/router"
)

var (
	dispatchMethods = []string{"POST", "DELETE", "GET", "PUT", "HEAD", "OPTIONS", "post", ""}
	dispatchUsers   = []string{"maya", "a%2Fb", "a%2fb", "%2e%2E", ".", "", "%", "%zz", "a%0Ab", "\n", "\xff", "%FF", "é", "{user}", "start", "streams", "a;b", "a b"}
	dispatchPaths   = []string{"", "/", "*", "//", "api/v1/streams/users/a/start", "/x/api/v1/streams/users/a/start", batchPath, "/api/v1/streams/users"}
	userSuffixes    = []string{
		"", "/", "/start", "/start/", "//start", "/start/x", "/%73tart", "/Start", "/stop", "/stop/", "/streams", "/streams/", "/streams/x", "/streams/x/",
		"/streams/x/heartbeat", "/streams/x/heartbeat/", "/streams//heartbeat", "/streams/%2F/heartbeat", "/streams/a%2Fb/stop", "/streams/x/stop", "/streams/x/stop/stop",
		"/streams/start", "/streams/stop/stop", "/streams/heartbeat/heartbeat", "/streams/x/y/z/heartbeat", "/start%2F", "/{user}", "/streams/{id}/heartbeat",
	}
)

const usersPath = "/api/v1/streams/users/"

// The table of direct calls and the general router agree about every method and path.
func TestDispatch_AgreesWithRouter(t *testing.T) {
	check := newDispatchCheck(t)
	for _, method := range dispatchMethods {
		for _, user := range dispatchUsers {
			for _, suffix := range userSuffixes {
				check(t, method, usersPath+user+suffix)
			}
		}
		for _, path := range dispatchPaths {
			check(t, method, path)
		}
	}
}

func FuzzDispatch_AgreesWithRouter(f *testing.F) {
	for _, method := range dispatchMethods {
		f.Add(method, usersPath+"maya/start")
	}
	for _, user := range dispatchUsers {
		f.Add("POST", usersPath+user+"/streams/x/heartbeat")
	}
	for _, path := range dispatchPaths {
		f.Add("POST", path)
	}
	f.Fuzz(newDispatchCheck(f))
}

// newDispatchCheck returns a function that requires both to agree about a request.
func newDispatchCheck(tb testing.TB) func(t *testing.T, method, raw string) {
	tb.Helper()
	s := newServer(tb, Config{}, nil)
	direct := map[string]bool{batchPath: true}
	for _, suffix := range []string{"/start", "/stop", "/streams/{id}", "/streams/{id}/stop", "/streams/{id}/heartbeat"} {
		direct[openapi.UserPath+suffix] = true
	}
	return func(t *testing.T, method, raw string) {
		t.Helper()
		r := httptest.NewRequest("GET", "/", nil)
		r.Method = method
		path, err := url.PathUnescape(raw)
		if err != nil {
			return
		}
		r.URL = &url.URL{Path: path, RawPath: raw}
		var want mux.RouteMatch
		matched := s.router.Match(r, &want) && want.MatchErr == nil
		template := ""
		if matched {
			template, err = want.Route.GetPathTemplate()
			require.NoError(t, err)
		}
		_, params, ok := s.directCalls.Match(r.Method, r.URL.EscapedPath())
		require.Equal(t, matched && direct[template], ok, "%s %s", method, r.URL.EscapedPath())
		if ok {
			require.Equal(t, router.Params{User: want.Vars["user"], ID: want.Vars["id"]}, params)
			require.Equal(t, strings.Contains(template, "{id}"), params.ID != "")
		}
	}
}
