package lease

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

// Whatever stands under our prefix in etcd, a view takes it in, counts it once, and
// gives it back; and the quick reading of a record agrees with the thorough one.
func FuzzStored(f *testing.F) {
	k := keys{"/p"}
	limit := 4
	for _, kv := range [][2]string{
		{k.slot("maya", 0), string(recordValue(nonce{1}, "tab"))}, {k.slot("maya", 1), string(recordOn(nonce{2}, "a\"b", "tv"))},
		{k.user("maya") + "junk", "junk"}, {k.users(), ""}, {k.users() + "maya", "{}"}, {k.users() + "/", "[]"},
		{k.tombstone(), string(gravesValue([]grave{{Nonce: nonce{1}, Reason: ReasonEvicted, By: &by{Started: 7}}}))},
		{k.plan("family"), string(Plan{Limit: 4, Count: CountDevices}.value())},
		{k.override("maya"), string(Override{Limit: &limit}.value())}, {k.override("maya"), `{"plan":"family"}`},
		{k.shardsKey(), `{"id":"x"}`}, {k.departed("maya"), string(stored(Luggage{Streams: []luggageStream{{"000", 7, []byte("x")}}}))},
		{k.users() + "maya/000", `{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"r":"eu","s":"tab"}`},
	} {
		f.Add([]byte(kv[0]), []byte(kv[1]))
	}
	f.Fuzz(func(t *testing.T, key, value []byte) {
		v := testView(Etcd{}, "/p")
		put := &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: key, Value: value, ModRevision: 2}}
		v.apply([]*mvccpb.Event{put})
		v.apply([]*mvccpb.Event{put})
		got, _ := v.totals(3)
		user, _, ours := k.split(key)
		if !ours {
			require.Zero(t, got.Streams)
		} else {
			require.Equal(t, 1, got.Streams)
			s, _ := v.user(user)
			require.Len(t, s.held, 1)
			require.Equal(t, string(key), s.held[0].key)
			require.Equal(t, value, s.held[0].value)
		}
		var slow record
		if json.Unmarshal(value, &slow) == nil && bytes.Equal(stored(slow), value) { // as we write it
			require.Equal(t, head{Nonce: slow.Nonce, TTL: slow.TTL, Region: slow.Region, Session: slow.Session}, headOf(value))
		}
		if p := planOf(value); p != nil {
			require.Equal(t, p, planOf(p.value()))
		}
		if o := overrideOf(value); o != nil {
			require.Equal(t, o, overrideOf(o.value()))
		}
		for _, g := range gravesOf(value) {
			_ = g.err()
		}
		_ = streamOf("maya", "id", value)
		_ = v.rules.empty()
		v.apply([]*mvccpb.Event{{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: 3}}})
		got, _ = v.totals(3)
		require.Zero(t, got.Streams)
	})
}

// A user's keys are his alone: no valid id has keys among those of another, and every
// key says whose it is.
func FuzzKeys(f *testing.F) {
	f.Add("maya", "maya2", 3)
	f.Add("a", "a|", 0)
	f.Fuzz(func(t *testing.T, one, two string, slot int) {
		if !ValidUser(one) || !ValidUser(two) || slot < 0 || slot > 999 {
			return
		}
		k := keys{"/p"}
		user, rest, ok := k.split([]byte(k.slot(one, slot)))
		require.True(t, ok)
		require.Equal(t, one, user)
		require.Equal(t, slot, slotOf(rest))
		if one != two {
			require.False(t, strings.HasPrefix(k.slot(two, slot), k.user(one)))
			require.NotEqual(t, k.override(one), k.override(two))
			require.NotEqual(t, k.departed(one), k.departed(two))
			require.NotSubset(t, k.cooldowns(one, "s", "d"), k.cooldowns(two, "s", "d"))
		}
	})
}
