package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

// The list of a user whose streams this node keeps alive asks nobody, since the
// leader may be far away.
func TestList_IsLocal(t *testing.T) {
	r := newRig(t, Config{Limit: 3, TTL: testTTL})
	before := time.Now()
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	asked := func() int {
		return r.faults.Calls(etcdtest.Range) + r.faults.Calls("/etcdserverpb.Lease/LeaseTimeToLive")
	}
	calls := asked()
	for range 3 {
		u, err := r.List(t.Context(), "maya", Bounded)
		require.NoError(t, err)
		require.Len(t, u.Active, 1)
		assert.Equal(t, s.ID, u.Active[0].ID)
		// A lease that was granted ahead is renewed beside its start.
		assert.WithinRange(t, u.Active[0].ExpiresAt, before.Add(testTTL/2), time.Now().Add(testTTL))
	}
	assert.Equal(t, calls, asked(), "etcd was asked")

	u, err := r.List(t.Context(), "maya", Linearizable)
	require.NoError(t, err)
	assert.NotZero(t, u.Active[0].ExpiresAt)
	assert.Greater(t, asked(), calls)

	// Another node knows of no renewal, and asks.
	other := newLimiter(t, r.honest, Config{Limit: 3, TTL: testTTL})
	require.Eventually(t, func() bool {
		u, err := other.List(t.Context(), "maya", Bounded)
		return err == nil && len(u.Active) == 1 && !u.Active[0].ExpiresAt.IsZero()
	}, time.Minute, 10*time.Millisecond)
}
