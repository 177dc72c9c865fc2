package replica

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/monotonic"
	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

// etcd was restored from a backup, and its revision is higher than the replica's before the
// replica can compare the histories. The replica keeps nothing of the lost history.
func TestReplica_RelistsAfterRestoreAtAHigherRevision(t *testing.T) {
	t.Parallel()
	for name, deletes := range map[string]bool{"a put was last": false, "a deletion was last": true} {
		t.Run(name, func(t *testing.T) {
			e := etcdtest.StartWithBackup(t)
			put := func(user string, n int) {
				for i := range n {
					key := schema.Keys{Prefix: "/t"}.Slot(fmt.Sprint(user, i), 0)
					_, err := e.Conn.Put(t.Context(), key, string(recordValue(streamid.Nonce{byte(i), 1}, "")))
					require.NoError(t, err)
				}
			}
			put("old", 1)
			e.Backup(t)
			put("lost", 5)
			if deletes {
				_, err := e.Conn.Delete(t.Context(), schema.Keys{Prefix: "/t"}.Slot("lost0", 0))
				require.NoError(t, err)
			}
			f := &etcdtest.Faults{}
			v := runReplica(t, etcdtest.FaultyClient(t, []string{e.Endpoint()}, f), "/t")
			requireCurrent(t, v)
			put("seen", 2)
			if deletes {
				_, err := e.Conn.Delete(t.Context(), schema.Keys{Prefix: "/t"}.Slot("seen0", 0))
				require.NoError(t, err)
			}
			require.Eventually(t, func() bool { s, _, _ := v.UserEntries("seen1"); return len(s) == 1 }, time.Minute, time.Millisecond)
			seen := v.applied.Load()
			f.Hold(etcdtest.Range)
			f.Hold(etcdtest.Watch)
			lists := v.lists.Load()
			e.Restore(t)
			put("new", 50)
			f.Heal()
			require.Eventually(t, func() bool { return v.lists.Load() > lists }, time.Minute, time.Millisecond)
			requireCurrent(t, v)
			require.Greater(t, v.applied.Load(), seen)
			for user, want := range map[string]int{"old0": 1, "lost1": 0, "seen1": 0, "new0": 1, "new5": 1, "new49": 1} {
				entries, _, _ := v.UserEntries(user)
				assert.Len(t, entries, want, user)
			}
		})
	}
}

// A proof of progress counts from the time of its request, not of its answer.
func TestWatchProgress_CountsFromTheRequest(t *testing.T) {
	v := newTestReplica(etcdtest.Client(t), "/t")
	s := watchProgress{replica: v, ctx: t.Context()}
	at := time.Now()
	for i := range 3 {
		s.pending = append(s.pending, at.Add(time.Duration(i)*time.Millisecond))
	}
	s.requestAnswered()
	assert.Equal(t, int64(monotonic.Of(at)), v.lastProgress.Load())
	s.sendRequest(at.Add(time.Second))
	s.requestAnswered()
	assert.Equal(t, int64(monotonic.Of(at.Add(time.Millisecond))), v.lastProgress.Load(), "the answer to the second request")
	s.sendRequest(at.Add(3 * time.Second))
	s.requestAnswered()
	assert.Equal(t, int64(monotonic.Of(at.Add(3*time.Second))), v.lastProgress.Load(), "the third request was dropped")
	s.requestAnswered()
	assert.Equal(t, int64(monotonic.Of(at.Add(3*time.Second))), v.lastProgress.Load(), "an answer without a request")
}
