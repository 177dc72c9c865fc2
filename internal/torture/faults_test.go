package torture

import (
	"context"
	"math/rand/v2"
	"time"
)

const ms = time.Millisecond

// faults are all that the torture test knows, the likelier the heavier.
var faults = []fault{
	// Nodes.
	{name: "node killed", weight: 6, min: 300 * ms, max: 2500 * ms, begin: onNode(func(_ *trouble, n *node) { n.kill() })},
	{name: "node paused", weight: 6, min: 300 * ms, max: 7000 * ms, begin: onNode(func(_ *trouble, n *node) { n.pause() })},
	{name: "node restarted", weight: 4, min: 100 * ms, max: 500 * ms, begin: restartNode},
	{name: "clock set", weight: 6, min: 300 * ms, max: 5000 * ms, begin: setClock},

	// Between nodes and etcd.
	{name: "node cut from a member", weight: 4, min: 500 * ms, max: 3000 * ms, begin: onNode(func(t *trouble, n *node) {
		cut(n.links[t.rng.IntN(members)])
	})},
	{name: "node cut from the leader", weight: 4, min: 500 * ms, max: 4000 * ms, begin: onNode(func(t *trouble, n *node) {
		cut(n.links[t.leader()])
	})},
	{name: "node cut from etcd", weight: 4, min: 500 * ms, max: 5000 * ms, begin: onNode(func(_ *trouble, n *node) {
		for _, l := range n.links {
			cut(l)
		}
	})},
	{name: "keep-alive stream stuck", weight: 5, min: 500 * ms, max: 4000 * ms, begin: onNode(func(t *trouble, n *node) {
		l := n.links[t.leader()]
		l.hold(there)
		l.hold(back)
	})},
	{name: "replies lost", weight: 10, min: 500 * ms, max: 3000 * ms, begin: flaky(back)},
	{name: "requests lost", weight: 8, min: 500 * ms, max: 3000 * ms, begin: flaky(there)},
	{name: "connections reset", weight: 5, min: 500 * ms, max: 2000 * ms, begin: resets},
	{name: "node far away", weight: 5, min: 1000 * ms, max: 5000 * ms, begin: onNode(func(t *trouble, n *node) {
		far := [...]time.Duration{20 * ms, 60 * ms, 250 * ms}[t.rng.IntN(3)]
		for _, l := range n.links {
			l.slow(there, far, 0)
			l.slow(back, far, 0)
		}
	})},
	{name: "node hears late", weight: 6, min: 1000 * ms, max: 4000 * ms, begin: onNode(func(t *trouble, n *node) {
		for _, l := range n.links {
			l.slow(back, 100*ms+time.Duration(t.rng.Int64N(int64(900*ms))), 0)
		}
	})},
	{name: "narrow link", weight: 3, min: 1000 * ms, max: 4000 * ms, begin: onNode(func(_ *trouble, n *node) {
		for _, l := range n.links {
			l.slow(there, 0, 64<<10)
			l.slow(back, 0, 64<<10)
		}
	})},

	// Members of etcd.
	{name: "leader killed", weight: 5, min: 200 * ms, max: 2500 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.etcd.members[t.leader()].kill()
	})},
	{name: "follower killed", weight: 4, min: 200 * ms, max: 2500 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.etcd.members[t.follower()].kill()
	})},
	{name: "all of etcd killed", weight: 2, min: 100 * ms, max: 1500 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		for _, m := range t.etcd.members {
			m.kill()
		}
	})},
	{name: "leader paused", weight: 4, min: 200 * ms, max: 1200 * ms, etcd: true, begin: pauseLeader},
	{name: "follower paused", weight: 4, min: 300 * ms, max: 5000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.etcd.members[t.follower()].pause()
	})},
	{name: "leader cut off", weight: 4, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.isolate(t.leader(), true, true)
	})},
	{name: "leader deaf", weight: 3, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.isolate(t.leader(), true, false)
	})},
	{name: "leader mute", weight: 3, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.isolate(t.leader(), false, true)
	})},
	{name: "follower cut off", weight: 3, min: 500 * ms, max: 4000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.isolate(t.follower(), true, true)
	})},
	{name: "follower deaf", weight: 2, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		t.isolate(t.follower(), true, false)
	})},
	{name: "two members apart", weight: 2, min: 500 * ms, max: 3000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		a, b := t.leader(), t.follower()
		t.etcd.mute(a, b)
		t.etcd.mute(b, a)
	})},
	{name: "members far apart", weight: 3, min: 1000 * ms, max: 4000 * ms, etcd: true, begin: onEtcd(func(t *trouble) {
		far := [...]time.Duration{5 * ms, 20 * ms, 80 * ms}[t.rng.IntN(3)]
		for _, l := range t.etcd.between() {
			l.slow(there, far, 0)
			l.slow(back, far, 0)
		}
	})},
	{name: "leader moved", weight: 3, min: 100 * ms, max: 500 * ms, etcd: true, begin: moveLeader},
	{name: "member restarted", weight: 3, min: 100 * ms, max: 1000 * ms, etcd: true, begin: restartMember},
	{name: "member replaced", weight: 2, min: 500 * ms, max: 2000 * ms, etcd: true, begin: replaceMember},
	{name: "rolling restart", weight: 1, min: 10 * ms, max: 20 * ms, etcd: true, begin: rollingRestart},

	// What etcd does to itself.
	{name: "slow disk", weight: 3, min: 1000 * ms, max: 4000 * ms, etcd: true, begin: slowDisk},
	{name: "full disk", weight: 2, min: 500 * ms, max: 2000 * ms, etcd: true, begin: fullDisk},
	{name: "no space", weight: 1, min: 2000 * ms, max: 4000 * ms, etcd: true, begin: noSpace},
	{name: "compaction under the view", weight: 3, min: 5000 * ms, max: 7000 * ms, begin: compactUnderView},
	{name: "defragmentation", weight: 3, min: 200 * ms, max: 1000 * ms, etcd: true, begin: defragmentAll},
}

