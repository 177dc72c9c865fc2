package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestEdge_CORS(t *testing.T) {
	s := newServer(t, Config{Edge: Edge{Origins: []string{"https://app.example", "http://localhost:8080"}}}, &fake{})
	for origin, allowed := range map[string]bool{
		"https://app.example": true, "http://localhost:8080": true,
		"": false, "null": false, "https://app.example.evil.com": false, "https://evil-app.example": false,
		"http://app.example": false, "https://app.example:444": false, "https://APP.example": false,
		"https://app.example/": false, "https://app.example,https://evil.example": false, "file://": false,
		"http://localhost": false, "*": false,
	} {
		want := ""
		if allowed {
			want = origin
		}
		preflight := call(s, "OPTIONS", u+"/start", "", "Origin", origin, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "authorization,content-type")
		assert.Equal(t, want, preflight.Header().Get("Access-Control-Allow-Origin"), origin)
		assert.Equal(t, map[bool]int{true: 204, false: 405}[allowed], preflight.Code, origin)
		if allowed {
			assert.Contains(t, preflight.Header().Get("Access-Control-Allow-Headers"), "Authorization")
			assert.Contains(t, preflight.Header().Get("Access-Control-Allow-Methods"), "PUT")
		}
		for _, w := range []*httptest.ResponseRecorder{
			call(s, "GET", u, "", "Origin", origin), call(s, "GET", "/nowhere", "", "Origin", origin),
		} {
			assert.Equal(t, want, w.Header().Get("Access-Control-Allow-Origin"), origin)
			assert.Contains(t, w.Header().Values("Vary"), "Origin")
			assert.Empty(t, w.Header().Get("Access-Control-Allow-Credentials"))
		}
	}
	w := call(newServer(t, Config{}, &fake{}), "GET", u, "", "Origin", "https://app.example")
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"), "nobody is allowed by default")
	for _, bad := range []string{"*", "https://*.example", "app.example", "https://app.example/", "https://a@app.example", "ftp://app.example", "https://App.example", ""} {
		_, err := New(Config{Edge: Edge{Origins: []string{bad}}})
		require.Error(t, err, bad)
	}
}

// A page of another origin changes nothing where nobody has to say who he is.
func TestEdge_RequestsForgedByAPage(t *testing.T) {
	f := &fake{}
	open := newServer(t, Config{Edge: Edge{Origins: []string{"https://app.example"}}}, f)
	asked := newServer(t, Config{Access: callers}, f)
	const evil = "https://evil.example"
	cross := []string{"Origin", evil, "Sec-Fetch-Site", "cross-site"}
	old := []string{"Origin", evil} // a browser that does not say more
	tests := []struct {
		name, method, target, body string
		header                     []string
		status                     int
	}{
		{"start", "POST", u + "/start", "", cross, 403},
		{"startOfAnOldBrowser", "POST", u + "/start", "", old, 403},
		{"startFromASandbox", "POST", u + "/start", "", []string{"Origin", "null"}, 403},
		{"stopWithoutAnID", "POST", u + "/stop", "", cross, 403},
		{"remove", "DELETE", u, "", cross, 403},
		{"limit", "PUT", "/api/v1/limits/users/maya", `{"limit":60}`, cross, 403},
		{"read", "GET", u, "", cross, 200}, // and the page may not read the answer
		{"beacon", "POST", u + "/streams/stream-1/stop", "", cross, 200},
		{"heartbeat", "POST", u + "/streams/stream-1/heartbeat", "", cross, 200},
		{"allowed", "POST", u + "/start", "", []string{"Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"}, 200},
		{"ownPage", "POST", u + "/start", "", []string{"Origin", "http://example.com", "Sec-Fetch-Site", "same-origin"}, 200},
		{"noBrowser", "POST", u + "/start", "", nil, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.taken()
			w := call(open, tt.method, tt.target, tt.body, tt.header...)
			assert.Equal(t, tt.status, w.Code, w.Body)
			if tt.status == 403 {
				assert.Empty(t, f.taken())
				assert.NotContains(t, w.Body.String(), limitReached.title)
			}
		})
	}
	assert.Equal(t, 200, call(asked, "POST", u+"/start", "", append(cross, asHeader, "maya")...).Code,
		"a page that has a token was given it")
}

