package lease_test

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// putStored puts the keys of a file into etcd, under leases with the ids that they had. It
// returns the value of the secret.
func putStored(t *testing.T, c *clientv3.Client, file string) (secret []byte) {
	t.Helper()
	content, err := os.ReadFile(file)
	require.NoError(t, err)
	var keys []struct {
		Key    string
		Value  string
		Base64 []byte
		Lease  int64
	}
	require.NoError(t, json.Unmarshal(content, &keys))
	granted := map[int64]bool{0: true}
	for _, k := range keys {
		if !granted[k.Lease] {
			granted[k.Lease] = true
			_, err := clientv3.RetryLeaseClient(c).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: k.Lease, TTL: 90})
			require.NoError(t, err)
		}
		value := k.Value
		if k.Base64 != nil {
			secret, value = k.Base64, string(k.Base64)
		}
		_, err := c.Put(t.Context(), k.Key, value, clientv3.WithLease(clientv3.LeaseID(k.Lease)))
		require.NoError(t, err)
	}
	return secret
}

// The file has the keys that commit d22a29f stored for the starts, stops and rules below.
func TestStored_ByAnEarlierVersion(t *testing.T) {
	const (
		mayaTV    = "AQAAIPejCw703ikE1BRLlPVHU7J60mKGkcSyfbNXR_cDkZ3kFtck"
		mayaPhone = "AQABbTPltnfIuFHAM76UDL2PQCvZ-B5xUFeYKKTzv_1rqQDh9ogB"
		tom       = "AQAAQB87OXNgZdC6YtYcZ8MIKsA1XQ6Wz7MTMpdyKFa_69e7RmXp"
		ida       = "AQAALnaDrMNDC1YEHz3zKaD7s72Eb6RweLFmPCVYSgfVKAVw0MHM"
		stopped   = "AQAAaJp0KK8mkWO5PKXrsa1cIhshgJKn1L1u2zgnLCGjEdCklN6N"
	)
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t) // the ids of leases are those of the file
	secret := putStored(t, c, "testdata/stored_d22a29f.json")
	l, err := lease.New(lease.FromClient(c), lease.Config{
		Secret: secret, Limit: 3, TTL: 90 * time.Second, Cooldown: time.Minute, Timeout: time.Minute,
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	defer func() {
		cancel()
		assert.NoError(t, <-done)
	}()

	var u lease.Usage
	require.Eventually(t, func() bool { // the node has listed the rules
		u, err = l.List(ctx, "maya", lease.Linearizable)
		return err == nil && u.Limit == 5
	}, time.Minute, time.Millisecond)
	assert.Equal(t, []int{2, 1, 5}, []int{u.Count, u.Counted, u.Limit}, "the plan family counts content")
	require.Len(t, u.Active, 2)
	tv, phone := u.Active[0], u.Active[1]
	assert.Equal(t, mayaTV, tv.ID)
	assert.Equal(t, "s1", tv.Session)
	assert.Equal(t, "eu", tv.Region)
	assert.Equal(t, lease.Device{ID: "d1", Name: "TV <4K>", Type: "tv"}, tv.Device)
	assert.Equal(t, lease.Content{ID: "c1", Title: "Metropolis & more"}, tv.Content)
	assert.Equal(t, int64(1796009145431), tv.StartedAt.UnixMilli())
	assert.Equal(t, 90*time.Second, tv.TTL)
	assert.Equal(t, mayaPhone, phone.ID)

	for user, id := range map[string]string{"maya": mayaTV, "tom": tom, "ida": ida} {
		st, err := l.Heartbeat(ctx, user, id)
		require.NoError(t, err, user)
		assert.Equal(t, id, st.ID)
	}
	var ended *lease.EndedError
	_, err = l.Heartbeat(ctx, "gone", stopped)
	require.ErrorAs(t, err, &ended)

	_, err = l.Start(ctx, "tom", lease.Request{})
	require.ErrorIs(t, err, lease.ErrLimit, "an override of 1")
	_, err = l.Start(ctx, "ida", lease.Request{Session: "i1", OnLimit: policy.ReplaceOldest})
	var refused *lease.LimitError
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, lease.NoEvictionCooldown, refused.NoEviction, "the session was evicted by the earlier version")
	st, err := l.Start(ctx, "maya", lease.Request{Session: "s2"})
	require.NoError(t, err)
	assert.Equal(t, 2, st.Count, "a start of the same session takes over its slot")
	plans, err := l.Rules().Plans(ctx)
	require.NoError(t, err)
	assert.Equal(t, policy.Plan{Limit: 1, OnLimit: policy.ReplaceOldest, Count: policy.CountDevices}, plans["ev"])
	_, err = l.Stop(ctx, "maya", mayaTV)
	require.NoError(t, err)
	gone, err := c.Get(ctx, "/streamcount/users/maya/000")
	require.NoError(t, err)
	assert.Empty(t, gone.Kvs)
}