// onNode breaks any node.
func onNode(how func(*trouble, *node)) func(*trouble) (func() error, []int) {
	return func(t *trouble) (func() error, []int) {
		i, n := t.anyNode()
		how(t, n)
		return nil, []int{i}
	}
}

func onEtcd(how func(*trouble)) func(*trouble) (func() error, []int) {
	return func(t *trouble) (func() error, []int) {
		how(t)
		return nil, nil
	}
}

func cut(l *link) {
	l.drop(there)
	l.drop(back)
}

// isolate keeps a member from hearing the others, or from being heard.
func (t *trouble) isolate(who int, deaf, mute bool) {
	for other := range members {
		if other == who {
			continue
		}
		if deaf {
			t.etcd.mute(other, who)
		}
		if mute {
			t.etcd.mute(who, other)
		}
	}
}

// flaky loses what goes one way between a node and etcd.
func flaky(w way) func(*trouble) (func() error, []int) {
	return func(t *trouble) (func() error, []int) {
		i, n := t.anyNode()
		seed := t.rng.Uint64()
		return during(t, func(ctx context.Context) { loseAgain(ctx, n, w, seed) }), []int{i}
	}
}

// loseAgain loses what goes one way, again and again, and breaks the connections
// each time: requests that were sent are carried out and never answered, or never
// arrive.
func loseAgain(ctx context.Context, n *node, w way, seed uint64) {
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

func resets(t *trouble) (func() error, []int) {
	i, n := t.anyNode()
	return during(t, func(ctx context.Context) {
		for !wait(ctx, 40*ms) {
			for _, l := range n.links {
				l.reset()
			}
		}
	}), []int{i}
}

// during does something until it is mended.
func during(t *trouble, do func(context.Context)) (end func() error) {
	ctx, cancel := context.WithTimeout(t.ctx, t.lasts)
	done := t.background(func() { do(ctx) })
	return func() error {
		cancel()
		<-done
		return nil
	}
}

// background does something beside, which must end with the round's context.
func (t *trouble) background(do func()) (done chan struct{}) {
	done = make(chan struct{})
	t.beside.Go(func() {
		defer close(done)
		do()
	})
	return done
}
