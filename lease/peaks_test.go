package lease

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"pgregory.net/rapid"

	"streamcount/internal/etcdtest"
)

// The histogram is what a map of all users would say.
func TestPeaks_CountWhoReachedWhat(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p peaks
		p.reset(time.Unix(0, 0))
		highest := map[string]int{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			user := fmt.Sprint("u", rapid.IntRange(0, 8).Draw(t, "user"))
			n := rapid.IntRange(1, 6).Draw(t, "n")
			p.saw(user, n)
			highest[user] = max(highest[user], n)
		}
		var want []int
		for n := 1; n <= 6; n++ {
			users := 0
			for _, top := range highest {
				if top >= n {
					users++
				}
			}
			if users > 0 {
				want = append(want, users)
			}
		}
		require.Equal(t, want, p.read().Reached)
		require.False(t, p.read().Partial)
	})
}

func TestPeaks_AreBoundedAndSaySo(t *testing.T) {
	var p peaks
	p.reset(time.Now())
	p.saw("maya", 2)
	for i := range uint64(maxPeaks) {
		p.users[i] = 1
	}
	p.saw("one more", 1)
	p.saw("maya", 3)
	assert.Equal(t, []int{1, 1, 1}, p.read().Reached)
	assert.True(t, p.read().Partial)
	p.reset(time.Now())
	assert.False(t, p.read().Partial)
}

func TestPeaks_Refusals(t *testing.T) {
	var p peaks
	p.reset(time.Now())
	for _, user := range []string{"maya", "maya", "ben", "maya"} {
		p.refused(user, 3)
	}
	p.refused("maya", 1)
	assert.Equal(t, []RefusedAt{{1, 1, 1}, {3, 2, 4}}, p.read().Refused)
}

// A new day begins with the streams that run.
func TestFeed_TurnsAtMidnight(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	before := newLimiter(t, c, Config{Prefix: prefix, Limit: 2})
	mustStart(t, before, "early", Request{}) // and listed by the next one
	f, l := feedOf(t, c, prefix)
	mustStart(t, l, "maya", Request{})
	gone := mustStart(t, l, "maya", Request{}).Stream
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrLimit)
	_, err = l.Stop(t.Context(), "maya", gone.ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Activity().Stops == 1 }, time.Minute, time.Millisecond)
	today := f.Concurrency()
	assert.Equal(t, []int{2, 1}, today.Reached)
	assert.Equal(t, []RefusedAt{{2, 1, 1}}, today.Refused)
	f.Turn(today.Since.Add(time.Minute).UTC().Truncate(24 * time.Hour)) // the same day
	assert.Equal(t, today, f.Concurrency())

	tomorrow := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	f.Turn(tomorrow.Add(9 * time.Second))
	assert.Equal(t, Concurrency{Since: tomorrow, Reached: []int{2}}, f.Concurrency())
}

func TestBusiest_IsTheTopOfAll(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := testView(Etcd{}, "/p")
		v.heard.Store(int64(instantOf(time.Now())))
		l := &Limiter{view: v, usual: Plan{Limit: 3}, keys: v.keys, circuit: &circuit{}}
		l.cfg.Timeout = time.Second
		var all []Busy
		for i := range rapid.IntRange(0, 20).Draw(t, "users") {
			b := Busy{User: fmt.Sprint(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), i), Limit: 3}
			b.Streams = rapid.IntRange(1, 3).Draw(t, "streams")
			for slot := range b.Streams {
				v.put(b.User, fmt.Sprintf("%03d", slot), &mvccpb.KeyValue{ModRevision: int64(slot + 1), Value: []byte("{}")})
			}
			all = append(all, b)
		}
		prefix := rapid.SampledFrom([]string{"", "a", "b1", "c"}).Draw(t, "prefix")
		most := rapid.IntRange(0, 12).Draw(t, "most")
		all = slices.DeleteFunc(all, func(b Busy) bool { return !strings.HasPrefix(b.User, prefix) })
		slices.SortFunc(all, CompareBusy)
		got, more, err := l.Busiest(context.Background(), prefix, most)
		require.NoError(t, err)
		require.Equal(t, len(all) > most, more)
		require.Equal(t, append([]Busy{}, all[:min(most, len(all))]...), append([]Busy{}, got...))
	})
}
