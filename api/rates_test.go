package api

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/lease/streamid"
)

// Linearizable lists of one user have a rate limit, which does not apply to other lists of
// the user or to other users.
func TestList_LinearizableRate(t *testing.T) {
	s := newServer(t, Config{}, &fake{count: 1})
	setLoad(s)
	last := 0
	for range 10*overload.LinearizableLists.Max() + 20 {
		last = call(s, "GET", userBase+"?consistency=linearizable", "").Code
	}
	assert.Equal(t, 429, last)
	assert.Equal(t, 200, call(s, "GET", userBase, "").Code)
	assert.Equal(t, 200, call(s, "GET", "/api/v1/streams/users/ben?consistency=linearizable", "").Code)
}

// The event streams of one caller are limited.
func TestEvents_StreamsPerCaller(t *testing.T) {
	s := withFeed(newServer(t, Config{MaxInFlight: 40}, &fake{}))
	addr, _ := run(t, s)
	first := listen(t, addr, "", "")
	first.mark()
	for range 3 {
		listen(t, addr, "", "").mark()
	}
	status, body := get(t, addr, "/api/v1/events")
	assert.Equal(t, 503, status)
	assert.Contains(t, body, overload.EventStreamsPerCaller.Row().Detail)
	first.resp.Body.Close()
	require.Eventually(t, func() bool { return s.load.EventStreams() == 3 }, patience, time.Millisecond)
	listen(t, addr, "", "").mark()
}

// Heartbeats of live streams do not count for their address, so that no stream of many
// viewers behind one address expires. Other heartbeats count.
func TestRatePerAddress_Heartbeats(t *testing.T) {
	f := &fake{count: 1}
	s := newServer(t, Config{RatePerAddress: 1}, f)
	setLoad(s)
	status := func(method, path, body string) (last int) {
		for range 30 {
			last = call(s, method, path, body).Code
		}
		return last
	}
	heartbeat, odd := userBase+"/streams/x/heartbeat", userBase+"/streams/x/heartbeat?"
	assert.Equal(t, 200, status("POST", heartbeat, ""))
	assert.Equal(t, 200, call(s, "GET", userBase, "").Code, "heartbeats take no tokens")
	assert.Equal(t, 429, status("GET", userBase, ""))
	assert.Equal(t, 200, status("POST", heartbeat, ""), "heartbeats need no tokens")
	assert.Equal(t, 429, call(s, "POST", batchPath, `{"heartbeats":[{"userId":"maya","streamId":"x"}]}`).Code)
	f.err = streamid.ErrForeign
	assert.Equal(t, 429, status("POST", heartbeat, ""))
	assert.Equal(t, 429, status("POST", odd, ""))
}

// Heartbeats that no handler receives count too.
func TestRatePerAddress_MalformedHeartbeats(t *testing.T) {
	const n = 10 // the burst of one a second
	for _, path := range []string{
		userBase + "/streams/!!/heartbeat", userBase + "/streams/" + strings.Repeat("x", 65) + "/heartbeat",
		"/api/v1/streams/users/%01/streams/x/heartbeat", "/api/v1/streams/users/heartbeat", userBase + "/x/y/heartbeat",
	} {
		s := newServer(t, Config{RatePerAddress: 1}, &fake{count: 1})
		setLoad(s)
		statuses := map[int]int{}
		for range 2 * n {
			statuses[call(s, "POST", path, "").Code]++
		}
		assert.Equal(t, n, statuses[429], "%s: %v", path, statuses)
	}
}

func TestRates(t *testing.T) {
	const n = 10 // the burst of one a second
	every := Config{RatePerUser: 1, RatePerKey: 1, RatePerAddress: 1}
	count := func(cfg Config, as, method, target string) (ok int) {
		cfg.Access = callers
		s := newServer(t, cfg, &fake{})
		setLoad(s)
		for range 3 * n {
			w := call(s, method, target, "", asHeader, as)
			if w.Code == http.StatusTooManyRequests {
				assert.NotEmpty(t, w.Header().Get("Retry-After"))
				assert.NotContains(t, w.Body.String(), problem.LimitReached.Title)
				continue
			}
			ok++
		}
		return ok
	}
	start, heartbeat, list := u+"/start", u+"/streams/stream-1/heartbeat", u
	assert.Equal(t, n, count(Config{RatePerUser: 1}, "service", "POST", start))
	assert.Equal(t, n, count(Config{RatePerUser: 1}, "maya", "POST", start))
	assert.Equal(t, n, count(Config{RatePerUser: 1}, "service", "DELETE", u))
	assert.Equal(t, 3*n, count(Config{RatePerUser: 1}, "service", "POST", heartbeat), "heartbeats have no limit")
	assert.Equal(t, 3*n, count(Config{RatePerUser: 1}, "maya", "POST", batchPath), "batches have no limit either")
	assert.Equal(t, 3*n, count(Config{RatePerUser: 1}, "service", "GET", list))
	assert.Equal(t, n, count(Config{RatePerKey: 1}, "service", "GET", list))
	assert.Equal(t, 3*n, count(Config{RatePerKey: 1}, "maya", "GET", list))
	assert.Equal(t, 3*n, count(Config{RatePerAddress: 1}, "anonymous", "POST", heartbeat), "heartbeats of live streams have no limit")
	assert.Equal(t, n, count(Config{RatePerAddress: 1}, "anonymous", "POST", start))
	assert.Equal(t, n, count(Config{RatePerAddress: 1}, "bad", "POST", batchPath), "rejected batches count for their address")
	assert.Equal(t, 3*n, count(every, "anonymous", "GET", "/healthz"))

	s := newServer(t, Config{Access: callers, RatePerUser: 1}, &fake{})
	setLoad(s)
	for range 3 * n { // rejected calls take no tokens of maya
		call(s, "POST", start, "", asHeader, "ben")
		call(s, "POST", start, "", asHeader, "reader")
		call(s, "POST", start, "")
		call(s, "POST", u+"/streams/forged/stop", "")
	}
	assert.Equal(t, 200, call(s, "POST", start, "", asHeader, "maya").Code)
	w := call(s, "POST", strings.Replace(start, "maya", "ida", 1), "", asHeader, "service")
	assert.Equal(t, 200, w.Code, "other users have their own rate")
}
