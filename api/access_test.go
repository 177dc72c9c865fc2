package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/problem"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// byHeader is an Access that identifies a caller by the value of the header X-As.
type byHeader map[string]access.Caller

const asHeader = "X-As"

func (b byHeader) Authenticate(r *http.Request) (access.Caller, error) {
	switch as := r.Header.Get(asHeader); as {
	case "bad":
		return access.Caller{}, fmt.Errorf("%w: it has expired", access.ErrCredential)
	case "unsure":
		return access.Caller{}, access.ErrUnavailable
	default:
		return b[as], nil
	}
}

var callers = byHeader{
	"anonymous": {},
	"service":   {Kind: access.Service, Name: "backend"},
	"reader":    {Kind: access.Reader, Name: "reports"},
	"operator":  {Kind: access.Operator, Name: "dana"},
	"scraper":   {Kind: access.Scraper, Name: "prometheus"},
	"maya":      {Kind: access.Viewer, Name: "maya"},
	"ben":       {Kind: access.Viewer, Name: "ben"},
}

// routeTable has each route, with a request and the status for each caller. The user of each
// request, if it has one, is maya.
var routeTable = map[string]struct {
	target, body string
	answers      map[string]int
}{
	"POST " + openapi.UserPath + "/streams/{id}/heartbeat": {u + "/streams/stream-1/heartbeat", "", ofAStream},
	"POST " + openapi.UserPath + "/streams/{id}/stop":      {u + "/streams/stream-1/stop", "", ofAStream},
	"DELETE " + openapi.UserPath + "/streams/{id}":         {u + "/streams/stream-1", "", ofAStream},
	"POST " + openapi.UserPath + "/stop": {u + "/stop", "", map[string]int{
		"anonymous": 401, "service": 200, "reader": 403, "operator": 200, "scraper": 403, "maya": 200, "ben": 404}},
	"POST " + openapi.UserPath + "/start": {u + "/start", "", map[string]int{
		"anonymous": 401, "service": 200, "reader": 403, "operator": 403, "scraper": 403, "maya": 200, "ben": 404}},
	"GET " + openapi.UserPath: {u, "", map[string]int{
		"anonymous": 401, "service": 200, "reader": 200, "operator": 200, "scraper": 403, "maya": 200, "ben": 404}},
	"DELETE " + openapi.UserPath: {u, "", map[string]int{
		"anonymous": 401, "service": 200, "reader": 403, "operator": 200, "scraper": 403, "maya": 200, "ben": 404}},
	"POST /api/v1/streams/heartbeats": {
		"/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"maya","streamId":"stream-1"}]}`, ofAStream},
	"GET /api/v1/stats":                {"/api/v1/stats", "", ofOperators},
	"GET /api/v1/stats/history":        {"/api/v1/stats/history", "", ofOperators},
	"GET /api/v1/stats/concurrency":    {"/api/v1/stats/concurrency", "", ofOperators},
	"GET /api/v1/streams/users":        {"/api/v1/streams/users?prefix=ma", "", ofOperators},
	"GET /api/v1/events":               {"/api/v1/events", "", ofOperators},
	"GET " + limitsPath:                {"/api/v1/limits/users/maya", "", ofOperators},
	"PUT " + limitsPath:                {"/api/v1/limits/users/maya", `{"limit":2}`, writingRules},
	"DELETE " + limitsPath:             {"/api/v1/limits/users/maya", "", writingRules},
	"GET " + limitsPath + "/explain":   {"/api/v1/limits/users/maya/explain", "", ofOperators},
	"POST /api/v1/plans/try":           {"/api/v1/plans/try", `{"plan":{"limit":1}}`, ofOperators},
	"GET /api/v1/plans":                {"/api/v1/plans", "", ofOperators},
	"GET /api/v1/plans/{plan}":         {"/api/v1/plans/family", "", ofOperators},
	"PUT /api/v1/plans/{plan}":         {"/api/v1/plans/family", `{"limit":2}`, writingRules},
	"DELETE /api/v1/plans/{plan}":      {"/api/v1/plans/family", "", writingRules},
	"POST /api/v1/rules":               {"/api/v1/rules", `{}`, writingRules},
	"GET " + dataPath:                  {"/api/v1/data/users/maya", "", writingRules},
	"DELETE " + dataPath:               {"/api/v1/data/users/maya", "", writingRules},
	"GET /api/v1/token-keys":           {"/api/v1/token-keys", "", ofOperators},
	"POST /api/v1/token-keys/rotate":   {"/api/v1/token-keys/rotate", `{}`, writingRules},
	"POST /api/v1/streams/end":         {"/api/v1/streams/end", `{"where":{"region":"eu"}}`, writingRules},
	"GET /docs/{file:[A-Za-z0-9._-]+}": {"/docs/none", "", everybody(404)},
	"GET /healthz":                     {"/healthz", "", public},
	"GET /readyz":                      {"/readyz", "", public},
	"GET /metrics": {"/metrics", "", map[string]int{
		"anonymous": 401, "service": 200, "reader": 200, "operator": 200, "scraper": 200, "maya": 403, "ben": 403}},
	"GET /problems/{name}":  {"/problems/limit-reached", "", public},
	"GET /favicon.ico":      {"/favicon.ico", "", everybody(204)},
	"GET /":                 {"/", "", redirect},
	"GET /docs":             {"/docs", "", public},
	"GET /openapi.json":     {"/openapi.json", "", public},
	"GET /openapi-3.0.json": {"/openapi-3.0.json", "", public},
}

const u = "/api/v1/streams/users/maya"

var (
	ofAStream = map[string]int{
		"anonymous": 200, "service": 200, "reader": 403, "operator": 200, "scraper": 403, "maya": 200, "ben": 404}
	ofOperators = map[string]int{
		"anonymous": 401, "service": 200, "reader": 200, "operator": 200, "scraper": 403, "maya": 403, "ben": 403}
	writingRules = map[string]int{
		"anonymous": 401, "service": 200, "reader": 403, "operator": 200, "scraper": 403, "maya": 403, "ben": 403}
	public   = everybody(200)
	redirect = everybody(302)
)

func everybody(status int) map[string]int {
	out := map[string]int{}
	for as := range callers {
		out[as] = status
	}
	return out
}

// Each route is called by each kind of caller. A route that is not in the table fails the test.
func TestAccess_EveryRouteAndCaller(t *testing.T) {
	f := &fake{}
	s := withFeed(newServer(t, Config{Access: callers}, f))
	var routes []string
	require.NoError(t, s.router.Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		require.NoError(t, err)
		methods, err := r.GetMethods()
		require.NoError(t, err)
		for _, m := range methods {
			routes = append(routes, m+" "+path)
		}
		return nil
	}))
	require.ElementsMatch(t, routes, slices.Collect(maps.Keys(routeTable)), "a route is missing from the table")
	for _, route := range slices.Sorted(maps.Keys(routeTable)) {
		row, method := routeTable[route], strings.Fields(route)[0]
		require.Len(t, row.answers, len(callers), route)
		var line []string
		for _, as := range slices.Sorted(maps.Keys(callers)) {
			f.taken()
			w := call(s, method, row.target, row.body, asHeader, as)
			assert.Equal(t, row.answers[as], w.Code, "%s as %s: %s", route, as, w.Body)
			line = append(line, fmt.Sprintf("%s %d", as, w.Code))
			if w.Code >= 400 && strings.HasPrefix(row.target, "/api/") {
				assert.Empty(t, f.taken(), "%s as %s reached the limiter", route, as)
				var p apitype.Problem
				require.NoError(t, json.Unmarshal(w.Body.Bytes(), &p))
				assert.NotEqual(t, problem.LimitReached.Title, p.Title)
			}
		}
		t.Logf("%-55s %s", route, strings.Join(line, "  "))
		if row.answers["maya"] == 200 && strings.HasPrefix(row.target, "/api/") {
			for as, status := range map[string]int{"bad": 401, "unsure": 503} {
				if row.answers["anonymous"] == 200 {
					status = 200 // an expired token does not end a stream
				}
				w := call(s, method, row.target, row.body, asHeader, as)
				assert.Equal(t, status, w.Code, "%s as %s", route, as)
			}
		}
	}
}

