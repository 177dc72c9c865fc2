package ttlmap

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestMap_RemovesOldEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New[string, int](time.Minute, 10)
		r.Put("a", 1)
		time.Sleep(59 * time.Second)
		v, ok := r.Get("a")
		assert.True(t, ok)
		assert.Equal(t, 1, v)
		time.Sleep(61 * time.Second)
		_, ok = r.Get("a")
		assert.False(t, ok, "after two spans")
	})
}

func TestMap_IsBounded(t *testing.T) {
	r := New[int, int](time.Hour, 10)
	for i := range 1000 {
		r.Put(i, i)
		assert.LessOrEqual(t, len(r.current)+len(r.previous), 20)
	}
	_, ok := r.Get(999)
	assert.True(t, ok)
	r.Remove(999)
	_, ok = r.Get(999)
	assert.False(t, ok)
}

// An entry stays for at least one span, unless there are too many, and for at most two.
func TestMap_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const span, most = time.Minute, 5
		now := time.Now()
		r := New[int, int](span, most)
		r.now, r.rotatedAt = func() time.Time { return now }, now
		type entry struct {
			value int
			at    time.Time
			since int // puts after it
		}
		model := map[int]*entry{}
		key := rapid.IntRange(0, 9)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), rapid.IntRange(1, 1000).Draw(t, "value")
				for _, m := range model {
					m.since++
				}
				model[k] = &entry{v, now, 0}
				r.Put(k, v)
				require.LessOrEqual(t, len(r.current), most)
				require.LessOrEqual(t, len(r.previous), most)
			},
			"remove": func(t *rapid.T) {
				k := key.Draw(t, "key")
				delete(model, k)
				r.Remove(k)
			},
			"pass": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(0, 50).Draw(t, "seconds")) * time.Second)
			},
			"get": func(t *rapid.T) {
				k := key.Draw(t, "key")
				v, ok := r.Get(k)
				m := model[k]
				switch {
				case m == nil:
					require.False(t, ok, "%d was never put, or was removed", k)
				case ok:
					require.Equal(t, m.value, v)
					require.Less(t, now.Sub(m.at), 2*span)
				default:
					require.True(t, now.Sub(m.at) >= span || m.since >= most, "%d is gone after %v and %d other puts", k, now.Sub(m.at), m.since)
				}
			},
		})
	})
}
