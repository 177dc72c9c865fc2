package replica

import (
	"container/heap"
	"sync"
	"sync/atomic"
)

// revisionWaiters wakes goroutines that wait for a revision, each once and only when
// its revision is applied.
type revisionWaiters struct {
	mu   sync.Mutex
	heap waiterHeap
}

type waiter struct {
	rev  int64
	done chan struct{}
}

// wait returns a channel that is closed when applied has reached rev.
func (w *revisionWaiters) wait(rev int64, applied *atomic.Int64) <-chan struct{} {
	done := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if applied.Load() >= rev { // release may have run already
		close(done)
		return done
	}
	heap.Push(&w.heap, waiter{rev, done})
	return done
}

// release wakes the waiters for rev and earlier revisions.
func (w *revisionWaiters) release(rev int64) {
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

// A broadcast wakes all goroutines that wait for the next occurrence of something.
type broadcast struct {
	mu sync.Mutex
	c  chan struct{}
}

// wait returns a channel that the next call of wakeAll closes.
func (s *broadcast) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *broadcast) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
