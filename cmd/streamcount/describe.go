package main

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"streamcount/api/apitype"
	"streamcount/cluster"
	"streamcount/shard"
)

const (
	infoAge      = 3 * time.Second        // of what is told about etcd and the nodes
	infoPatience = 700 * time.Millisecond // that the statistics have for it
)

// A cached value is asked for when somebody wants it and it is old. Nobody waits
// long: what was there before is then as good as it gets.
type cached[T any] struct {
	mu     sync.Mutex
	asked  time.Time // when the answer that is held was asked for; zero for never
	value  T
	err    error
	asking chan struct{} // closed when the question that is under way is answered
}

var errNotTold = errors.New("it has not been told yet")

func (c *cached[T]) get(ctx context.Context, ask func(context.Context) (T, error)) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.asked.IsZero() && time.Since(c.asked) < infoAge {
		return c.value, c.err
	}
	if c.asking == nil {
		c.asking = make(chan struct{})
		go c.ask(context.WithoutCancel(ctx), ask)
	}
	answered := c.asking
	c.mu.Unlock()
	patience := time.NewTimer(infoPatience)
	select {
	case <-answered:
	case <-patience.C:
	case <-ctx.Done():
	}
	patience.Stop()
	c.mu.Lock()
	if c.asked.IsZero() {
		return c.value, errNotTold
	}
	return c.value, c.err
}

// ask puts the question, which has bounds of its own.
func (c *cached[T]) ask(ctx context.Context, ask func(context.Context) (T, error)) {
	began := time.Now()
	value, err := ask(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked, c.value, c.err = began, value, err
	close(c.asking)
	c.asking = nil
}

// etcdInfo is one etcd cluster, and what it said of itself.
type etcdInfo struct {
	client    *clientv3.Client
	endpoints []string
	told      cached[etcdAnswer]
}

type etcdAnswer struct {
	cluster.Info
	members []apitype.EtcdMember
}

func (e *etcdInfo) get(ctx context.Context) (etcdAnswer, error) {
	return e.told.get(ctx, func(ctx context.Context) (etcdAnswer, error) {
		var out etcdAnswer
		var group errgroup.Group
		group.Go(func() (err error) {
			out.Info, err = cluster.Describe(ctx, e.client)
			return err
		})
		group.Go(func() error {
			members, err := cluster.Inspect(ctx, e.client, e.endpoints)
			for _, m := range members {
				out.members = append(out.members, memberOf(m))
			}
			return err
		})
		return out, group.Wait()
	})
}

func memberOf(m cluster.MemberStatus) apitype.EtcdMember {
	out := apitype.EtcdMember{
		Name: m.Name, Leader: m.Leader, Version: m.Version, DBSize: m.DBSize, DBInUse: m.DBInUse, Lag: m.Lag, Alarms: m.Alarms,
	}
	if m.Err != nil {
		out.Error = m.Err.Error()
	}
	return out
}

// describe tells what is known of each shard.
func (b *behind) describe(ctx context.Context, r *shard.Router) ([]apitype.Shard, error) {
	each := r.Each()
	out := make([]apitype.Shard, len(each))
	var group errgroup.Group
	for i, s := range each {
		group.Go(func() error {
			b.mu.Lock()
			etcd := b.etcds[s.Name]
			b.mu.Unlock()
			totals, err := s.Totals(ctx)
			out[i] = apitype.Shard{Name: s.Name, Streams: totals.Streams}
			if etcd != nil {
				info, infoErr := etcd.get(ctx)
				out[i].Leader, out[i].Members, out[i].Etcd = info.Leader, info.Members, info.members
				err = errors.Join(err, infoErr)
			}
			if err != nil && len(each) > 1 {
				out[i].Error = "it does not answer, and its users cannot start streams"
			}
			return err
		})
	}
	return out, group.Wait()
}

// counters are what this node has done since it started.
func (b *behind) counters() (admitted, refused int64) {
	done := b.feed.Activity()
	return done.Admitted, done.Refused
}

// listNodes tells of all nodes what they last said of themselves, on any shard, and
// of this one how it stands now.
func (b *behind) listNodes(ctx context.Context) ([]apitype.NodeReport, error) {
	nodes, err := b.nodes.get(ctx, b.askNodes)
	out := make([]apitype.NodeReport, 0, len(nodes))
	for _, n := range nodes {
		if b.self != nil && b.feed != nil && n.ID == b.self.ID {
			n.Admitted, n.Refused = b.counters()
			n.ReportedAt = time.Now()
		}
		out = append(out, apitype.NodeReport{
			Node: apitype.Node{
				ID: n.ID, Region: n.Region, Version: n.Version, StartedAt: apitype.At(n.StartedAt),
			},
			Address: n.Address, Admitted: n.Admitted, Refused: n.Refused, ReportedAt: apitype.At(n.ReportedAt),
		})
	}
	return out, err
}

// askNodes asks all shards. A node is registered on each, and its latest word counts.
func (b *behind) askNodes(ctx context.Context) ([]cluster.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	b.mu.Lock()
	clients := make([]*clientv3.Client, 0, len(b.clients))
	for _, c := range b.clients {
		clients = append(clients, c)
	}
	b.mu.Unlock()
	answers := make([][]cluster.Node, len(clients))
	var group errgroup.Group
	for i, c := range clients {
		group.Go(func() (err error) {
			answers[i], err = cluster.Nodes(ctx, c, b.cfg.EtcdPrefix)
			return err
		})
	}
	err := group.Wait()
	all := slices.Concat(answers...)
	slices.SortFunc(all, func(x, y cluster.Node) int {
		return cmp.Or(cmp.Compare(x.ID, y.ID), y.ReportedAt.Compare(x.ReportedAt))
	})
	return slices.CompactFunc(all, func(x, y cluster.Node) bool { return x.ID == y.ID }), err
}
