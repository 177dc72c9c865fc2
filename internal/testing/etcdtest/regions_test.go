package etcdtest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A write takes the round trip to the leader and that from the leader to the nearest majority.
func TestRegions_Delays(t *testing.T) {
	const roundTrip = 100 * time.Millisecond
	for name, tc := range map[string]struct {
		members []string
		from    string
		trips   int // of a put; the leader is the first member
	}{
		"near_a_majority":     {[]string{"eu", "eu", "us"}, "eu", 0},
		"near_one_member":     {[]string{"eu", "us", "ap"}, "eu", 1},
		"far_from_a_majority": {[]string{"eu", "eu", "us"}, "us", 1},
		"far_from_one_member": {[]string{"eu", "us", "ap"}, "ap", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for the most part
			r := StartRegions(t, Config{TickMs: 100}, tc.members...)
			r.MoveLeader(t, 0)
			r.RoundTrip(roundTrip)
			var near []string
			for i, way := range r.Links(t, tc.from) {
				if tc.members[i] == tc.from {
					near = append(near, way.URL())
				}
			}
			c := FaultyClient(t, near, nil)
			key := Prefix(t)
			fastest := time.Hour // the others wait for the machine
			for range 10 {
				began := time.Now()
				_, err := c.Put(t.Context(), key, "v")
				require.NoError(t, err)
				fastest = min(fastest, time.Since(began))
			}
			t.Log(fastest)
			least := time.Duration(tc.trips) * roundTrip
			assert.GreaterOrEqual(t, fastest, least)
			assert.Less(t, fastest, least+roundTrip)
		})
	}
}

func TestRegions_Kill(t *testing.T) {
	t.Parallel()
	r := StartRegions(t, Config{}, "eu", "us", "ap")
	old := r.Leader(t)
	r.Kill(old)
	assert.NotEqual(t, old, r.Leader(t))
	_, err := r.Client(t, (old+1)%3).Get(t.Context(), "x", clientv3.WithSerializable())
	require.NoError(t, err)
}
