//go:build linux

package torture

import (
	"context"
	"math/rand/v2"
	"time"
)

const ms = time.Millisecond

// faults are all faults. The weight of a fault is its relative frequency.
var faults = []fault{
	// Nodes.
	{name: "node killed", weight: 6, min: 300 * ms, max: 2500 * ms, begin: onNode(func(_ *injection, n *node) { n.kill() })},
	{name: "node paused", weight: 6, min: 300 * ms, max: 7000 * ms, begin: onNode(func(_ *injection, n *node) { n.pause() })},
	{name: "node restarted", weight: 4, min: 100 * ms, max: 500 * ms, begin: restartNode},
	{name: "clock set", weight: 6, min: 300 * ms, max: 5000 * ms, begin: setClock},

	// Between nodes and etcd.
	{name: "node cut from a member", weight: 4, min: 500 * ms, max: 3000 * ms, begin: onNode(func(t *injection, n *node) {
		cut(n.links[t.rng.IntN(members)])
	})},
	{name: "node cut from the leader", weight: 4, min: 500 * ms, max: 4000 * ms, begin: onNode(func(t *injection, n *node) {
		cut(n.links[t.leader()])
	})},
	{name: "node cut from etcd", weight: 4, min: 500 * ms, max: 5000 * ms, begin: onNode(func(_ *injection, n *node) {
		for _, l := range n.links {
			cut(l)
		}
	})},
	{name: "keep-alive stream stuck", weight: 5, min: 500 * ms, max: 4000 * ms, begin: onNode(func(t *injection, n *node) {
		l := n.links[t.leader()]
		l.hold(outbound)
		l.hold(inbound)
	})},
	{name: "replies lost", weight: 10, min: 500 * ms, max: 3000 * ms, begin: flaky(inbound)},
	{name: "requests lost", weight: 8, min: 500 * ms, max: 3000 * ms, begin: flaky(outbound)},
	{name: "connections reset", weight: 5, min: 500 * ms, max: 2000 * ms, begin: resetConnections},
	{name: "node far away", weight: 5, min: 1000 * ms, max: 5000 * ms, begin: onNode(func(t *injection, n *node) {
		far := [...]time.Duration{20 * ms, 60 * ms, 250 * ms}[t.rng.IntN(3)]
		for _, l := range n.links {
			l.slow(outbound, far, 0)
			l.slow(inbound, far, 0)
		}
	})},
	{name: "node receives changes late", weight: 6, min: 1000 * ms, max: 4000 * ms, begin: onNode(func(t *injection, n *node) {
		for _, l := range n.links {
			l.slow(inbound, 100*ms+time.Duration(t.rng.Int64N(int64(900*ms))), 0)
		}
	})},
	{name: "narrow link", weight: 3, min: 1000 * ms, max: 4000 * ms, begin: onNode(func(_ *injection, n *node) {
		for _, l := range n.links {
			l.slow(outbound, 0, 64<<10)
			l.slow(inbound, 0, 64<<10)
		}
	})},

	// Members of etcd.
	{name: "leader killed", weight: 5, min: 200 * ms, max: 2500 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.etcd.members[t.leader()].kill()
	})},
	{name: "follower killed", weight: 4, min: 200 * ms, max: 2500 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.etcd.members[t.follower()].kill()
	})},
	{name: "all of etcd killed", weight: 2, min: 100 * ms, max: 1500 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		for _, m := range t.etcd.members {
			m.kill()
		}
	})},
	{name: "leader paused", weight: 4, min: 200 * ms, max: 1200 * ms, etcd: true, begin: pauseLeader},
	{name: "follower paused", weight: 4, min: 300 * ms, max: 5000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.etcd.members[t.follower()].pause()
	})},
	{name: "leader cut off", weight: 4, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.isolate(t.leader(), true, true)
	})},
	{name: "leader receives nothing", weight: 3, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.isolate(t.leader(), true, false)
	})},
	{name: "leader sends nothing", weight: 3, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.isolate(t.leader(), false, true)
	})},
	{name: "follower cut off", weight: 3, min: 500 * ms, max: 4000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.isolate(t.follower(), true, true)
	})},
	{name: "follower receives nothing", weight: 2, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		t.isolate(t.follower(), true, false)
	})},
	{name: "two members disconnected", weight: 2, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		a, b := t.leader(), t.follower()
		t.etcd.dropMessages(a, b)
		t.etcd.dropMessages(b, a)
	})},
	{name: "members far apart", weight: 3, min: 1000 * ms, max: 4000 * ms, etcd: true, begin: onEtcd(func(t *injection) {
		far := [...]time.Duration{5 * ms, 20 * ms, 80 * ms}[t.rng.IntN(3)]
		for _, l := range t.etcd.between() {
			l.slow(outbound, far, 0)
			l.slow(inbound, far, 0)
		}
	})},
	{name: "leader moved", weight: 3, min: 100 * ms, max: 500 * ms, etcd: true, begin: moveLeader},
	{name: "member restarted", weight: 3, min: 100 * ms, max: 1000 * ms, etcd: true, begin: restartMember},
	{name: "member replaced", weight: 2, min: 500 * ms, max: 2000 * ms, etcd: true, begin: replaceMember},
	{name: "rolling restart", weight: 1, min: 10 * ms, max: 20 * ms, etcd: true, begin: rollingRestart},

	// Disk, space and maintenance of etcd.
	{name: "slow disk", weight: 3, min: 1000 * ms, max: 4000 * ms, etcd: true, begin: slowDisk},
	{name: "full disk", weight: 2, min: 500 * ms, max: 2000 * ms, etcd: true, begin: fullDisk},
	{name: "no space", weight: 1, min: 2000 * ms, max: 4000 * ms, etcd: true, begin: fillEtcd},
	{name: "compaction of unseen revisions", weight: 3, min: 5000 * ms, max: 7000 * ms, begin: compactUnseenRevisions},
	{name: "defragmentation", weight: 3, min: 200 * ms, max: 1000 * ms, etcd: true, begin: defragmentAll},
}

