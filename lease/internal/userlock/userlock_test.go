package userlock

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// locksModel counts the starts that wait for a lock and those that hold it.
type locksModel struct {
	locks            *Locks
	waiting, holding map[string]int
	entries          map[string]*lock
}

func (m *locksModel) Check(t *rapid.T) {
	known := 0
	for i := range m.locks.shards {
		known += len(m.locks.shards[i].locks)
	}
	busy := 0
	for user, n := range m.waiting {
		require.LessOrEqual(t, m.holding[user], 1, "%s: the lock has two holders", user)
		require.LessOrEqual(t, n+m.holding[user], maxStartsPerUser)
		if n+m.holding[user] > 0 {
			busy++
			require.True(t, m.holding[user] == 1 || len(m.entries[user].free) == 1, "%s: all wait for a free lock", user)
		}
	}
	require.Equal(t, busy, known, "unused locks are removed")
}

func TestLocks_AgainstAModel(t *testing.T) {
	user := rapid.SampledFrom([]string{"a", "b", "c"})
	rapid.Check(t, func(t *rapid.T) {
		m := &locksModel{New(), map[string]int{}, map[string]int{}, map[string]*lock{}}
		t.Repeat(map[string]func(*rapid.T){
			"": m.Check,
			"enqueue": func(t *rapid.T) {
				u := user.Draw(t, "user")
				for range rapid.SampledFrom([]int{1, 2, maxStartsPerUser}).Draw(t, "how many") {
					entry, waited, err := m.locks.enqueue(u)
					require.Equal(t, m.waiting[u]+m.holding[u] >= maxStartsPerUser, err != nil)
					if err != nil {
						return
					}
					require.Equal(t, m.waiting[u]+m.holding[u] > 0, waited)
					m.waiting[u]++
					m.entries[u] = entry
				}
			},
			"lock": func(t *rapid.T) {
				u := user.Draw(t, "user")
				if m.waiting[u] == 0 {
					return
				}
				select {
				case <-m.entries[u].free:
					m.waiting[u]--
					m.holding[u]++
				default:
					require.Equal(t, 1, m.holding[u])
				}
			},
			"cancel": func(t *rapid.T) {
				if u := user.Draw(t, "user"); m.waiting[u] > 0 {
					m.waiting[u]--
					m.locks.release(u)
				}
			},
			"unlock": func(t *rapid.T) {
				if u := user.Draw(t, "user"); m.holding[u] > 0 {
					m.holding[u]--
					m.locks.Unlock(u)
				}
			},
		})
	})
}
