package lease

import (
	"container/heap"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

// tally counts what a view holds, as it changes.
type tally struct {
	mu      sync.Mutex
	streams int
	byCount map[int]int // users by how many keys they hold
	names   []string    // of regions
	numbers map[string]uint16
	regions []int // streams by region
	told    int   // streams whose start was told what its user's limit is
}

const maxRegions = 1000 // more are counted under the last: the name comes from a value that others may write

func (t *tally) init() {
	t.byCount = make(map[int]int)
	t.numbers = make(map[string]uint16)
}

// region is the number of a name.
func (t *tally) region(name string) uint16 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n, ok := t.numbers[name]; ok {
		return n
	}
	if len(t.names) >= maxRegions {
		return maxRegions - 1
	}
	n := uint16(len(t.names))
	t.names, t.regions = append(t.names, name), append(t.regions, 0)
	t.numbers[name] = n
	return n
}

// added counts one more stream of a user who had n.
func (t *tally) added(n int, s *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams++
	t.place(s, 1)
	t.turn(n, n+1)
}

// removed counts one stream less of a user who had n.
func (t *tally) removed(n int, s *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.streams--
	t.place(s, -1)
	t.turn(n, n-1)
}

// moved counts a stream in the place of another.
func (t *tally) moved(from, to *live) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.place(from, -1)
	t.place(to, 1)
}

func (t *tally) place(s *live, by int) {
	t.regions[s.region] += by
	if s.told {
		t.told += by
	}
}

func (t *tally) turn(from, to int) {
	if from > 0 {
		if t.byCount[from]--; t.byCount[from] == 0 {
			delete(t.byCount, from)
		}
	}
	if to > 0 {
		t.byCount[to]++
	}
}

// totals counts everything; users are at the limit who hold limit keys or more.
// It also reports whether there are starts that were told another limit.
func (v *view) totals(limit int) (out Totals, told bool) {
	t := &v.tally
	out = Totals{Revision: v.applied.Load(), ByRegion: map[string]int{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	out.Streams = t.streams
	for n, users := range t.byCount {
		out.Users += users
		if n >= limit {
			out.UsersAtLimit += users
		}
	}
	for i, n := range t.regions {
		if n > 0 {
			out.ByRegion[t.names[i]] += n
		}
	}
	return out, t.told > 0
}

// each calls f with every user and his streams, in no order.
func (v *view) each(f func(user string, streams []held)) {
	for i := range v.shards {
		for _, user := range v.shards[i].names() {
			if s, _ := v.user(user); len(s.held) > 0 {
				f(user, s.held)
			}
		}
	}
}

func (sh *viewShard) names() []string {
	sh.RLock()
	defer sh.RUnlock()
	return slices.Collect(maps.Keys(sh.users))
}

// waiters wait for a revision. Each is woken once, and only when it is there.
type waiters struct {
	mu   sync.Mutex
	heap waiterHeap
}

type waiter struct {
	rev  int64
	done chan struct{}
}

// until returns a channel that is closed when applied has reached rev.
func (w *waiters) until(rev int64, applied *atomic.Int64) <-chan struct{} {
	done := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if applied.Load() >= rev { // release may have looked already
		close(done)
		return done
	}
	heap.Push(&w.heap, waiter{rev, done})
	return done
}

// release wakes all who wait for rev or less.
func (w *waiters) release(rev int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.heap) > 0 && w.heap[0].rev <= rev {
		close(heap.Pop(&w.heap).(waiter).done)
	}
}

type waiterHeap []waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].rev < h[j].rev }
func (h waiterHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *waiterHeap) Push(x any)        { *h = append(*h, x.(waiter)) }

func (h *waiterHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