func TestEdge_Hosts(t *testing.T) {
	local := Edge{LocalHosts: true, Hosts: []string{"streams.example"}}
	named := Edge{Hosts: []string{"streams.example"}}
	for host, want := range map[string][3]bool{ // any, local, named
		"localhost": {true, true, false}, "localhost:3000": {true, true, false}, "127.0.0.1:3000": {true, true, false},
		"[::1]:3000": {true, true, false}, "::1": {true, true, false}, "a.localhost": {true, true, false},
		"127.8.9.1": {true, true, false}, "LOCALHOST": {true, true, false}, "": {true, true, true},
		"streams.example": {true, true, true}, "Streams.Example:443": {true, true, true},
		"evil.example": {true, false, false}, "evil.example:3000": {true, false, false},
		"localhost.evil.example": {true, false, false}, "127.0.0.1.evil.example": {true, false, false},
		"10.0.0.1": {true, false, false}, "streams.example.evil.example": {true, false, false}, "x": {true, false, false},
	} {
		for i, e := range []Edge{{}, local, named} {
			s := newServer(t, Config{Edge: e}, &fake{})
			r := httptest.NewRequest("GET", u, nil)
			r.Host = host
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			assert.Equal(t, map[bool]int{true: 200, false: 421}[want[i]], w.Code, "%q by %d", host, i)
		}
	}
}

func TestEdge_AddressOf(t *testing.T) {
	e, err := newEdge(Edge{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}})
	require.NoError(t, err)
	tests := []struct{ peer, forwarded, want string }{
		{"203.0.113.7:1", "", "203.0.113.7"},
		{"203.0.113.7:1", "1.2.3.4", "203.0.113.7"},
		{"10.0.0.1:1", "", "10.0.0.1"},
		{"10.0.0.1:1", "203.0.113.7", "203.0.113.7"},
		{"10.0.0.1:1", "6.6.6.6, 203.0.113.7", "203.0.113.7"},
		{"10.0.0.1:1", "203.0.113.7, 10.0.0.2", "203.0.113.7"},
		{"10.0.0.1:1", "203.0.113.7,rubbish", "10.0.0.1"},
		{"10.0.0.1:1", "203.0.113.7, rubbish, 10.0.0.2", "10.0.0.2"},
		{"10.0.0.1:1", "10.0.0.3", "10.0.0.3"},
		{"[::ffff:10.0.0.1]:1", "2001:db8::7", "2001:db8::7"},
		{"[fd00::1]:1", "::ffff:203.0.113.7", "203.0.113.7"},
		{"pipe", "1.2.3.4", "invalid IP"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.peer
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		assert.Equal(t, tt.want, e.addressOf(r).String(), "%+v", tt)
	}
	assert.Equal(t, "2001:db8:0:1::/64", network(netip.MustParseAddr("2001:db8:0:1:2:3:4:5")))
	assert.Equal(t, "203.0.113.7", network(netip.MustParseAddr("203.0.113.7")))
}

// Whatever a client writes into the header before a trusted proxy adds to it, the
// address is what that proxy saw; and who is no proxy is believed nothing.
func TestEdge_NobodyChoosesHisAddress(t *testing.T) {
	e, err := newEdge(Edge{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		hop := rapid.OneOf(rapid.SampledFrom([]string{"10.0.0.9", "1.2.3.4", "", "x", "::1", "10.0.0.1:80", "unknown"}), rapid.String())
		claims := rapid.SliceOfN(hop, 0, 5).Draw(t, "claims")
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["X-Forwarded-For"] = claims
		r.RemoteAddr = "203.0.113.7:1"
		if got := e.addressOf(r).String(); got != "203.0.113.7" {
			t.Fatalf("by itself: %s", got)
		}
		r.RemoteAddr = "10.0.0.1:1"
		r.Header["X-Forwarded-For"] = append(claims, "203.0.113.7")
		if got := e.addressOf(r).String(); got != "203.0.113.7" {
			t.Fatalf("through a proxy: %s", got)
		}
	})
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRates(2)
		for range 20 {
			require.Zero(t, r.take("maya"))
		}
		for range 100 { // being refused costs nothing more
			wait := r.take("maya")
			require.Equal(t, 500*time.Millisecond, wait)
		}
		require.Zero(t, r.take("ben"))
		time.Sleep(500 * time.Millisecond)
		require.Zero(t, r.take("maya"), "whoever waits as long as he was told is let through")
		require.Positive(t, r.take("maya"))
		time.Sleep(time.Hour)
		for range 20 {
			require.Zero(t, r.take("maya"))
		}
		require.Positive(t, r.take("maya"))
	})
	assert.Zero(t, (*rates)(nil).take("maya"))
}

