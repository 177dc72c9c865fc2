package schema

import (
	"strings"
	"testing"

	"streamcount/lease/userid"

	"github.com/stretchr/testify/require"
)

// No key of a user is below the prefix of another, and every key can be parsed.
func FuzzKeys(f *testing.F) {
	f.Add("maya", "maya2", 3)
	f.Add("a", "a|", 0)
	f.Fuzz(func(t *testing.T, one, two string, slot int) {
		if !userid.Valid(one) || !userid.Valid(two) || slot < 0 || slot > 999 {
			return
		}
		k := Keys{Prefix: "/p"}
		user, rest, ok := k.ParseUserKey([]byte(k.Slot(one, slot)))
		require.True(t, ok)
		require.Equal(t, one, user)
		require.Equal(t, slot, ParseSlot(rest))
		if one != two {
			require.False(t, strings.HasPrefix(k.Slot(two, slot), k.UserPrefix(one)))
			require.NotEqual(t, k.Override(one), k.Override(two))
			require.NotEqual(t, k.Departed(one), k.Departed(two))
			require.NotSubset(t, k.ClientCooldowns(one, "s", "d"), k.ClientCooldowns(two, "s", "d"))
		}
	})
}
