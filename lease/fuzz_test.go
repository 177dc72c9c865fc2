package lease

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/replica"
	"streamcount/lease/internal/schema"
	"streamcount/lease/migration"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// The replica accepts any key and value below the prefix: it counts a stream once and returns
// its value unchanged. The partial decoder of records agrees with encoding/json.
func FuzzStored(f *testing.F) {
	k := schema.Keys{Prefix: "/p"}
	limit := 4
	for _, kv := range [][2]string{
		{k.Slot("maya", 0), string(recordOn(streamid.Nonce{1}, "tab", ""))}, {k.Slot("maya", 1), string(recordOn(streamid.Nonce{2}, "a\"b", "tv"))},
		{k.UserPrefix("maya") + "junk", "junk"}, {k.UsersPrefix(), ""}, {k.UsersPrefix() + "maya", "{}"}, {k.UsersPrefix() + "/", "[]"},
		{k.NewTombstone(), string(schema.EncodeTombstones([]schema.Tombstone{{Nonce: streamid.Nonce{1}, Reason: policy.ReasonEvicted, By: &schema.Replacement{Started: 7}}}))},
		{k.Plan("family"), string(schema.EncodePlan(policy.Plan{Limit: 4, Count: policy.CountDevices}))},
		{k.Override("maya"), string(schema.EncodeOverride(policy.Override{Limit: &limit}))}, {k.Override("maya"), `{"plan":"family"}`},
		{k.Routing(), `{"id":"x"}`}, {k.Departed("maya"), string(schema.Encode(migration.State{Streams: []migration.Stream{{Name: "000", Lease: 7, Value: []byte("x")}}}))},
		{k.UsersPrefix() + "maya/000", `{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"r":"eu","s":"tab"}`},
	} {
		f.Add([]byte(kv[0]), []byte(kv[1]))
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		v := replica.New(nil, nil, k, replica.Config{Log: slog.New(slog.DiscardHandler), EndingsTTL: time.Minute})
		put := &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: key, Value: value, ModRevision: 2}}
		v.Apply([]*mvccpb.Event{put})
		v.Apply([]*mvccpb.Event{put})
		got := v.Total(3)
		user, _, ours := k.ParseUserKey(key)
		if !ours {
			require.Zero(t, got.Streams)
		} else {
			require.Equal(t, 1, got.Streams)
			entries, _, _ := v.UserEntries(user)
			require.Len(t, entries, 1)
			require.Equal(t, string(key), entries[0].Key)
			require.Equal(t, value, entries[0].Value)
		}
		var slow schema.Record
		if json.Unmarshal(value, &slow) == nil && bytes.Equal(schema.Encode(slow), value) { // in the form that a node writes
			require.Equal(t, schema.Head{Nonce: slow.Nonce, TTLSeconds: slow.TTLSeconds, Region: slow.Region, Session: slow.Session}, schema.DecodeHead(value))
		}
		if p := schema.DecodePlan(value); p != nil {
			require.Equal(t, p, schema.DecodePlan(schema.EncodePlan(*p)))
		}
		if o := schema.DecodeOverride(value); o != nil {
			require.Equal(t, o, schema.DecodeOverride(schema.EncodeOverride(*o)))
		}
		for _, g := range schema.DecodeTombstones(value) {
			_ = endedError(g)
		}
		_ = streamOf("maya", "id", value)
		_ = !v.Rules().HasOverrides()
		v.Apply([]*mvccpb.Event{{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: 3}}})
		got = v.Total(3)
		require.Zero(t, got.Streams)
	})
}
