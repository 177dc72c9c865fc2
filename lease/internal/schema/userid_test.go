package schema

import (
	"strings"
	"testing"

	"streamcount/lease/userid"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// anyUser draws a valid user id, often one with characters that have a meaning elsewhere.
func anyUser() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		odd := rapid.SampledFrom([]string{"/", "%", "%2F", "%25", ".", "..", "a", "A", " ", "\\", "é", "e\u0301", "ü", "📺", "\u2028", "\ufeff", "+", "|", "\ufffd"})
		parts := rapid.SliceOfN(rapid.OneOf(odd, rapid.String()), 1, 8).Draw(t, "parts")
		user := strings.Join(parts, "")
		if !userid.Valid(user) {
			t.Skip("not a user id")
		}
		return user
	})
}

func TestUser_Keys(t *testing.T) {
	k := Keys{Prefix: "/p"}
	rapid.Check(t, func(t *rapid.T) {
		one, two := anyUser().Draw(t, "one"), anyUser().Draw(t, "two")
		part := escapeUserID(one)
		assert.NotContains(t, part, "/")
		back, ok := UnescapeUserID(part)
		require.True(t, ok, part)
		require.Equal(t, one, back)
		user, rest, ok := k.ParseUserKey([]byte(k.Slot(one, 7)))
		require.True(t, ok)
		require.Equal(t, []string{one, "007"}, []string{user, rest})
		user, ok = k.ParseOverride([]byte(k.Override(one)))
		require.True(t, ok)
		require.Equal(t, one, user)
		if one == two {
			return
		}
		require.NotEqual(t, part, escapeUserID(two))
		for _, prefix := range []string{k.UserPrefix(one), k.Departed(one) + "/", k.Arrived(one) + "/", k.Override(one) + "/"} {
			for _, key := range append(k.ClientCooldowns(two, "s", "d"), k.Slot(two, 7), k.Override(two), k.Departed(two), k.Arrived(two)) {
				require.False(t, strings.HasPrefix(key, prefix), "%s is below %s", key, prefix)
			}
		}
		require.NotSubset(t, k.ClientCooldowns(one, "s", "d"), k.ClientCooldowns(two, "s", "d"))
	})
}

// UnescapeUserID accepts only what escapeUserID returns, so no two keys belong to one user.
func TestUser_OneSpelling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.OneOf(rapid.StringMatching(`([a-c.]|%[0-9A-Fa-f]{2}|%){0,6}`), rapid.String()).Draw(t, "part")
		if user, ok := UnescapeUserID(part); ok {
			require.Equal(t, part, escapeUserID(user))
		}
	})
	for _, part := range []string{"a%2fb", "%41", "%", "a%", "a%2", "%zz", "a b", "a/b", "é", "%FF", "%00", "%C2%85", "%+1"} {
		_, ok := UnescapeUserID(part)
		assert.False(t, ok, part)
	}
}

// Ids of the alphabet that earlier versions accepted still have the same keys.
func TestKeys_OfFormerUserIDs(t *testing.T) {
	for _, user := range []string{"maya", "..", ".", "auth0|5f7c", "a+b=", "maya@example.com", "urn:uuid:0b9c", "~_-", strings.Repeat("a", 128)} {
		assert.Equal(t, "/p/users/"+user+"/000", Keys{Prefix: "/p"}.Slot(user, 0))
		assert.Equal(t, "/p/limits/"+user, Keys{Prefix: "/p"}.Override(user))
	}
	assert.Equal(t, "/p/users/tom%2Fadmin/000", Keys{Prefix: "/p"}.Slot("tom/admin", 0))
	assert.Equal(t, "/p/limits/CORP%5Cann", Keys{Prefix: "/p"}.Override(`CORP\ann`))
	assert.Equal(t, "/p/departed/m%C3%BCller", Keys{Prefix: "/p"}.Departed("müller"))
	assert.Equal(t, "/p/arrived/a%252Fb", Keys{Prefix: "/p"}.Arrived("a%2Fb"))
}
