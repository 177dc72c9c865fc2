package cluster

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
)

func TestSecret_AllCallersGetTheSame(t *testing.T) {
	prefix := etcdtest.Prefix(t)
	clients := []*clientv3.Client{etcdtest.Client(t), etcdtest.Client(t), etcdtest.Client(t), etcdtest.Client(t)}
	secrets := make([][]byte, 20)
	var all sync.WaitGroup
	start := make(chan struct{})
	for i := range secrets {
		all.Go(func() {
			<-start
			var err error
			secrets[i], err = StreamIDSecret(prefix).GetOrCreate(t.Context(), clients[i%len(clients)])
			assert.NoError(t, err)
		})
	}
	close(start)
	all.Wait()
	require.Len(t, secrets[0], 32)
	for _, s := range secrets {
		assert.Equal(t, secrets[0], s)
	}
	assert.Equal(t, string(secrets[0]), get(t, clients[0], prefix+"/secret"))

	other, err := StreamIDSecret(etcdtest.Prefix(t)).GetOrCreate(t.Context(), clients[0])
	require.NoError(t, err)
	assert.NotEqual(t, secrets[0], other)
}

func TestSecret_LostMessages(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*etcdtest.Faults){
		"read-request":  func(f *etcdtest.Faults) { f.CutRequest(etcdtest.Range, 1) },
		"read-reply":    func(f *etcdtest.Faults) { f.CutReply(etcdtest.Range, 1) },
		"write-request": func(f *etcdtest.Faults) { f.CutRequest(etcdtest.Txn, 2) },
		"write-reply":   func(f *etcdtest.Faults) { f.CutReply(etcdtest.Txn, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			var f etcdtest.Faults
			prefix := etcdtest.Prefix(t)
			cut(&f)
			got, err := StreamIDSecret(prefix).GetOrCreate(t.Context(), etcdtest.FaultyClient(t, etcdtest.Endpoints(t), &f))
			require.NoError(t, err)
			again, err := StreamIDSecret(prefix).GetOrCreate(t.Context(), etcdtest.Client(t))
			require.NoError(t, err)
			assert.Equal(t, again, got)
			resp, err := etcdtest.Client(t).Get(t.Context(), prefix+"/secret")
			require.NoError(t, err)
			assert.EqualValues(t, 1, resp.Kvs[0].Version, "written once")
		})
	}
}

func TestSecret_WrongLength(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	put(t, c, prefix+"/secret", "hunter2")
	secret, err := StreamIDSecret(prefix).GetOrCreate(t.Context(), c)
	require.ErrorContains(t, err, prefix+"/secret")
	require.ErrorContains(t, err, "7 bytes, want the 32")
	assert.NotContains(t, err.Error(), "hunter2")
	assert.Nil(t, secret)
}

func TestSecret_WaitsForEtcdUntilTheContextEnds(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	m.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := StreamIDSecret("/p").GetOrCreate(ctx, c)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "/p/secret")

	done := make(chan error, 1)
	go func() {
		_, err := StreamIDSecret("/p").GetOrCreate(t.Context(), c)
		done <- err
	}()
	m.Restart(t)
	require.NoError(t, <-done)
}

func TestSecret_ReadableInAFullEtcd(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{QuotaBytes: 1 << 20})
	c := m.Client(t)
	want, err := StreamIDSecret("/p").GetOrCreate(t.Context(), c)
	require.NoError(t, err)
	fill(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	got, err := StreamIDSecret("/p").GetOrCreate(ctx, c)
	require.NoError(t, err)
	assert.Equal(t, want, got)
}

// The key of networks is created once, like the secret of stream ids, and independent of it.
func TestNetworkKey(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	found, err := NetworkKey(prefix).Find(t.Context(), c)
	require.NoError(t, err)
	require.Nil(t, found)
	key, err := NetworkKey(prefix).GetOrCreate(t.Context(), c)
	require.NoError(t, err)
	require.Len(t, key, secretSize)
	assert.Equal(t, string(key), get(t, c, prefix+"/network-key"))
	again, err := NetworkKey(prefix).GetOrCreate(t.Context(), c)
	require.NoError(t, err)
	assert.Equal(t, key, again)
	secret, err := StreamIDSecret(prefix).GetOrCreate(t.Context(), c)
	require.NoError(t, err)
	assert.NotEqual(t, key, secret)

	other := etcdtest.Prefix(t) + "/shard"
	require.NoError(t, NetworkKey(other).Share(t.Context(), c, key, bytes.Equal))
	require.NoError(t, NetworkKey(other).Share(t.Context(), c, key, bytes.Equal))
	require.ErrorContains(t, NetworkKey(other).Share(t.Context(), c, secret, bytes.Equal), other+"/network-key is not that of the other shards")

	put(t, c, prefix+"/network-key", `{"secrets":[]}`)
	_, err = NetworkKey(prefix).GetOrCreate(t.Context(), c)
	require.ErrorContains(t, err, "holds 14 bytes, want the 32 of the key of networks")
}
