package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"streamcount/lease"
	"streamcount/lease/bulkend"
	"streamcount/lease/policy"
)

// in and not return conditions.
func in(a policy.Attribute, values ...string) policy.Condition {
	return policy.Condition{Attribute: a, In: values}
}

func not(a policy.Attribute, values ...string) policy.Condition {
	return policy.Condition{Attribute: a, Not: values}
}

func film(id string) lease.Request { return lease.Request{Content: lease.Content{ID: id}} }

func startOn(t *testing.T, r *Router, user string, req lease.Request) lease.Stream {
	t.Helper()
	st, err := r.Start(t.Context(), user, req)
	require.NoError(t, err)
	return st.Stream
}

func endStreams(t *testing.T, r *Router, q bulkend.Query) bulkend.Result {
	t.Helper()
	res, err := r.EndStreams(t.Context(), q)
	require.NoError(t, err)
	return res
}

// reasonOf returns why a stream has ended, or "" if it runs.
func reasonOf(t *testing.T, r *Router, s lease.Stream) policy.Reason {
	t.Helper()
	var got lease.Stream
	var err error
	require.Eventually(t, func() bool {
		got, err = r.Heartbeat(t.Context(), s.User, s.ID)
		return !got.Degraded // otherwise etcd did not answer in time
	}, soon, time.Millisecond)
	if ended, ok := errors.AsType[*lease.EndedError](err); ok {
		return ended.Reason
	}
	require.NoError(t, err)
	return ""
}

// requireReason sends heartbeats until the node reports why a stream has ended. A node answers
// by its replica, which may be behind.
func requireReason(t *testing.T, r *Router, s lease.Stream, want policy.Reason) {
	t.Helper()
	var got policy.Reason
	require.Eventually(t, func() bool {
		got = reasonOf(t, r, s)
		return got != ""
	}, soon, time.Millisecond, s.User)
	require.Equal(t, want, got, s.User)
}

// reasonsOf returns reasonOf of many streams, of which up to running may run. It sends their
// heartbeats at once, because those of ended streams wait for a read.
func reasonsOf(t *testing.T, r *Router, streams []lease.Stream, running int) []policy.Reason {
	t.Helper()
	requests := make([]lease.HeartbeatRequest, len(streams))
	for i, s := range streams {
		requests[i] = lease.HeartbeatRequest{User: s.User, ID: s.ID}
	}
	reasons := make([]policy.Reason, len(streams))
	require.Eventually(t, func() bool {
		alive := 0
		for i, res := range r.Heartbeats(t.Context(), requests) {
			if ended, ok := errors.AsType[*lease.EndedError](res.Err); ok {
				reasons[i] = ended.Reason
				continue
			}
			assert.NoError(t, res.Err)
			alive++
		}
		return alive <= running
	}, soon, time.Millisecond)
	return reasons
}

