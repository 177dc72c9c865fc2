package containers

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// store is what an observer sees of etcd beside the nodes: when it began a new term,
// and so had no leader shortly before, and when it took a write of the observer's own.
type store struct {
	mu    sync.Mutex
	began []time.Time
	took  []time.Time
}

// watchStore asks and writes to all members all the time, until the test ends.
func watchStore(t *testing.T, etcd *clientv3.Client) *store {
	t.Helper()
	s := &store{}
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	t.Cleanup(func() { stop(); watching.Wait() })
	watching.Go(func() { s.followTerms(ctx, etcd) })
	for _, endpoint := range etcd.Endpoints() {
		one, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: time.Second})
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, one.Close()) })
		watching.Go(func() { s.write(ctx, one) })
	}
	return s
}

func (s *store) followTerms(ctx context.Context, etcd *clientv3.Client) {
	for latest := uint64(0); ctx.Err() == nil; wait(ctx, 50*time.Millisecond) {
		for _, endpoint := range etcd.Endpoints() {
			call, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
			st, err := etcd.Status(call, endpoint)
			cancel()
			if err == nil && st.RaftTerm > latest {
				latest = st.RaftTerm
				s.mu.Lock()
				s.began = append(s.began, time.Now())
				s.mu.Unlock()
			}
		}
	}
}

// write puts a key by way of one member, ten times a second while that answers.
func (s *store) write(ctx context.Context, member *clientv3.Client) {
	for ; ctx.Err() == nil; wait(ctx, 100*time.Millisecond) {
		call, cancel := context.WithTimeout(ctx, time.Second)
		_, err := member.Put(call, "observer", "")
		cancel()
		if err == nil {
			s.mu.Lock()
			s.took = append(s.took, time.Now())
			s.mu.Unlock()
		}
	}
}

// still is the longest time in which etcd took no write, between two moments.
func (s *store) still(from, to time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest, last := time.Duration(0), from
	for _, at := range append(slices.Clone(s.took), to) {
		if at.Before(from) || at.After(to) {
			continue
		}
		longest, last = max(longest, at.Sub(last)), at
	}
	return longest
}

// away reports whether a start that failed at that time is etcd's doing: starts wait
// 3 s for it, and an election takes up to 3 s.
func (s *store) away(failed time.Time) bool {
	const patience = 3 * time.Second
	if s.still(failed.Add(-patience), failed) > time.Second {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.began, func(began time.Time) bool {
		since := failed.Sub(began)
		return since > -patience && since < patience+time.Second
	})
}
