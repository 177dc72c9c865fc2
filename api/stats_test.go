package api

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/api/apitype"
	"streamcount/api/internal/latency"
)

func TestStats_Counters(t *testing.T) {
	s := newService(t, 2)
	now := time.Now()
	feed := s.server.backend.Load().Feed
	require.True(t, s.server.history.Record(t.Context(), historySource{s.server}, now, true))
	a := s.start("").Stream.ID
	s.start("")
	s.problem("POST", userBase+"/start", "", 403)
	for range 4 {
		s.do("POST", userBase+"/streams/"+a+"/heartbeat", "", 200, &apitype.Stream{})
	}
	var batch apitype.HeartbeatsResult
	s.do("POST", "/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"maya","streamId":"`+a+`"}]}`, 200, &batch)
	s.do("DELETE", userBase+"/streams/"+a, "", 200, &apitype.User{})
	require.Eventually(t, func() bool { return feed.Activity().Stops == 1 }, time.Minute, time.Millisecond)
	require.True(t, s.server.history.Record(t.Context(), historySource{s.server}, now.Add(2*time.Second), true))

	var stats apitype.Stats
	s.do("GET", "/api/v1/stats", "", 200, &stats)
	assert.Equal(t, apitype.Rates{Starts: 1, Stops: 0.5, Refusals: 0.5, Heartbeats: 2.5}, stats.Rates)
	assert.Equal(t, []int64{3, 4, 1}, []int64{stats.Latency.Start.Count, stats.Latency.Heartbeat.Count, stats.Latency.Stop.Count})
	assert.Positive(t, stats.Latency.Start.P50)
	assert.LessOrEqual(t, stats.Latency.Start.P50, stats.Latency.Start.P99)

	var h apitype.History
	s.do("GET", "/api/v1/stats/history", "", 200, &h)
	require.Len(t, h.Samples, 2)
	last := h.Samples[1]
	assert.Equal(t, apitype.Sample{
		At: last.At, Streams: 1, Users: 1, Starts: 2, Stops: 1, Refusals: 1, Regions: map[string]int{"eu": 1},
	}, last)
	assert.Equal(t, 10, h.EverySeconds)

	var c apitype.Concurrency
	s.do("GET", "/api/v1/stats/concurrency", "", 200, &c)
	assert.Equal(t, []apitype.ReachedCount{{Streams: 1, Users: 1}, {Streams: 2, Users: 1}}, c.Reached)
	assert.Equal(t, []apitype.RefusedCount{{Limit: 2, Users: 1, Starts: 1}}, c.Refused)

	var b apitype.TopUsers
	s.do("GET", "/api/v1/streams/users?prefix=ma", "", 200, &b)
	assert.Equal(t, apitype.TopUsers{Users: []apitype.TopUser{{UserID: "maya", Streams: 1, Limit: 2}}}, b)
}

// A running server takes samples for the history.
func TestHistory_IsTakenWhileItRuns(t *testing.T) {
	s := newService(t, 2)
	addr, _ := run(t, s.server)
	require.Eventually(t, func() bool { return len(s.server.history.Samples()) == 1 }, time.Minute, time.Millisecond)
	status, body := get(t, addr, "/api/v1/stats/history")
	assert.Equal(t, 200, status)
	assert.Contains(t, body, `"streams":0`)
}

// Percentiles differ from those of a sorted list by at most a sixteenth.
func TestLatencies_AreAccurate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l latency.Recorder
		now := time.Unix(1_000_000, 0)
		var all []int64
		for range rapid.IntRange(1, 50).Draw(t, "n") {
			us := int64(math.Exp(rapid.Float64Range(0, 17).Draw(t, "ln")))
			all = append(all, us)
			l.ObserveAt(latency.Stop, time.Duration(us)*time.Microsecond, now)
		}
		slices.Sort(all)
		got := l.Percentiles(latency.Stop, now.Add(59*time.Second))
		require.EqualValues(t, len(all), got.Count)
		for want, p := range map[int]float64{50: got.P50, 95: got.P95, 99: got.P99} {
			exact := float64(all[(len(all)*want+99)/100-1]) / 1000
			require.InEpsilon(t, exact, p, 0.05, "p%d of %v", want, all)
		}
		require.Zero(t, l.Percentiles(latency.Start, now).Count)
		require.Zero(t, l.Percentiles(latency.Stop, now.Add(80*time.Second)).Count, "older than a minute")
		l.ObserveAt(latency.Stop, time.Hour, now.Add(70*time.Second)) // the same slot of the ring
		require.EqualValues(t, 1, l.Percentiles(latency.Stop, now.Add(70*time.Second)).Count)
	})
}

// Calls are timed, except those that are rejected before their handler. A stop without a
// credential is rejected in its handler, because its body may have the id of a stream.
func TestLatencies_OfCalls(t *testing.T) {
	s := newServer(t, Config{Access: callers}, &fake{})
	for _, as := range []string{"maya", "ben", "anonymous"} {
		call(s, "POST", u+"/start", "", asHeader, as)
		call(s, "POST", u+"/start", `{"session":"x"}`, asHeader, as)
		call(s, "POST", u+"/stop", "", asHeader, as)
	}
	call(s, "GET", u, "", asHeader, "maya")
	got := s.latency.Read(time.Now())
	assert.Equal(t, []int64{2, 0, 2}, []int64{got.Start.Count, got.Heartbeat.Count, got.Stop.Count})
}
