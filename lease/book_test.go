package lease

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// bookModel is the dumbest account of where each lease is.
type bookModel struct {
	*rapid.T
	b     *book
	now   time.Time
	next  int64
	where map[int64]string    // waiting, used, due, revoked, forgotten
	seen  map[int64]time.Time // when this node last renewed it, as it knows
	due   map[int64]granted   // as the book gave them out
	used  map[int64]bool      // a stream had it
	old   map[int64]bool      // of those that are out: etcd was restored since
	back  int64               // how many were taken and not used
}

const modelTTL = 90 * time.Second

func (m *bookModel) pick(where string) (int64, bool) {
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

func (m *bookModel) lease(id int64) granted {
	return granted{lease: id, ttl: modelTTL, renewed: m.seen[id]}
}

func (m *bookModel) grant(*rapid.T) {
	m.next++
	m.where[m.next], m.seen[m.next] = "waiting", m.now
	m.b.put(m.lease(m.next))
}

func (m *bookModel) take(t *rapid.T) {
	handOn := rapid.Bool().Draw(t, "hand on")
	g, ok := m.b.take(m.now, handOn)
	if !ok {
		fit, unfit := 0, 0
		for id, at := range m.where {
			switch {
			case at != "waiting":
			case m.now.Sub(m.seen[id]) < modelTTL/2 && (handOn || !m.used[id]):
				fit++
			default:
				unfit++
			}
		}
		assert.True(t, fit == 0 || unfit >= takeTries, "%d leases that are fit wait, and %d that are not", fit, unfit)
		return
	}
	require.True(t, handOn || !m.used[g.lease], "a lease is not handed on")
	require.Equal(t, "waiting", m.where[g.lease], "lease %d", g.lease)
	require.Less(t, m.now.Sub(m.seen[g.lease]), modelTTL/2, "only a fresh lease is given to a stream")
	m.where[g.lease], m.due[g.lease], m.old[g.lease] = "used", g, false
}

func (m *bookModel) heartbeat(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.seen[id] = m.now
	}
}

func (m *bookModel) stop(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.where[id], m.used[id] = "waiting", true // or spent: the book decides by its age
		if m.now.Sub(m.seen[id]) >= modelTTL/2 {
			m.where[id] = "spent"
		}
		m.b.retire(m.lease(id), m.now)
	}
}

// giveBack is a start that was refused: its lease waits on.
func (m *bookModel) giveBack(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.back++
		m.comesBack(id)
		m.b.renewed(m.due[id])
	}
}

// comesBack says where a lease is after it was out.
func (m *bookModel) comesBack(id int64) {
	m.where[id] = "waiting"
	if m.old[id] && m.used[id] {
		m.where[id] = "spent"
	}
	m.seen[id] = m.due[id].renewed
}

// abandon is a write with an unknown outcome: the lease never comes back.
func (m *bookModel) abandon(*rapid.T) {
	if id, ok := m.pick("used"); ok {
		m.where[id] = "abandoned"
	}
}

func (m *bookModel) tend(t *rapid.T) {
	for _, g := range m.b.tend(rapid.IntRange(0, 5).Draw(t, "keep"), m.now) {
		require.Equal(t, "waiting", m.where[g.lease])
		m.where[g.lease], m.due[g.lease], m.old[g.lease] = "due", g, false
	}
	for id, at := range m.where {
		if at == "waiting" && m.now.Sub(m.seen[id]) >= modelTTL/2 {
			m.where[id] = "spent"
		}
	}
}

func (m *bookModel) renewed(t *rapid.T) {
	id, ok := m.pick("due")
	if !ok {
		return
	}
	g := m.due[id]
	if rapid.Bool().Draw(t, "answered") {
		g.renewed = m.now
		m.due[id] = g
		m.comesBack(id)
		m.b.renewed(g)
		return
	}
	m.where[id] = "spent"
	m.b.lost(g)
}

// restore spends what streams had, also where it is out.
func (m *bookModel) restore(*rapid.T) {
	for id, at := range m.where {
		m.old[id] = true
		if at == "waiting" && m.used[id] {
			m.where[id] = "spent"
		}
	}
	m.b.restored()
}

func (m *bookModel) surplus(t *rapid.T) {
	keep, n := rapid.IntRange(0, 5).Draw(t, "keep"), rapid.IntRange(0, 5).Draw(t, "n")
	waiting, spent := m.b.sizes()
	gone := m.b.surplus(keep, n)
	assert.Len(t, gone, min(n, spent+max(0, waiting-keep)))
	for _, g := range gone {
		require.Contains(t, []string{"waiting", "spent"}, m.where[g.lease])
		m.where[g.lease] = "revoked"
	}
}

func (m *bookModel) pass(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "seconds")) * time.Second)
}

// Check: every lease is in exactly one place, and the counters add up.
func (m *bookModel) Check(t *rapid.T) {
	places := map[string]int{}
	for _, at := range m.where {
		places[at]++
	}
	waiting, spent := m.b.sizes()
	require.Equal(t, places["waiting"]+places["spent"], waiting+spent)
	c := m.b.stats()
	require.EqualValues(t, places["revoked"], c.revoked)
	require.EqualValues(t, m.next, c.granted)
	in, out := c.granted+c.retired+m.back, c.reserved+c.handedOn+c.revoked+c.forgotten
	require.EqualValues(t, places["waiting"]+places["spent"]+places["due"], in-out)
	for _, g := range m.b.waiting { // the book may find out later that it is stale
		stale := m.now.Sub(m.seen[g.lease]) >= modelTTL/2
		require.True(t, m.where[g.lease] == "waiting" || stale && m.where[g.lease] == "spent", "lease %d", g.lease)
	}
	for _, g := range m.b.spent {
		require.Equal(t, "spent", m.where[g.lease], "lease %d", g.lease)
	}
}

func TestBook_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &bookModel{T: t, b: &book{}, now: time.Now(), where: map[int64]string{}, seen: map[int64]time.Time{},
			due: map[int64]granted{}, used: map[int64]bool{}, old: map[int64]bool{}}
		t.Repeat(map[string]func(*rapid.T){
			"grant": m.grant, "take": m.take, "heartbeat": m.heartbeat, "stop": m.stop, "abandon": m.abandon,
			"tend": m.tend, "renewed": m.renewed, "surplus": m.surplus, "restore": m.restore, "give back": m.giveBack,
			"pass": m.pass, "": m.Check,
		})
	})
}

func TestBook_IsBounded(t *testing.T) {
	b := &book{}
	for range maxSpent + 10 {
		b.lost(granted{})
	}
	_, spent := b.sizes()
	assert.Equal(t, maxSpent, spent)
	assert.EqualValues(t, 10, b.stats().forgotten)
}

// A lease that has waited for long is not given to a stream, even where nobody
// has tended the book: etcd may have queued its end.
func TestBook_StaleLeasesStay(t *testing.T) {
	b, now := &book{}, time.Now()
	b.put(granted{lease: 1, ttl: modelTTL, renewed: now})
	_, ok := b.take(now.Add(modelTTL/2), true)
	assert.False(t, ok)
	b.retire(granted{lease: 2, ttl: modelTTL}, now) // never renewed by this node
	g, ok := b.take(now, true)
	assert.True(t, ok)
	assert.EqualValues(t, 1, g.lease)
	_, ok = b.take(now, true)
	assert.False(t, ok, "what this node does not know to be fresh is only revoked")
}