// A viewer who requests the path of another user gets the same answer whatever its streams.
func TestAccess_OtherUsersAreNotRevealed(t *testing.T) {
	var answers []string
	for _, err := range []error{nil, lease.ErrNoStreams, &lease.EndedError{Reason: policy.ReasonStopped}} {
		s := newServer(t, Config{Access: callers}, &fake{err: err})
		for _, user := range []string{"maya", "nobody", "a%2Eb"} {
			w := call(s, "GET", "/api/v1/streams/users/"+user, "", asHeader, "ben")
			answers = append(answers, fmt.Sprint(w.Code, w.Header(), w.Body))
		}
	}
	assert.Len(t, slices.Compact(answers), 1, "%v", answers)
}

func TestAccess_NoStreamIDAccess(t *testing.T) {
	s := newServer(t, Config{Access: callers, NoStreamIDAccess: true}, &fake{})
	for route, row := range routeTable {
		if row.answers["anonymous"] == 200 && strings.HasPrefix(row.target, "/api/") {
			method := strings.Fields(route)[0]
			assert.Equal(t, 401, call(s, method, row.target, row.body).Code, route)
			assert.Equal(t, 200, call(s, method, row.target, row.body, asHeader, "maya").Code, route)
		}
	}
}

func TestAccess_AStopWithoutACredentialNeedsAnID(t *testing.T) {
	s := newServer(t, Config{Access: callers}, &fake{})
	assert.Equal(t, 200, call(s, "POST", u+"/stop", `{"streamId":"stream-1"}`).Code)
	for _, body := range []string{"", "{}"} {
		w := call(s, "POST", u+"/stop", body)
		assert.Equal(t, 401, w.Code)
		assert.Equal(t, "Bearer", w.Header().Get("WWW-Authenticate"))
	}
}

