package shard

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func named(names ...string) []Shard {
	var out []Shard
	for _, n := range names {
		out = append(out, Shard{Name: n, Endpoints: []string{"http://" + n + ":2379"}})
	}
	return out
}

// The assignment of users to shards must never change: a release with another assignment would
// not find existing streams.
func TestMap_AssignmentNeverChanges(t *testing.T) {
	m := Map{Shards: named("a", "b", "c", "d")}
	for user, want := range map[string]string{
		"maya": "d", "ben": "d", "1": "b", "a@b.example": "b", "user-1000000": "a",
	} {
		assert.Equal(t, want, m.Shard(user), user)
	}
}

func TestMap_SpreadsUsersEvenly(t *testing.T) {
	const users = 100_000
	two, three := Map{Shards: named("a", "b")}, Map{Shards: named("c", "b", "a"), Previous: named("a", "b")}
	at, moved := map[string]int{}, 0
	for i := range users {
		user := fmt.Sprint("user-", i)
		old, now := two.Shard(user), three.Shard(user)
		at[now]++
		if old != now {
			require.Equal(t, "c", now, "no user moves between the previous shards")
			require.Equal(t, old, three.PreviousShard(user))
			moved++
		} else {
			require.Empty(t, three.PreviousShard(user))
		}
	}
	assert.InDelta(t, users/3, moved, users/100)
	for name, n := range at {
		assert.InDelta(t, users/3, n, users/100, name)
	}
}

func TestParse(t *testing.T) {
	s, err := Parse("eu-1=http://a:2379,http://b:2379")
	require.NoError(t, err)
	assert.Equal(t, Shard{"eu-1", []string{"http://a:2379", "http://b:2379"}}, s)
	for _, bad := range []string{"", "a", "a=", "=x", "A=x", "a b=x", "a/b=x"} {
		_, err := Parse(bad)
		require.Error(t, err, bad)
	}
	require.ErrorContains(t, Check(append(named("a"), named("a")...)), "twice")
	require.ErrorContains(t, Check([]Shard{{"a", []string{"x"}}, {"b", []string{"x"}}}), "same address")
	require.Error(t, Check(nil))
}

func TestDecode(t *testing.T) {
	m := &Map{ID: "x", Epoch: 3, Shards: named("a"), Previous: named("a", "b")}
	got, err := decode(m.encode())
	require.NoError(t, err)
	assert.Equal(t, m, got)
	for _, bad := range []string{"", "{}", "null", `{"id":"x","epoch":0,"shards":[{"name":"a"}]}`, `{"id":"x","epoch":1}`} {
		_, err := decode([]byte(bad))
		require.Error(t, err, bad)
	}
}
