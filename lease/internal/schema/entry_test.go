package schema

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

func TestNewEntries_OfForeignKeys(t *testing.T) {
	k := Keys{Prefix: "/p"}
	s := NewEntries(k, "u", []*mvccpb.KeyValue{
		{Key: []byte(k.Slot("u", 2)), Value: []byte(`{"n":"AAAAAAAAAAAAAAAB","s":"tv"}`), Lease: 5, ModRevision: 8},
		{Key: []byte("/p/users/u/junk"), Value: []byte("junk"), ModRevision: 3},
		{Key: []byte("/p/users/u/0002"), Value: []byte(`{"n":"short"}`), ModRevision: 4},
	})
	require.Len(t, s, 3)
	assert.Equal(t, []int{-1, -1, 2}, []int{s[0].Slot, s[1].Slot, s[2].Slot}, "oldest first")
	assert.Equal(t, "tv", s[2].Session)
	assert.Equal(t, Record{}, DecodeRecord(s[1].Value))
	assert.Zero(t, s[1].Nonce)
}
