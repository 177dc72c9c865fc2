package lease

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"strings"
)

// Busy is a user with how many streams he has.
type Busy struct {
	User    string
	Streams int
	Limit   int
}

// CompareBusy puts the busiest first, and those with as many by name.
func CompareBusy(a, b Busy) int {
	return cmp.Or(cmp.Compare(b.Streams, a.Streams), cmp.Compare(a.User, b.User))
}

// Busiest returns the users with the most streams among those whose ids begin with
// prefix, at most so many, and whether there are others. It looks at every user.
// Returns [ErrUnavailable].
func (l *Limiter) Busiest(ctx context.Context, prefix string, most int) (top []Busy, more bool, err error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for !l.view.reach(ctx, l.view.own.Load()) {
		if pause(ctx) {
			return nil, false, unavailable("list users", errViewBehind)
		}
	}
	var h busyHeap
	l.view.counts(func(user string, n int) {
		if !strings.HasPrefix(user, prefix) {
			return
		}
		b := Busy{User: user, Streams: n}
		switch {
		case len(h) < most:
			heap.Push(&h, b)
			return
		case most > 0 && CompareBusy(b, h[0]) < 0:
			h[0] = b
			heap.Fix(&h, 0)
		}
		more = true
	})
	top = h
	slices.SortFunc(top, CompareBusy)
	for i := range top {
		s, _ := l.view.user(top[i].User)
		top[i].Limit = l.ruleOf(top[i].User, newest(s.held)).limit
	}
	return top, more, nil
}

// busyHeap has the least busy first.
type busyHeap []Busy

func (h busyHeap) Len() int           { return len(h) }
func (h busyHeap) Less(i, j int) bool { return CompareBusy(h[i], h[j]) > 0 }
func (h busyHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *busyHeap) Push(x any)        { *h = append(*h, x.(Busy)) }

func (h *busyHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// counts calls f with every user and how many keys he has, in no order, and reads
// none of them. f must not call the view.
func (v *view) counts(f func(user string, streams int)) {
	for i := range v.shards {
		v.shards[i].counts(f)
	}
}

func (sh *viewShard) counts(f func(user string, streams int)) {
	sh.RLock()
	defer sh.RUnlock()
	for user, at := range sh.users {
		n := 0
		for ; at != nil; at = at.next {
			n++
		}
		f(user, n)
	}
}