// onNode applies a fault to a random node.
func onNode(how func(*injection, *node)) func(*injection) (func() error, []int) {
	return func(t *injection) (func() error, []int) {
		i, n := t.anyNode()
		how(t, n)
		return nil, []int{i}
	}
}

func onEtcd(how func(*injection)) func(*injection) (func() error, []int) {
	return func(t *injection) (func() error, []int) {
		how(t)
		return nil, nil
	}
}

func cut(l *link) {
	l.drop(outbound)
	l.drop(inbound)
}

// isolate drops what the other members send to one, or what it sends to them, or both.
func (t *injection) isolate(who int, incoming, outgoing bool) {
	for other := range members {
		if other == who {
			continue
		}
		if incoming {
			t.etcd.dropMessages(other, who)
		}
		if outgoing {
			t.etcd.dropMessages(who, other)
		}
	}
}

// flaky repeatedly loses what a node and etcd send in one direction.
func flaky(w direction) func(*injection) (func() error, []int) {
	return func(t *injection) (func() error, []int) {
		i, n := t.anyNode()
		seed := t.rng.Uint64()
		return during(t, func(ctx context.Context) { loseRepeatedly(ctx, n, w, seed) }), []int{i}
	}
}

// loseRepeatedly drops what goes in one direction for a moment, and then resets the
// connections, until ctx ends. Requests are executed and not answered, or do not arrive.
func loseRepeatedly(ctx context.Context, n *node, w direction, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	for ctx.Err() == nil {
		for _, l := range n.links {
			l.drop(w)
		}
		wait(ctx, time.Duration(5+rng.IntN(100))*ms)
		for _, l := range n.links {
			l.heal()
		}
		wait(ctx, time.Duration(50+rng.IntN(150))*ms)
	}
}

func resetConnections(t *injection) (func() error, []int) {
	i, n := t.anyNode()
	return during(t, func(ctx context.Context) {
		for !wait(ctx, 40*ms) {
			for _, l := range n.links {
				l.reset()
			}
		}
	}), []int{i}
}

// during runs do for the duration of a fault. end stops it and waits.
func during(t *injection, do func(context.Context)) (end func() error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.duration)
	done := t.background(func() { do(ctx) })
	return func() error {
		cancel()
		<-done
		return nil
	}
}

// background runs do in a goroutine. do must return when the context of the round ends.
func (t *injection) background(do func()) (done chan struct{}) {
	done = make(chan struct{})
	t.faultTasks.Go(func() {
		defer close(done)
		do()
	})
	return done
}
