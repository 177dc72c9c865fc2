package node

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"streamcount/api/apitype"
	"streamcount/cluster"
	"streamcount/internal/stalecache"
	"streamcount/lease/rules"
	"streamcount/shard"
)

const (
	infoMaxAge  = 3 * time.Second        // of the information about etcd members and nodes
	infoMaxWait = 700 * time.Millisecond // for it, before a call of the statistics returns older information
)

func newInfoCache[T any]() *stalecache.Cache[T] {
	return &stalecache.Cache[T]{MaxAge: infoMaxAge, MaxWait: infoMaxWait}
}

// shardInfo fetches and caches the status of the etcd cluster of one shard.
type shardInfo struct {
	client    *clientv3.Client
	endpoints []string
	status    *stalecache.Cache[etcdStatus]
}

type etcdStatus struct {
	cluster.Info
	members []apitype.EtcdMember
}

func (e *shardInfo) get(ctx context.Context) (etcdStatus, error) {
	return e.status.Get(ctx, func(ctx context.Context) (etcdStatus, error) {
		var out etcdStatus
		var group errgroup.Group
		group.Go(func() (err error) {
			out.Info, err = cluster.Describe(ctx, e.client)
			return err
		})
		group.Go(func() error {
			members, err := cluster.Inspect(ctx, e.client, e.endpoints)
			for _, m := range members {
				out.members = append(out.members, toMember(m))
			}
			return err
		})
		return out, group.Wait()
	})
}

func toMember(m cluster.MemberStatus) apitype.EtcdMember {
	out := apitype.EtcdMember{
		Name: m.Name, Leader: m.Leader, Version: m.Version, DBSize: m.DBSize, DBInUse: m.DBInUse, Lag: m.Lag, Alarms: m.Alarms,
	}
	if m.Err != nil {
		out.Error = m.Err.Error()
	}
	return out
}

// describeShards returns the number of streams and the etcd members of each shard.
func (b *backend) describeShards(ctx context.Context, r *shard.Router) ([]apitype.Shard, error) {
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
				out[i].Error = "etcd is unavailable: users of this shard cannot start streams"
			}
			return err
		})
	}
	return out, group.Wait()
}

// counters returns the number of starts that this node has admitted and refused.
func (b *backend) counters() (admitted, refused int64) {
	done := b.feed.Activity()
	return done.Admitted, done.Refused
}

// listNodes returns all nodes of the service. This node has current counters; those of other
// nodes are as old as their last report.
func (b *backend) listNodes(ctx context.Context) ([]apitype.NodeReport, error) {
	nodes, err := b.nodes.Get(ctx, b.fetchNodes)
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
			Address: n.Address, Supports: n.Supports, Admitted: n.Admitted, Refused: n.Refused, ReportedAt: apitype.At(n.ReportedAt),
		})
	}
	return out, err
}

// fetchNodes reads the registrations of nodes from all shards. A node is registered on each
// shard; the latest report is used.
func (b *backend) fetchNodes(ctx context.Context) ([]cluster.Node, error) {
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

// ruleNodes lists the nodes that are registered in the etcd cluster of c, for changes of rules.
func ruleNodes(ctx context.Context, c *clientv3.Client, prefix string) ([]rules.Node, error) {
	nodes, err := cluster.Nodes(ctx, c, prefix)
	if err != nil {
		return nil, err
	}
	return toRuleNodes(nodes), nil
}

func toRuleNodes(nodes []cluster.Node) []rules.Node {
	out := make([]rules.Node, len(nodes))
	for i, n := range nodes {
		out[i] = rules.Node{ID: n.ID, Region: n.Region, Version: n.Version, Supports: n.Supports}
	}
	return out
}
