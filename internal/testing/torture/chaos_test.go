//go:build linux

package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A fault is a kind of failure.
type fault struct {
	name     string
	weight   int
	min, max time.Duration
	etcd     bool // leases may live longer because of it
	// begin starts the fault. undo ends it, and is nil if heal ends it. nodes are the nodes that
	// may finish work late.
	begin func(*injection) (undo func() error, nodes []int)
}

// injection has the testbed to which a fault applies, its random numbers and its duration.
type injection struct {
	*testbed
	ctx      context.Context
	rng      *rand.Rand
	duration time.Duration
}

func choose(all []fault, only string) []fault {
	var out []fault
	for _, f := range all {
		if strings.Contains(f.name, only) && f.weight > 0 {
			out = append(out, f)
		}
	}
	return out
}

// injectFaults injects one to three faults at a time until ctx ends. Between two windows it
// repairs everything, and all nodes and members must work.
func (w *testbed) injectFaults(ctx context.Context, rng *rand.Rand, from []fault, done map[string]int) error {
	wait(ctx, 500*time.Millisecond)
	for ctx.Err() == nil && len(from) > 0 {
		n := 1
		if rng.IntN(10) >= 6 {
			n += 1 + rng.IntN(2)
		}
		var several []fault
		for range n {
			several = append(several, pickFault(rng, from))
		}
		pause := time.Duration(rng.Int64N(int64(1500 * time.Millisecond)))
		if err := w.injectTogether(ctx, rng, several, done); err != nil {
			return err
		}
		wait(ctx, pause)
	}
	return nil
}

func pickFault(rng *rand.Rand, from []fault) fault {
	total := 0
	for _, f := range from {
		total += f.weight
	}
	n := rng.IntN(total)
	for _, f := range from {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	panic("the weights do not add up")
}

// injectTogether injects several faults at the same time, and repairs everything.
func (w *testbed) injectTogether(ctx context.Context, rng *rand.Rand, several []fault, done map[string]int) error {
	win := window{From: now()}
	var names []string
	var undos []func() error
	longest := time.Duration(0)
	for _, f := range several {
		duration := f.min + time.Duration(rng.Int64N(int64(f.max-f.min)+1))
		longest = max(longest, duration)
		undo, nodes := f.begin(&injection{w, ctx, rng, duration})
		if undo != nil {
			undos = append(undos, undo)
		}
		names = append(names, f.name)
		done[f.name]++
		win.Etcd = win.Etcd || f.etcd
		win.Nodes = append(win.Nodes, nodes...)
	}
	win.Name = strings.Join(names, " + ")
	wait(ctx, longest)
	// The repair continues after the end of the round.
	last := context.WithoutCancel(ctx)
	var err error
	for _, undo := range undos {
		if e := undo(); e != nil && err == nil {
			err = fmt.Errorf("after %s: %w", win.Name, e)
		}
	}
	if e := w.heal(last); e != nil && err == nil {
		err = fmt.Errorf("after %s: %w", win.Name, e)
	}
	win.To = now()
	w.addWindow(win)
	return err
}

// anyNode returns a random node.
func (t *injection) anyNode() (int, *node) {
	i := t.rng.IntN(len(t.nodes))
	return i, t.nodes[i]
}

// leader returns the index of the leader, or a random index if there is no leader for a second.
func (t *injection) leader() int {
	n := t.rng.IntN(members)
	for until := now() + time.Second; now() < until; {
		if l := t.etcd.leader(t.ctx); l >= 0 {
			return l
		}
	}
	return n
}

// follower returns the index of a random follower.
func (t *injection) follower() int { return (t.leader() + 1 + t.rng.IntN(members-1)) % members }

// dropMessages drops what one member sends to another.
func (c *cluster) dropMessages(from, to int) {
	c.links[from][to].drop(outbound)
	c.links[to][from].drop(inbound)
}

// between returns the links between members.
func (c *cluster) between() []*link {
	var out []*link
	for from := range c.links {
		for to, l := range c.links[from] {
			if from != to {
				out = append(out, l)
			}
		}
	}
	return out
}
