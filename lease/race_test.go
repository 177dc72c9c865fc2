package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
)

// audit watches every revision below prefix, and fails the test if a user has more than
// limit keys at any of them. The function finish returns the number of revisions.
func audit(t *testing.T, c *clientv3.Client, prefix string, limit int) (finish func() int64) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	events := c.Watch(ctx, prefix+"/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	require.True(t, (<-events).Created)
	held := map[string]map[string]bool{}
	var seen, last int64
	read := func(resp clientv3.WatchResponse) {
		for i, e := range resp.Events {
			if rest, ok := strings.CutPrefix(string(e.Kv.Key), prefix+"/users/"); ok {
				user, slot, _ := strings.Cut(rest, "/")
				if held[user] == nil {
					held[user] = map[string]bool{}
				}
				if e.Type == mvccpb.DELETE {
					delete(held[user], slot)
				} else {
					held[user][slot] = true
				}
			}
			endOfRevision := i == len(resp.Events)-1 || resp.Events[i+1].Kv.ModRevision != e.Kv.ModRevision
			if !endOfRevision {
				continue
			}
			seen++
			last = e.Kv.ModRevision
			for user, slots := range held {
				if len(slots) > limit {
					t.Errorf("revision %d: %s has %d streams, the limit is %d", last, user, len(slots), limit)
				}
			}
		}
	}
	return func() int64 {
		t.Helper()
		defer cancel()
		mark, err := c.Put(context.Background(), prefix+"/audit", "end")
		require.NoError(t, err)
		for last < mark.Header.Revision {
			resp, ok := <-events
			require.True(t, ok)
			require.NoError(t, resp.Err())
			read(resp)
		}
		return seen
	}
}

// 12 concurrent starts for each of 300 users, on three nodes.
func TestStart_Race(t *testing.T) {
	const users, starts, limit = 300, 12, 3
	prefix := etcdtest.Prefix(t)
	nodes := make([]*Limiter, 3)
	for i := range nodes {
		nodes[i] = newLimiter(t, etcdtest.Client(t), Config{Prefix: prefix, Limit: limit, Timeout: time.Minute})
	}
	finish := audit(t, etcdtest.Client(t), prefix, limit)
	var mu sync.Mutex
	counts := map[string][]int{}
	refused := 0
	var wg sync.WaitGroup
	inFlight := make(chan struct{}, 600) // so that etcd does not reject them as too many requests
	began := time.Now()
	for i := range users * starts {
		inFlight <- struct{}{}
		wg.Go(func() {
			defer func() { <-inFlight }()
			user := fmt.Sprint("user-", i/starts)
			st, err := nodes[i%len(nodes)].Start(t.Context(), user, Request{})
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, ErrLimit) {
				refused++
				return
			}
			if assert.NoError(t, err) {
				counts[user] = append(counts[user], st.Count)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	require.Len(t, counts, users)
	for user, got := range counts {
		assert.ElementsMatch(t, []int{1, 2, 3}, got, "each start returns the count of its own revision: %s", user)
	}
	assert.Equal(t, users*(starts-limit), refused)
	t.Logf("%d starts in %v on 3 nodes: %d admitted, %d refused, %d revisions checked, none over the limit",
		users*starts, took.Round(time.Millisecond), users*limit, refused, finish())
}

// Concurrent starts of every kind for the same users, with stops and removals.
func TestStart_RaceOfAllKinds(t *testing.T) {
	t.Parallel()
	const users, limit = 20, 3
	prefix := etcdtest.Prefix(t)
	nodes := make([]*Limiter, 3)
	for i := range nodes {
		nodes[i] = newLimiter(t, etcdtest.Client(t), Config{Prefix: prefix, Limit: limit, Timeout: time.Minute})
	}
	finish := audit(t, etcdtest.Client(t), prefix, limit)
	var mu sync.Mutex
	var admitted []HeartbeatRequest
	var wg sync.WaitGroup
	for i := range users * 12 {
		wg.Go(func() {
			l, user := nodes[i%3], fmt.Sprint("user-", i%users)
			var last string
			for step := range 4 {
				r := Request{}
				switch (i/users + step) % 4 {
				case 0:
					r.Session = fmt.Sprint("session-", i%2)
				case 1:
					r.OnLimit = policy.ReplaceOldest
				case 2:
					if last != "" {
						r.Replaces = []string{last}
					}
				}
				st, err := l.Start(t.Context(), user, r)
				if err == nil {
					last = st.Stream.ID
					assert.LessOrEqual(t, st.Count, limit)
					mu.Lock()
					admitted = append(admitted, HeartbeatRequest{user, last})
					mu.Unlock()
				} else {
					assert.ErrorIs(t, err, ErrLimit)
				}
				if step == 2 && last != "" {
					if _, err := l.Stop(t.Context(), user, last); err != nil {
						assert.ErrorIs(t, err, ErrEnded)
					}
				}
			}
			if i%40 == 0 {
				if _, err := l.Remove(t.Context(), user); err != nil {
					assert.ErrorIs(t, err, ErrNoStreams)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d streams admitted, %d revisions checked", len(admitted), finish())
	// No stream was overwritten: each stream that is gone was ended for a reason.
	for i, r := range nodes[1].Heartbeats(t.Context(), admitted) {
		var ended *EndedError
		for tries := 0; r.Err == nil && r.Degraded && tries < 10; tries++ { // the whole batch was too much for a slow machine
			r = nodes[1].Heartbeats(t.Context(), admitted[i:i+1])[0]
		}
		if errors.As(r.Err, &ended) {
			assert.Contains(t, []policy.Reason{policy.ReasonStopped, policy.ReasonReplaced, policy.ReasonEvicted, policy.ReasonRemoved}, ended.Reason,
				"%s of %s", admitted[i].ID, admitted[i].User)
		} else if assert.NoError(t, r.Err) {
			assert.False(t, r.Degraded)
		}
	}
	for i := range users {
		s, err := nodes[0].readUser(t.Context(), fmt.Sprint("user-", i))
		require.NoError(t, err)
		sessions := map[string]int{}
		for _, h := range s.entries {
			if h.Session != "" {
				sessions[h.Session]++
			}
		}
		for session, n := range sessions {
			assert.Equal(t, 1, n, "session %s has more than one slot", session)
		}
	}
}

func TestStart_SessionRace(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, Timeout: time.Minute})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			st, err := l.Start(t.Context(), "maya", Request{Session: "tab"})
			if assert.NoError(t, err) {
				assert.Equal(t, 1, st.Count)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, 1, keysOf(t, l, "maya"))
}