// A flood of made-up names takes bounded memory, and helps nobody who is too fast.
func TestRates_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRates(1)
		for r.take("fast") == 0 {
		}
		for i := range 3 * maxRated * len(r.shards) / 2 {
			r.take(fmt.Sprint("made-up-", i))
		}
		n := 0
		for i := range r.shards {
			require.LessOrEqual(t, len(r.shards[i].of), maxRated)
			n += len(r.shards[i].of)
		}
		require.Positive(t, r.take("fast"), "it is not forgotten")
		time.Sleep(time.Minute)
		for i := range 3 * maxRated * len(r.shards) / 2 {
			r.take(fmt.Sprint("later-", i))
		}
		t.Logf("%d names remembered", n)
	})
}

func TestRates_OfUsersKeysAndAddresses(t *testing.T) {
	const n = 10 // the burst of one a second
	every := Edge{PerUser: 1, PerKey: 1, PerAddress: 1}
	count := func(e Edge, as, method, target string) (ok int) {
		s := newServer(t, Config{Access: callers, Edge: e}, &fake{})
		s.edge.delay = 0
		for range 3 * n {
			w := call(s, method, target, "", asHeader, as)
			if w.Code == http.StatusTooManyRequests {
				assert.NotEmpty(t, w.Header().Get("Retry-After"))
				assert.NotContains(t, w.Body.String(), limitReached.title)
				continue
			}
			ok++
		}
		return ok
	}
	start, beat, list := u+"/start", u+"/streams/stream-1/heartbeat", u
	assert.Equal(t, n, count(Edge{PerUser: 1}, "service", "POST", start))
	assert.Equal(t, n, count(Edge{PerUser: 1}, "maya", "POST", start))
	assert.Equal(t, n, count(Edge{PerUser: 1}, "service", "DELETE", u))
	assert.Equal(t, 3*n, count(Edge{PerUser: 1}, "service", "POST", beat), "heartbeats are free")
	assert.Equal(t, 3*n, count(Edge{PerUser: 1}, "service", "GET", list))
	assert.Equal(t, n, count(Edge{PerKey: 1}, "service", "GET", list))
	assert.Equal(t, 3*n, count(Edge{PerKey: 1}, "maya", "GET", list))
	assert.Equal(t, n, count(Edge{PerAddress: 1}, "anonymous", "POST", beat))
	assert.Equal(t, 3*n, count(every, "anonymous", "GET", "/healthz"))

	s := newServer(t, Config{Access: callers, Edge: Edge{PerUser: 1}}, &fake{})
	s.edge.delay = 0
	for range 3 * n { // refused calls take nothing of what maya may do
		call(s, "POST", start, "", asHeader, "ben")
		call(s, "POST", start, "", asHeader, "reader")
		call(s, "POST", start, "")
		call(s, "POST", u+"/streams/forged/stop", "")
	}
	assert.Equal(t, 200, call(s, "POST", start, "", asHeader, "maya").Code)
	w := call(s, "POST", strings.Replace(start, "maya", "ida", 1), "", asHeader, "service")
	assert.Equal(t, 200, w.Code, "others go on")
}

// Who is too fast is told so a little later: but not so many at once that waiting
// for it becomes a burden, and not whoever has hung up.
func TestRates_RefusalsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := newEdge(Edge{PerUser: 1})
		require.NoError(t, err)
		for e.perUser.take("maya") == 0 {
		}
		began := time.Now()
		refused := func(ctx context.Context) {
			assert.Equal(t, 429, e.tooFast(ctx, e.perUser, "maya", "user").Status)
		}
		for range maxDelayed {
			go refused(t.Context())
		}
		synctest.Wait()
		refused(t.Context())
		assert.Zero(t, time.Since(began), "all places are taken")
		time.Sleep(refusalDelay)
		synctest.Wait()
		assert.Empty(t, e.delayed)

		began = time.Now()
		refused(t.Context())
		assert.Equal(t, refusalDelay, time.Since(began))
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		refused(gone)
		assert.Equal(t, refusalDelay, time.Since(began))
	})
}
