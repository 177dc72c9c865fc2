package api

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/api/apitype"
	"streamcount/lease"
)

func TestStats_CountWhatHappens(t *testing.T) {
	s := newService(t, 2)
	now := time.Now()
	feed := s.server.backend.Load().Feed
	tickNow := func(at time.Time) {
		s.server.history.tick(tick{at, feed.Activity(), s.server.beats.Load()})
	}
	tickNow(now)
	s.server.sample(t.Context(), feed, now)
	a := s.start("").Stream.ID
	s.start("")
	s.problem("POST", userBase+"/start", "", 403)
	for range 4 {
		s.do("POST", userBase+"/streams/"+a+"/heartbeat", "", 200, &apitype.Stream{})
	}
	var beats apitype.BeatsResult
	s.do("POST", "/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"maya","streamId":"`+a+`"}]}`, 200, &beats)
	s.do("DELETE", userBase+"/streams/"+a, "", 200, &apitype.User{})
	require.Eventually(t, func() bool { return feed.Activity().Stops == 1 }, time.Minute, time.Millisecond)
	tickNow(now.Add(2 * time.Second))
	s.server.sample(t.Context(), feed, now.Add(10*time.Second))

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

	var b apitype.BusiestUsers
	s.do("GET", "/api/v1/streams/users?prefix=ma", "", 200, &b)
	assert.Equal(t, apitype.BusiestUsers{Users: []apitype.BusyUser{{UserID: "maya", Streams: 1, Limit: 2}}}, b)
}

// The server takes its samples itself.
func TestHistory_IsTakenWhileItRuns(t *testing.T) {
	s := newService(t, 2)
	addr, _ := run(t, s.server)
	require.Eventually(t, func() bool { return len(s.server.history.read().Samples) == 1 }, time.Minute, time.Millisecond)
	status, body := get(t, addr, "/api/v1/stats/history")
	assert.Equal(t, 200, status)
	assert.Contains(t, body, `"streams":0`)
}

func TestHistory_IsBounded(t *testing.T) {
	var h history
	for n := range maxSamples + 5 {
		h.add(apitype.Sample{Streams: n}, lease.Activity{Starts: int64(3 * n)})
		h.tick(tick{at: time.Unix(int64(n), 0), done: lease.Activity{Stops: int64(2 * n)}, beats: int64(n)})
	}
	got := h.read().Samples
	require.Len(t, got, maxSamples)
	assert.Equal(t, []int{5, maxSamples + 4}, []int{got[0].Streams, got[maxSamples-1].Streams})
	assert.EqualValues(t, 3, got[0].Starts)
	assert.Equal(t, apitype.Rates{Stops: 2, Heartbeats: 1}, h.rates())

	many := map[string]int{}
	for n := range 80 {
		many[fmt.Sprint("r", n)] = n + 1
	}
	few := fewRegions(many)
	assert.Len(t, few, maxRegions)
	sum := 0
	for _, n := range few {
		sum += n
	}
	assert.Equal(t, 80*81/2, sum)
	assert.Equal(t, 80, few["r79"])
	assert.Equal(t, 31*32/2, few[otherRegion])
}

// Percentiles are within a sixteenth of those of a sorted list.
func TestLatencies_AreNearTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l latencies
		now := time.Unix(1_000_000, 0)
		var all []int64
		for range rapid.IntRange(1, 50).Draw(t, "n") {
			us := int64(math.Exp(rapid.Float64Range(0, 17).Draw(t, "ln")))
			all = append(all, us)
			l.noteAt(timedStop, time.Duration(us)*time.Microsecond, now)
		}
		slices.Sort(all)
		got := l.percentiles(timedStop, now.Add(59*time.Second))
		require.EqualValues(t, len(all), got.Count)
		for want, p := range map[int]float64{50: got.P50, 95: got.P95, 99: got.P99} {
			truth := float64(all[(len(all)*want+99)/100-1]) / 1000
			require.InEpsilon(t, truth, p, 0.05, "p%d of %v", want, all)
		}
		require.Zero(t, l.percentiles(timedStart, now).Count)
		require.Zero(t, l.percentiles(timedStop, now.Add(80*time.Second)).Count, "a minute ago, and more")
		l.noteAt(timedStop, time.Hour, now.Add(70*time.Second)) // the same place of the ring
		require.EqualValues(t, 1, l.percentiles(timedStop, now.Add(70*time.Second)).Count)
	})
}

// The fast path is timed, and what was refused at the door is not. (The stop without a
// credential is refused further in: it might have named a stream.)
func TestLatencies_OfCalls(t *testing.T) {
	s := newServer(t, Config{Access: callers}, &fake{})
	for _, as := range []string{"maya", "ben", "anonymous"} {
		call(s, "POST", u+"/start", "", asHeader, as)
		call(s, "POST", u+"/start", `{"session":"x"}`, asHeader, as)
		call(s, "POST", u+"/stop", "", asHeader, as)
	}
	call(s, "GET", u, "", asHeader, "maya")
	got := s.latency.read(time.Now())
	assert.Equal(t, []int64{2, 0, 2}, []int64{got.Start.Count, got.Heartbeat.Count, got.Stop.Count})
}

func TestBusiest_AreAskedForOnce(t *testing.T) {
	var b busiest
	var mu sync.Mutex
	asked, fail := 0, true
	ask := func(context.Context, string, int) ([]lease.Busy, bool, error) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		if fail {
			return nil, false, errors.New("away")
		}
		return []lease.Busy{{User: fmt.Sprint(asked)}}, false, nil
	}
	_, err := b.read(t.Context(), "", 5, ask)
	require.Error(t, err)
	fail = false
	for range 10 {
		got, err := b.read(t.Context(), "", 5, ask)
		require.NoError(t, err)
		require.Equal(t, "2", got.users[0].User)
	}
	_, err = b.read(t.Context(), "a", 5, ask)
	require.NoError(t, err)
	assert.Equal(t, 3, asked)
	for i := range 100 {
		_, err = b.read(t.Context(), fmt.Sprint(i), 5, ask)
		require.NoError(t, err)
	}
	assert.LessOrEqual(t, len(b.kept), maxBusiest)
}
