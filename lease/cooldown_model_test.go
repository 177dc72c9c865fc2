package lease

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

// The cool-down keys are those of the newest evicted streams, without duplicates. No key of a
// session is the key of a device.
func TestCooldownKeys_AgainstAModel(t *testing.T) {
	steps := 0
	names := rapid.SampledFrom([]string{"", "a", "b", "s-a", "d-a", "a/b"})
	rapid.Check(t, func(t *rapid.T) {
		k := schema.Keys{Prefix: "/p"}
		var evicted []schema.Entry
		var sessions, devices []string // that must be marked
		for range rapid.IntRange(0, 70).Draw(t, "ends") {
			steps++
			h := schema.Entry{Session: names.Draw(t, "session"), ModRevision: int64(len(evicted))}
			device := names.Draw(t, "device")
			h.Value = recordOn(streamid.Nonce{byte(len(evicted) + 1)}, h.Session, device)
			evicted = append(evicted, h)
			sessions, devices = append(sessions, h.Session), append(devices, device)
		}
		sessions, devices = sessions[max(0, len(sessions)-maxCooldownVictims):], devices[max(0, len(devices)-maxCooldownVictims):]
		want := map[string]bool{}
		for i := range sessions {
			for _, key := range k.ClientCooldowns("maya", sessions[i], devices[i]) {
				want[key] = true
			}
		}
		got := cooldownKeys(k, "maya", evicted)
		require.Len(t, got, len(want), "each once")
		for _, key := range got {
			require.True(t, want[key])
		}
		for _, one := range k.ClientCooldowns("maya", names.Draw(t, "mine"), "") {
			require.NotContains(t, k.ClientCooldowns("maya", "", names.Draw(t, "yours")), one, "a session is no device")
		}
	})
	t.Logf("%d steps", steps)
}

func recordOn(n streamid.Nonce, session, device string) []byte {
	return schema.Encode(schema.Record{Nonce: n, Started: 1, TTLSeconds: 90, Session: session, Device: &schema.Device{ID: device}})
}