func TestAccess_ABatchIsOfOneViewer(t *testing.T) {
	s := newServer(t, Config{Access: callers}, &fake{})
	body := `{"heartbeats":[{"userId":"maya","streamId":"stream-1"},{"userId":"ben","streamId":"stream-1"}]}`
	for as, status := range map[string]int{"anonymous": 200, "service": 200, "operator": 200, "maya": 404, "ben": 404} {
		assert.Equal(t, status, call(s, "POST", "/api/v1/streams/heartbeats", body, asHeader, as).Code, as)
	}
}

// The plan in the claims of a viewer's token reaches the limiter, whatever the body contains.
func TestAccess_ClaimsOfAViewer(t *testing.T) {
	five := 5
	f := &fake{}
	s := newServer(t, Config{Access: byHeader{
		"maya":    {Kind: access.Viewer, Name: "maya", Plan: "family", Limit: &five},
		"service": {Kind: access.Service, Name: "backend"},
	}}, f)
	for _, body := range []string{"", `{"session":"tv"}`} {
		require.Equal(t, 200, call(s, "POST", u+"/start", body, asHeader, "maya").Code)
		assert.Contains(t, f.taken()[0], "Grant:family")
	}
	f.taken()
	require.Equal(t, 200, call(s, "POST", u+"/start", "", asHeader, "service").Code)
	assert.Contains(t, f.taken()[0], "Grant: ")
}

func TestAccess_LogsNameTheCallerAndNoCredential(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{
		Access: callers, Log: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, &fake{err: errors.New("boom")})
	call(s, "DELETE", u, "", asHeader, "operator", "Authorization", "Bearer canary-secret")
	call(s, "POST", u+"/start", "{", asHeader, "bad", "Authorization", "Bearer canary-secret")
	assert.Contains(t, log.String(), `"caller":"operator dana"`)
	assert.NotContains(t, log.String(), "canary")
}
