package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// A fault is one way to break something.
type fault struct {
	name     string
	weight   int
	min, max time.Duration
	etcd     bool // leases may live longer for it
	// begin breaks it. What it returns mends it, if healing everything does not,
	// and says which nodes may do work late.
	begin func(*trouble) (mend func() error, nodes []int)
}

// trouble is what a fault is given to break.
type trouble struct {
	*world
	ctx   context.Context
	rng   *rand.Rand
	lasts time.Duration
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

// torment breaks things until ctx ends: one, or two or three at once. After each
// time everything is made whole, and has to work again, before the next.
func (w *world) torment(ctx context.Context, rng *rand.Rand, from []fault, done map[string]int) error {
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
		calm := time.Duration(rng.Int64N(int64(1500 * time.Millisecond)))
		if err := w.inflict(ctx, rng, several, done); err != nil {
			return err
		}
		wait(ctx, calm)
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

// inflict has some faults at the same time.
func (w *world) inflict(ctx context.Context, rng *rand.Rand, several []fault, done map[string]int) error {
	win := window{From: now()}
	var names []string
	var mends []func() error
	longest := time.Duration(0)
	for _, f := range several {
		lasts := f.min + time.Duration(rng.Int64N(int64(f.max-f.min)+1))
		longest = max(longest, lasts)
		mend, nodes := f.begin(&trouble{w, ctx, rng, lasts})
		if mend != nil {
			mends = append(mends, mend)
		}
		names = append(names, f.name)
		done[f.name]++
		win.Etcd = win.Etcd || f.etcd
		win.Nodes = append(win.Nodes, nodes...)
	}
	win.Name = strings.Join(names, " + ")
	wait(ctx, longest)
	// Mending and healing go on when the round's time is up.
	last := context.WithoutCancel(ctx)
	var err error
	for _, mend := range mends {
		if e := mend(); e != nil && err == nil {
			err = fmt.Errorf("after %s: %w", win.Name, e)
		}
	}
	if e := w.heal(last); e != nil && err == nil {
		err = fmt.Errorf("after %s: %w", win.Name, e)
	}
	win.To = now()
	w.note(win)
	return err
}

// anyNode is a node to be broken.
func (t *trouble) anyNode() (int, *node) {
	i := t.rng.IntN(len(t.nodes))
	return i, t.nodes[i]
}

// leader is the member that leads, any if there is none.
func (t *trouble) leader() int {
	n := t.rng.IntN(members)
	for until := now() + time.Second; now() < until; {
		if l := t.etcd.leader(t.ctx); l >= 0 {
			return l
		}
	}
	return n
}

// follower is another.
func (t *trouble) follower() int { return (t.leader() + 1 + t.rng.IntN(members-1)) % members }

// mute drops what one member sends to another.
func (c *cluster) mute(from, to int) {
	c.links[from][to].drop(there)
	c.links[to][from].drop(back)
}

// between are the links of the members with each other.
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
