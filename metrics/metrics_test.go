package metrics

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/policy"
	"streamcount/lease/stats"
)

// Other programs may write any region to etcd. A scrape succeeds all the same, and has no
// series twice.
func TestRegions_OfAnyText(t *testing.T) {
	long := strings.Repeat("x", 100)
	m := New(Source{Shards: func() map[string]*stats.Snapshot {
		return map[string]*stats.Snapshot{"a": {Regions: map[string]int{
			"eu": 1, "\xff": 2, "\xfe": 3, long: 4, long + "y": 5, strings.Repeat("é", 40): 6, "": 7,
		}}}
	}})
	_, err := m.Gatherer().Gather()
	require.NoError(t, err)
	require.NoError(t, testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(`
# HELP streamcount_region_streams Streams of all nodes, by the region in which they were started.
# TYPE streamcount_region_streams gauge
streamcount_region_streams{region="",shard="a"} 7
streamcount_region_streams{region="?",shard="a"} 5
streamcount_region_streams{region="eu",shard="a"} 1
streamcount_region_streams{region="`+long[:64]+`",shard="a"} 9
streamcount_region_streams{region="`+strings.Repeat("é", 32)+`",shard="a"} 6
`), "streamcount_region_streams"))
	assert.True(t, utf8.ValidString(labelValue("a"+strings.Repeat("é", 40))), "no half character")
}

func TestVia(t *testing.T) {
	m := New(Source{Shards: func() map[string]*stats.Snapshot {
		return map[string]*stats.Snapshot{"a": {Via: map[string]int{"player": 3, "edge": 2}}}
	}})
	require.NoError(t, testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(`
# HELP streamcount_via_streams Streams of all nodes, by what started them: the player, or a check of the edge in its place.
# TYPE streamcount_via_streams gauge
streamcount_via_streams{shard="a",via="edge"} 2
streamcount_via_streams{shard="a",via="player"} 3
`), "streamcount_via_streams"))
}

// A shard that has not been reached has the metric shard_reached, and no other.
func TestShards(t *testing.T) {
	m := New(Source{
		Shards: func() map[string]*stats.Snapshot {
			return map[string]*stats.Snapshot{"a": {Streams: 7, Users: map[int]int{1: 2, policy.MaxLimit + 1: 3}}, "b": nil}
		},
		Ready: func(context.Context) error { return errors.New("no") },
	})
	require.NoError(t, testutil.GatherAndCompare(m.Gatherer(), strings.NewReader(`
# HELP streamcount_ready 1 if /readyz responds with 200, 0 otherwise.
# TYPE streamcount_ready gauge
streamcount_ready 0
# HELP streamcount_shard_reached 1 if the node has reached the etcd cluster of the shard, 0 otherwise.
# TYPE streamcount_shard_reached gauge
streamcount_shard_reached{shard="a"} 1
streamcount_shard_reached{shard="b"} 0
# HELP streamcount_streams Streams of all nodes, in this node's replica.
# TYPE streamcount_streams gauge
streamcount_streams{shard="a"} 7
# HELP streamcount_users Users of all nodes, by number of streams.
# TYPE streamcount_users gauge
streamcount_users{shard="a",streams="1"} 2
streamcount_users{shard="a",streams="more"} 3
`), "streamcount_ready", "streamcount_shard_reached", "streamcount_streams", "streamcount_users"))
}

// Counting a request allocates nothing, and works for every status.
func TestRoute_Done(t *testing.T) {
	m := New(Source{})
	r := m.Route("GET", "/x")
	r.Done(200, time.Millisecond)
	assert.Zero(t, testing.AllocsPerRun(100, func() { r.Done(200, time.Millisecond) }))
	for _, odd := range []int{-1, 0, 600, 1 << 30} {
		r.Done(odd, time.Millisecond)
	}
	m.Stream("GET", "/events").Done(200, time.Hour)
	assert.Same(t, m.None("BREW"), m.None("x"))
	assert.NotSame(t, m.None("GET"), m.None("x"))
	n, err := testutil.GatherAndCount(m.Gatherer(), "streamcount_http_requests_total")
	require.NoError(t, err)
	assert.Equal(t, 4, n, "200, 0 and 500 of /x, 200 of /events")
}

func BenchmarkRoute_Done(b *testing.B) {
	r := New(Source{}).Route("GET", "/x")
	for b.Loop() {
		r.Done(200, time.Millisecond)
	}
}

// The load generator computes the share of the garbage collector from these metrics.
func TestRuntime(t *testing.T) {
	families, err := New(Source{}).Gatherer().Gather()
	require.NoError(t, err)
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	assert.Subset(t, names, []string{
		"go_cpu_classes_gc_total_cpu_seconds_total", "go_cpu_classes_idle_cpu_seconds_total",
		"go_cpu_classes_total_cpu_seconds_total", "go_gc_heap_live_bytes", "go_goroutines",
	})
}
