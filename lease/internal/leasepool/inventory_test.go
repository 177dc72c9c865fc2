package leasepool

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// inventoryModel is the simplest record of where each lease is.
type inventoryModel struct {
	*rapid.T
	v     *inventory
	now   time.Time
	next  int64
	where map[int64]string    // idle, used, due, toRevoke, revoked, abandoned
	seen  map[int64]time.Time // when this node last renewed it
	due   map[int64]Lease     // as the inventory returned them
	used  map[int64]bool      // by a stream
	old   map[int64]bool      // removed from the inventory before etcd was restored
	back  int64               // leases that were taken and put back unused
}

const modelTTL = 90 * time.Second

func (m *inventoryModel) pick(where string) (int64, bool) {
	var ids []int64
	for id, at := range m.where {
		if at == where {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return 0, false
	}
	slices.Sort(ids)
	return rapid.SampledFrom(ids).Draw(m.T, where), true
}

func (m *inventoryModel) lease(id int64) Lease {
	return Lease{ID: id, TTL: modelTTL, Renewed: m.seen[id]}
}

func (m *inventoryModel) grant(*rapid.T) {
	m.next++
	m.where[m.next], m.seen[m.next] = "idle", m.now
	m.v.put(m.lease(m.next))
}

func (m *inventoryModel) take(t *rapid.T) {
	allowReused := rapid.Bool().Draw(t, "allow reused")
	g, ok := m.v.take(m.now, allowReused)
	if !ok {
		fit, unfit := 0, 0
		for id, at := range m.where {
			switch {
			case at != "idle":
			case m.now.Sub(m.seen[id]) < modelTTL/2 && (allowReused || !m.used[id]):
				fit++
			default:
				unfit++
			}
		}
		assert.True(t, fit == 0 || unfit >= maxTakeScan, "%d usable leases are idle, and %d that are not usable", fit, unfit)
		return
	}
	require.True(t, allowReused || !m.used[g.ID], "a lease is reused")
	require.Equal(t, "idle", m.where[g.ID], "lease %d", g.ID)
	require.Less(t, m.now.Sub(m.seen[g.ID]), modelTTL/2, "only a fresh lease is given to a stream")
	m.where[g.ID], m.due[g.ID], m.old[g.ID] = "used", g, false
}

func (m *inventoryModel) heartbeat(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.seen[id] = m.now
	}
}

func (m *inventoryModel) stop(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.where[id], m.used[id] = "idle", true // or toRevoke, depending on its age
		if m.now.Sub(m.seen[id]) >= modelTTL/2 {
			m.where[id] = "toRevoke"
		}
		m.v.release(m.lease(id), m.now)
	}
}

// putBack is a start that was refused: its lease becomes idle.
func (m *inventoryModel) putBack(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.back++
		m.returned(id)
		m.v.putBack(m.due[id])
	}
}

// returned updates the model for a lease that is put back.
func (m *inventoryModel) returned(id int64) {
	m.where[id] = "idle"
	if m.old[id] && m.used[id] {
		m.where[id] = "toRevoke"
	}
	m.seen[id] = m.due[id].Renewed
}

// abandon is a write with an unknown outcome: the lease does not return.
func (m *inventoryModel) abandon(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.where[id] = "abandoned"
	}
}

func (m *inventoryModel) maintain(t *rapid.T) {
	for _, g := range m.v.maintain(rapid.IntRange(0, 5).Draw(t, "keep"), m.now) {
		require.Equal(t, "idle", m.where[g.ID])
		m.where[g.ID], m.due[g.ID], m.old[g.ID] = "due", g, false
	}
	for id, at := range m.where {
		if at == "idle" && m.now.Sub(m.seen[id]) >= modelTTL/2 {
			m.where[id] = "toRevoke"
		}
	}
}

