package cluster

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/internal/testing/etcdtest"
)

// One of three members is stopped: the statuses of the others are returned in time.
func TestInspect_Members(t *testing.T) {
	t.Parallel()
	cl := etcdtest.StartCluster(t, 3)
	c := cl.Client(t)
	put(t, c, "a", "b")
	all, err := Inspect(t.Context(), c, nil)
	require.NoError(t, err)
	require.Len(t, all, 3)
	leaders := 0
	for _, m := range all {
		require.NoError(t, m.Err, m.Name)
		assert.Regexp(t, `^3\.`, m.Version)
		assert.Positive(t, m.DBSize)
		assert.Positive(t, m.DBInUse)
		assert.Empty(t, m.Alarms)
		assert.Less(t, m.Lag, uint64(100))
		if m.Leader {
			leaders++
		}
	}
	assert.Equal(t, 1, leaders)

	hangs, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, hangs.Close()) })
	cl.Stop((cl.Leader(t) + 1) % 3)
	var down []MemberStatus
	require.Eventually(t, func() bool { // the client may have to change members first
		down, err = Inspect(t.Context(), c, []string{"http://" + hangs.Addr().String()})
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	silent := 0
	for _, m := range down {
		if m.Err != nil {
			silent++
			assert.NotEmpty(t, m.Name)
		}
	}
	assert.Equal(t, 1, silent)
}

func TestInspect_Alarms(t *testing.T) {
	texts := []string{
		(&pb.AlarmMember{MemberID: 7, Alarm: pb.AlarmType_NOSPACE}).String(),
		(&pb.AlarmMember{MemberID: 77, Alarm: pb.AlarmType_CORRUPT}).String(), "etcdserver: no leader",
	}
	assert.Equal(t, []string{"NOSPACE"}, alarmsOf(7, texts))
	assert.Equal(t, []string{"CORRUPT"}, alarmsOf(77, texts))
	assert.Empty(t, alarmsOf(8, texts))
}

// A node writes its counters repeatedly and stays in the list. A node of an earlier version
// is read too.
func TestRegistration_WritesItsCounters(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	put(t, c, prefix+"/nodes/old", `{"id":"old","region":"eu","startedAt":"2026-01-02T03:04:05Z"}`)
	r := NewRegistration(c, prefix, Node{ID: "a", Region: "us"}, nil)
	r.every = 10 * time.Millisecond
	calls := int64(0) // only Run's goroutine writes it
	r.Counters = func() (admitted, refused int64) { calls++; return calls, 2 * calls }
	stop := runs(t, r)
	var a Node
	require.Eventually(t, func() bool {
		nodes, err := Nodes(t.Context(), c, prefix)
		if err != nil || len(nodes) != 2 {
			return false
		}
		a = nodes[0]
		assert.Equal(t, Node{ID: "old", Region: "eu", StartedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, nodes[1])
		return a.Admitted >= 3
	}, time.Minute, time.Millisecond)
	assert.Equal(t, "us", a.Region)
	assert.Equal(t, 2*a.Admitted, a.Refused)
	assert.WithinDuration(t, time.Now(), a.ReportedAt, time.Minute)
	got, err := c.Get(t.Context(), prefix+"/nodes/a")
	require.NoError(t, err)
	assert.NotZero(t, got.Kvs[0].Lease)
	stop()
	nodes, err := Nodes(t.Context(), c, prefix)
	require.NoError(t, err)
	assert.Len(t, nodes, 1)
}
