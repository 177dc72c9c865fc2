package shard

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzMap checks that a decoded map encodes to the same map, and assigns every user to one of
// its shards.
func FuzzDecode(f *testing.F) {
	f.Add((&Map{ID: "x", Epoch: 1, Shards: simShards("a", "b")}).encode(), "maya")
	f.Add((&Map{ID: "x", Epoch: 2, Shards: simShards("a"), Previous: simShards("b", "c")}).encode(), "ben")
	f.Add([]byte(`{"id":"x","epoch":1,"shards":[{"name":"a","endpoints":null}],"from":[]}`), "")
	f.Fuzz(func(t *testing.T, value []byte, user string) {
		m, err := decode(value)
		if err != nil {
			return
		}
		again, err := decode(m.encode())
		require.NoError(t, err)
		require.Equal(t, m.Shard(user), again.Shard(user))
		require.Equal(t, m.PreviousShard(user), again.PreviousShard(user))
		names := func(s Shard) string { return s.Name }
		require.True(t, slices.ContainsFunc(m.Shards, func(s Shard) bool { return names(s) == m.Shard(user) }))
		if old := m.PreviousShard(user); old != "" {
			require.True(t, slices.ContainsFunc(m.Previous, func(s Shard) bool { return names(s) == old }))
			require.NotEqual(t, old, m.Shard(user))
		}
		for _, s := range m.all() {
			if len(s.Endpoints) == 0 {
				continue
			}
			if read, err := Parse(s.String()); err == nil {
				require.Equal(t, s.Name, read.Name)
			}
		}
	})
}