func (m *inventoryModel) renewed(t *rapid.T) {
	id, ok := m.pick("due")
	if !ok {
		return
	}
	g := m.due[id]
	if rapid.Bool().Draw(t, "answered") {
		g.Renewed = m.now
		m.due[id] = g
		m.returned(id)
		m.v.putBack(g)
		return
	}
	m.where[id] = "toRevoke"
	m.v.renewalFailed(g)
}

// restore discards the leases that streams used, including those that are removed now.
func (m *inventoryModel) restore(*rapid.T) {
	for id, at := range m.where {
		m.old[id] = true
		if at == "idle" && m.used[id] {
			m.where[id] = "toRevoke"
		}
	}
	m.v.discardUsed()
}

func (m *inventoryModel) takeExcess(t *rapid.T) {
	keep, n := rapid.IntRange(0, 5).Draw(t, "keep"), rapid.IntRange(0, 5).Draw(t, "n")
	idle, toRevoke := m.v.sizes()
	excess := m.v.takeExcess(keep, n)
	assert.Len(t, excess, min(n, toRevoke+max(0, idle-keep)))
	for _, g := range excess {
		require.Contains(t, []string{"idle", "toRevoke"}, m.where[g.ID])
		m.where[g.ID] = "revoked"
	}
}

func (m *inventoryModel) pass(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
}

// Check requires that every lease is in exactly one place, and that the counters match.
func (m *inventoryModel) Check(t *rapid.T) {
	places := map[string]int{}
	for _, at := range m.where {
		places[at]++
	}
	idle, toRevoke := m.v.sizes()
	require.Equal(t, places["idle"]+places["toRevoke"], idle+toRevoke)
	c := m.v.moveCounts()
	require.EqualValues(t, places["revoked"], c.Revoked)
	require.EqualValues(t, m.next, c.Granted)
	in, out := c.Granted+c.Returned+m.back, c.Taken+c.Reused+c.Revoked+c.Abandoned
	require.EqualValues(t, places["idle"]+places["toRevoke"]+places["due"], in-out)
	for _, g := range m.v.idle { // the inventory discards stale leases later
		stale := m.now.Sub(m.seen[g.ID]) >= modelTTL/2
		require.True(t, m.where[g.ID] == "idle" || stale && m.where[g.ID] == "toRevoke", "lease %d", g.ID)
	}
	for _, g := range m.v.toRevoke {
		require.Equal(t, "toRevoke", m.where[g.ID], "lease %d", g.ID)
	}
}

func TestInventory_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &inventoryModel{T: t, v: &inventory{}, now: time.Now(), where: map[int64]string{}, seen: map[int64]time.Time{},
			due: map[int64]Lease{}, used: map[int64]bool{}, old: map[int64]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"grant": m.grant, "take": m.take, "heartbeat": m.heartbeat, "stop": m.stop, "abandon": m.abandon,
			"maintain": m.maintain, "renewed": m.renewed, "takeExcess": m.takeExcess, "restore": m.restore, "put back": m.putBack,
			"pass": m.pass, "": m.Check,
		})
	})
}

func TestInventory_BoundsLeasesToRevoke(t *testing.T) {
	v := &inventory{}
	for range maxToRevoke + 10 {
		v.renewalFailed(Lease{})
	}
	_, toRevoke := v.sizes()
	assert.Equal(t, maxToRevoke, toRevoke)
	assert.EqualValues(t, 10, v.moveCounts().Abandoned)
}

// A stale lease is not given to a stream, even if maintain was not called: etcd may have
// queued its expiry.
func TestInventory_DoesNotGiveOutStaleLeases(t *testing.T) {
	v, now := &inventory{}, time.Now()
	v.put(Lease{ID: 1, TTL: modelTTL, Renewed: now})
	_, ok := v.take(now.Add(modelTTL/2), true)
	assert.False(t, ok)
	v.release(Lease{ID: 2, TTL: modelTTL}, now) // never renewed by this node
	g, ok := v.take(now, true)
	assert.True(t, ok)
	assert.EqualValues(t, 1, g.ID)
	_, ok = v.take(now, true)
	assert.False(t, ok, "a lease that is not known to be fresh is only revoked")
}