// Streams on two shards are selected by every attribute. A dry run ends none of them.
func TestEndStreams_ByAttribute(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a", "b")
	r := e.nodeWith(t, func(s Shard, cfg *lease.Config) { cfg.Region = "region-" + s.Name }, "a", "b")
	requests := map[string]lease.Request{
		"plain":  {},
		"film":   {Content: lease.Content{ID: "film-77", Title: "Metropolis"}, Device: lease.Device{ID: "tv-1", Type: "tv"}},
		"quoted": {Content: lease.Content{ID: `"film" <77>\ä`}, Device: lease.Device{Type: "phone"}},
		"live": {Attributes: policy.StartAttributes{
			ContentType: "live", ContentLabels: []string{"sports", "rights-x"}, Profile: "kids", Network: "home",
			Labels: map[string]string{"tier": "free"},
		}},
		"paid": {Content: lease.Content{ID: "film-78"}, Attributes: policy.StartAttributes{
			ContentType: "vod", ContentLabels: []string{"rights-x"}, Labels: map[string]string{"tier": "paid"},
		}},
	}
	streams, all := map[string]lease.Stream{}, []string{"film", "live", "paid", "plain", "quoted"}
	for user, req := range requests {
		streams[user] = startOn(t, r, user, req)
	}
	var onA, onB []string
	for _, user := range all {
		if r.Map().Shard(user) == "a" {
			onA = append(onA, user)
		} else {
			onB = append(onB, user)
		}
	}
	require.NotEmpty(t, onA)
	require.NotEmpty(t, onB)
	for _, tt := range []struct {
		where []policy.Condition
		want  []string
	}{
		{[]policy.Condition{in(policy.AttrContentID, "film-77")}, []string{"film"}},
		{[]policy.Condition{in(policy.AttrContentID, "film-7")}, nil},
		{[]policy.Condition{in(policy.AttrContentID, `"film" <77>\ä`)}, []string{"quoted"}},
		{[]policy.Condition{in(policy.AttrContentID, "film-77", `"film" <77>\ä`)}, []string{"film", "quoted"}},
		{[]policy.Condition{in(policy.AttrContentID, "Metropolis")}, nil},
		{[]policy.Condition{in(policy.AttrContentID, "")}, []string{"live", "plain"}},
		{[]policy.Condition{in(policy.AttrContentID, "film-77", "")}, []string{"film", "live", "plain"}},
		{[]policy.Condition{in(policy.AttrDeviceID, "tv-1")}, []string{"film"}},
		{[]policy.Condition{in(policy.AttrDeviceType, "phone", "tv")}, []string{"film", "quoted"}},
		{[]policy.Condition{not(policy.AttrDeviceType, "tv")}, []string{"live", "paid", "plain", "quoted"}},
		{[]policy.Condition{not(policy.AttrDeviceType, "")}, []string{"film", "quoted"}},
		{[]policy.Condition{in(policy.AttrContentType, "live")}, []string{"live"}},
		{[]policy.Condition{in(policy.AttrContentLabels, "rights-x")}, []string{"live", "paid"}},
		{[]policy.Condition{not(policy.AttrContentLabels, "sports")}, []string{"film", "paid", "plain", "quoted"}},
		{[]policy.Condition{in(policy.AttrProfile, "kids")}, []string{"live"}},
		{[]policy.Condition{in(policy.AttrNetwork, "home")}, []string{"live"}},
		{[]policy.Condition{in("labels.tier", "free", "paid")}, []string{"live", "paid"}},
		{[]policy.Condition{not("labels.tier", "paid")}, []string{"film", "live", "plain", "quoted"}},
		{[]policy.Condition{in(policy.AttrContentLabels, "rights-x"), not("labels.tier", "paid")}, []string{"live"}},
		{[]policy.Condition{in(policy.AttrRegion, "region-a")}, onA},
		{[]policy.Condition{not(policy.AttrRegion, "region-a")}, onB},
		{[]policy.Condition{not(policy.AttrRegion, "nowhere")}, all},
	} {
		res := endStreams(t, r, bulkend.Query{Where: tt.where, DryRun: true})
		var users []string
		for _, s := range res.Sample {
			users = append(users, s.User)
			assert.Equal(t, streams[s.User].ID, s.ID, "%v", tt.where)
			assert.Equal(t, requests[s.User].Content, lease.Content{ID: s.ContentID, Title: s.ContentTitle})
			assert.Equal(t, streams[s.User].Region, s.Region)
		}
		slices.Sort(users)
		assert.Equal(t, tt.want, users, "%v", tt.where)
		assert.Equal(t, bulkend.Result{Matched: len(tt.want), Users: len(tt.want), Complete: true, Sample: res.Sample}, res, "%v", tt.where)
	}
	for user, s := range streams {
		assert.Empty(t, reasonOf(t, r, s), "dry runs did not end the stream of %s", user)
	}

	rights := bulkend.Query{Where: []policy.Condition{in(policy.AttrContentLabels, "rights-x")}}
	assert.Equal(t, bulkend.Result{Matched: 2, Users: 2, Ended: 2, Complete: true}, endStreams(t, r, rights))
	assert.Equal(t, bulkend.Result{Complete: true}, endStreams(t, r, rights), "the repeated call finds none")
	for user, s := range streams {
		want := policy.Reason("")
		if user == "live" || user == "paid" {
			want = policy.ReasonRemoved
		}
		if want == "" {
			assert.Empty(t, reasonOf(t, r, s), user)
			continue
		}
		requireReason(t, r, s, want)
	}
}

// A key of another program is not ended, whatever the conditions.
func TestEndStreams_ForeignKeys(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a")
	r := e.node(t, 0, "a")
	startOn(t, r, "maya", lease.Request{})
	for _, key := range []string{"/streamcount/users/maya/other", "/streamcount/users/ben/000"} {
		_, err := e["a"].Client(t).Put(t.Context(), key, `{"c":{"id":"film"}}`)
		require.NoError(t, err)
	}
	res := endStreams(t, r, bulkend.Query{Where: []policy.Condition{not(policy.AttrRegion, "nowhere")}})
	assert.Equal(t, bulkend.Result{Matched: 1, Users: 1, Ended: 1, Complete: true}, res)
	assert.Len(t, read(t, e["a"].Client(t), "/streamcount/users/"), 2)
}

// A stream that another node has just started is found, although the watch of this node lags.
func TestEndStreams_WaitsForTheReplica(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a", "b")
	late, other := e.node(t, 500*time.Millisecond, "a", "b"), e.node(t, 0, "a", "b")
	const users = 20
	for i := range users {
		startOn(t, other, fmt.Sprint("user-", i), film("x"))
	}
	res := endStreams(t, late, bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}})
	assert.Equal(t, bulkend.Result{Matched: users, Users: users, Ended: users, Complete: true}, res)
}

