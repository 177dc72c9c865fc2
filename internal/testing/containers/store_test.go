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

// store records when etcd was available to a client that is not a node.
type store struct {
	mu         sync.Mutex
	termStarts []time.Time // etcd had no leader shortly before each
	writes     []time.Time // successful writes
}

// watchStore reads the status of all members and writes through them until the test ends.
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
				s.termStarts = append(s.termStarts, time.Now())
				s.mu.Unlock()
			}
		}
	}
}

// write puts a key through one member, ten times a second while the member answers.
func (s *store) write(ctx context.Context, member *clientv3.Client) {
	for ; ctx.Err() == nil; wait(ctx, 100*time.Millisecond) {
		call, cancel := context.WithTimeout(ctx, time.Second)
		_, err := member.Put(call, "observer", "")
		cancel()
		if err == nil {
			s.mu.Lock()
			s.writes = append(s.writes, time.Now())
			s.mu.Unlock()
		}
	}
}

// longestGap returns the longest time without a successful write between two times.
func (s *store) longestGap(from, to time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest, last := time.Duration(0), from
	for _, at := range append(slices.Clone(s.writes), to) {
		if at.Before(from) || at.After(to) {
			continue
		}
		longest, last = max(longest, at.Sub(last)), at
	}
	return longest
}

// unavailableBefore reports whether etcd was unavailable when a start failed, or shortly
// before. Starts wait 3 s for etcd, and an election takes up to 3 s.
func (s *store) unavailableBefore(failed time.Time) bool {
	const patience = 3 * time.Second
	if s.longestGap(failed.Add(-patience), failed) > time.Second {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.termStarts, func(began time.Time) bool {
		since := failed.Sub(began)
		return since > -patience && since < patience+time.Second
	})
}
