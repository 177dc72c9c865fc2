package lease

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/testing/etcdsim"
)

// A simNode is a node of a simulation. A restart replaces its Limiter.
type simNode struct {
	*sim
	link    *etcdsim.Link
	limiter atomic.Pointer[Limiter]
	running sync.WaitGroup // the Limiters

	restarting chan struct{}      // has an element during a restart; a Mutex would stop the virtual time
	stop       context.CancelFunc // ends the newest Limiter
}

func (s *sim) addNode(i int) *simNode {
	link := &etcdsim.Link{Etcd: s.etcd, Seed: s.seed + uint64(i), Delay: s.delay, Lost: s.lost, Lag: s.lag}
	n := &simNode{sim: s, link: link, stop: func() {}, restarting: make(chan struct{}, 1)}
	s.nodes, s.links = append(s.nodes, n), append(s.links, link)
	return n
}

// limiterOf returns the Limiter of the node with index i.
func (s *sim) limiterOf(i int) *Limiter { return s.nodes[i].limiter.Load() }

// start starts the node, which runs until ctx ends.
func (n *simNode) start(ctx context.Context) {
	l, err := New(Etcd{KV: n.link.KV(), Lease: n.link.Lease(), Watch: n.link.Watcher()}, Config{
		Prefix: "/p", Limit: n.limit, TTL: n.ttl, Secret: []byte("0123456789abcdef"), Cooldown: n.cooldown, Outage: n.outage,
	})
	if err != nil {
		n.fault("new: %v", err)
		return
	}
	ctx, n.stop = context.WithCancel(ctx)
	n.limiter.Store(l)
	n.running.Go(func() {
		if err := l.Run(ctx); err != nil {
			n.fault("run: %v", err)
		}
	})
	n.running.Go(func() {
		for !l.Current() {
			if sleep(ctx, 10*time.Millisecond) {
				return
			}
		}
		n.edge.becameCurrent(l)
	})
}

// restart stops the node and starts it after a time. If killed is set, the new process may
// start before the old one has completed its calls.
func (n *simNode) restart(ctx context.Context, killed bool, after time.Duration) {
	n.restarting <- struct{}{}
	defer func() { <-n.restarting }()
	n.stop()
	if !killed {
		n.running.Wait()
	}
	time.Sleep(after)
	n.start(ctx)
	n.count("restarts")
}

// scheduleRestarts restarts nodes at random times: one of them, or all at once.
func (s *sim) scheduleRestarts(ctx context.Context) {
	rng := rand.New(rand.NewPCG(s.seed, 4))
	var all sync.WaitGroup
	for range s.restarts {
		at, after, killed := rng.Int64N(int64(s.length)), time.Duration(rng.Int64N(int64(s.ttl/2))), rng.IntN(2) == 0
		only := rng.IntN(2*len(s.nodes)) - len(s.nodes) // below 0 for all
		for i, n := range s.nodes {
			if only < 0 || only == i {
				all.Go(func() { time.Sleep(time.Duration(at)); n.restart(ctx, killed, after) })
			}
		}
	}
	all.Wait()
}