// A session that continues under a new put between the search and the end is not ended.
func TestEndStreams_SessionRestartsInBetween(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a")
	r := e.node(t, 0, "a")
	req := lease.Request{Session: "tab", Content: lease.Content{ID: "x"}}
	startOn(t, r, "maya", req)
	ctx, until, cancel := bulkend.Deadlines(t.Context())
	defer cancel()
	found, err := r.findStreams(ctx, until, bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}})
	require.NoError(t, err)
	require.Len(t, found.shards[0].Matches, 1)
	again := startOn(t, r, "maya", req)
	err = r.endStream(ctx, found.shards[0].target, found.shards[0].Matches[0])
	require.ErrorIs(t, err, lease.ErrEnded)
	assert.Empty(t, reasonOf(t, r, again))
}

// Sessions restart on two nodes while a third ends their streams. Every stream that was ended
// was counted, and each user has the stream that started last unless it was removed.
func TestEndStreams_WhileSessionsRestart(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a", "b")
	nodes := []*Router{e.node(t, 0, "a", "b"), e.node(t, 100*time.Millisecond, "a", "b")}
	ender := e.node(t, 0, "a", "b")
	req := lease.Request{Session: "tab", Content: lease.Content{ID: "x"}}
	const users = 30
	started := make([][]lease.Stream, users)
	load, stop := context.WithCancel(t.Context())
	defer stop()
	var total atomic.Int64
	var running sync.WaitGroup
	for i := range users {
		running.Go(func() {
			for load.Err() == nil {
				st, err := nodes[i%2].Start(t.Context(), fmt.Sprint("user-", i), req)
				if !assert.NoError(t, err) {
					return
				}
				started[i] = append(started[i], st.Stream)
				total.Add(1)
			}
		})
	}
	ended := 0
	for range 10 {
		from := total.Load()
		require.Eventually(t, func() bool { return total.Load() > from+users }, soon, time.Millisecond)
		res := endStreams(t, ender, bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}})
		ended += res.Ended
	}
	stop()
	running.Wait()
	removed := 0
	for i, streams := range started {
		for n, reason := range reasonsOf(t, ender, streams, 1) {
			switch {
			case reason == policy.ReasonRemoved:
				removed++
			case n == len(streams)-1:
				assert.Empty(t, reason, "the last stream of user %d runs", i)
			default:
				assert.Equal(t, policy.ReasonReplaced, reason, "an earlier stream of user %d", i)
			}
		}
	}
	t.Logf("%d of %d streams were removed", removed, total.Load())
	assert.LessOrEqual(t, ended, removed, "an end whose outcome is unknown is not counted")
}

// Thousands of streams end in calls with a short deadline, while other users start streams.
func TestEndStreams_Thousands(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a", "b")
	r := e.node(t, 0, "a", "b")
	const users, each = 2500, 2
	var starts errgroup.Group
	starts.SetLimit(200)
	for i := range users * each {
		starts.Go(func() error {
			_, err := r.Start(t.Context(), fmt.Sprint("user-", i/each), film("x"))
			return err
		})
	}
	require.NoError(t, starts.Wait())
	stays := startOn(t, r, "user-0", film("y"))
	q := bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}, DryRun: true}
	res := endStreams(t, r, q)
	assert.Len(t, res.Sample, bulkend.MaxSample)
	assert.Equal(t, bulkend.Result{Matched: users * each, Users: users, Complete: true, Sample: res.Sample}, res)

	q.DryRun, q.Max = false, 100
	assert.Equal(t, bulkend.Result{Matched: users * each, Users: users, Ended: 100}, endStreams(t, r, q))
	q.Max = users * each
	ended, calls, others := 100, 0, 0
	for deadline := time.Now().Add(soon); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		res, err := r.EndStreams(ctx, q)
		cancel()
		calls++
		if err != nil { // the time was not enough to read the replica
			require.ErrorIs(t, err, lease.ErrUnavailable)
			continue
		}
		assert.LessOrEqual(t, res.Ended, res.Matched)
		ended += res.Ended
		startOn(t, r, fmt.Sprint("other-", calls), film("z"))
		others++
		if res.Complete {
			break
		}
	}
	t.Logf("%d calls", calls)
	rest := endStreams(t, r, q) // nothing, unless the machine was slow
	assert.True(t, rest.Complete)
	assert.LessOrEqual(t, ended+rest.Ended, users*each, "no stream is counted twice")
	assert.Equal(t, bulkend.Result{Complete: true}, endStreams(t, r, q))
	assert.Empty(t, reasonOf(t, r, stays))
	totals, err := r.Totals(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 1+others, totals.Streams)
}
