package node

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"streamcount/cluster"
	"streamcount/internal/retry"
	"streamcount/lease/rules"
	"streamcount/shard"
)

// olderCheckInterval is how often a node looks for nodes that do not support the rules in
// force.
const olderCheckInterval = 5 * time.Second

// olderNodes are the registered nodes that do not support the rules in force. A change of rules
// is refused while there are any, but a node may start later, and a node of an earlier version
// does not check what it supports. The zero value has none.
type olderNodes struct{ found atomic.Pointer[[]rules.Node] }

// get returns the nodes that were found last.
func (o *olderNodes) get() []rules.Node {
	if found := o.found.Load(); found != nil {
		return *found
	}
	return nil
}

// set stores the nodes that were found, and logs them if they are others than before.
func (o *olderNodes) set(older []rules.Node, missing []string, log *slog.Logger) {
	before, now := ids(o.get()), ids(older)
	o.found.Store(&older)
	switch {
	case slices.Equal(before, now):
	case len(now) == 0:
		log.Info("all registered nodes support the rules in use again")
	default:
		log.Warn("registered nodes do not support the rules in use and may admit too many streams: upgrade or stop them",
			"nodes", strings.Join(now[:min(len(now), maxLoggedNodes)], ","), "count", len(now), "needs", strings.Join(missing, ","))
	}
}

const maxLoggedNodes = 20

func ids(nodes []rules.Node) []string {
	out := make([]string, len(nodes))
	for i, n := range nodes {
		out[i] = n.ID
	}
	return out
}

// watchOlderNodes updates b.older until ctx ends.
func (b *backend) watchOlderNodes(ctx context.Context, r *shard.Router) error {
	for {
		b.findOlderNodes(ctx, r.Needs())
		if retry.Sleep(ctx, olderCheckInterval) != nil {
			return nil
		}
	}
}

// findOlderNodes updates b.older once. needs are those of the rules in force.
func (b *backend) findOlderNodes(ctx context.Context, needs []string) {
	var nodes []cluster.Node
	var err error
	if len(needs) > 0 { // otherwise every node supports the rules
		nodes, err = b.nodes.Get(ctx, b.fetchNodes)
	}
	older, missing := rules.OlderNodes(toRuleNodes(nodes), needs)
	// If a shard does not answer, the nodes of the other shards are known all the same.
	if err == nil || len(older) > 0 {
		b.older.set(older, missing, b.logs.slog)
	}
}

// compatibility returns the rules that are not applied completely.
func (b *backend) compatibility(r *shard.Router) rules.Compatibility {
	out := rules.Compatibility{Older: b.older.get()}
	out.Plans, out.Users = r.Unreadable()
	return out
}
