package lease

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"strings"

	"streamcount/lease/internal/etcdop"
)

// A TopUser is a user with the number of their streams and their limit.
type TopUser struct {
	User    string
	Streams int
	Limit   int
}

// CompareTopUsers orders by descending number of streams, and then by user id.
func CompareTopUsers(a, b TopUser) int {
	return cmp.Or(cmp.Compare(b.Streams, a.Streams), cmp.Compare(a.User, b.User))
}

// TopUsers returns the users with the most streams among those whose ids begin with
// prefix, at most limit of them, and whether there are more. It iterates over all
// users. Returns [ErrUnavailable].
func (l *Limiter) TopUsers(ctx context.Context, prefix string, limit int) (top []TopUser, more bool, err error) {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	for !l.replica.WaitOwnWrites(ctx) {
		if retryPause(ctx) {
			return nil, false, etcdop.Unavailable("list users", errReplicaStale)
		}
	}
	top, more = selectTopUsers(l.replica.EachUserCount, prefix, limit)
	for i := range top {
		top[i].Limit = l.displayLimit(top[i].User)
	}
	return top, more, nil
}

// selectTopUsers returns the users with the most streams among those that each calls its
// function with.
func selectTopUsers(
	each func(func(user string, streams int)), prefix string, limit int,
) (top []TopUser, more bool) {
	var h topUserHeap
	each(func(user string, n int) {
		if !strings.HasPrefix(user, prefix) {
			return
		}
		b := TopUser{User: user, Streams: n}
		switch {
		case len(h) < limit:
			heap.Push(&h, b)
			return
		case limit > 0 && CompareTopUsers(b, h[0]) < 0:
			h[0] = b
			heap.Fix(&h, 0)
		}
		more = true
	})
	top = h
	slices.SortFunc(top, CompareTopUsers)
	return top, more
}

// countStreams returns the totals by the replica. Users with limit or more streams count
// as at the limit. claims reports whether there is a stream whose start carried a plan or
// a limit, which may differ from limit.
func (l *Limiter) countStreams(limit int) (t Totals, claims bool) {
	c := l.replica.Total(limit)
	return Totals{
		Revision: c.Revision, Streams: c.Streams, Users: c.Users, UsersAtLimit: c.UsersAtLimit, ByRegion: c.ByRegion,
		ByVia: c.ByVia,
	}, c.HasClaims
}

// topUserHeap is a heap with the last user in the order of [CompareTopUsers] first.
type topUserHeap []TopUser

func (h topUserHeap) Len() int           { return len(h) }
func (h topUserHeap) Less(i, j int) bool { return CompareTopUsers(h[i], h[j]) > 0 }
func (h topUserHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *topUserHeap) Push(x any)        { *h = append(*h, x.(TopUser)) }

func (h *topUserHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
