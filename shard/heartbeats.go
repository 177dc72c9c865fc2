package shard

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"streamcount/lease"
)

// maxConcurrentHeartbeats is the number of heartbeats of one batch that are routed one by
// one at the same time.
const maxConcurrentHeartbeats = 256

// Heartbeats is Heartbeat for many streams; the results are in the order of requests. Each
// shard receives the heartbeats of its users in one batch. Those of users who may not have
// been migrated yet are routed one by one.
func (r *Router) Heartbeats(ctx context.Context, requests []lease.HeartbeatRequest) []lease.HeartbeatResult {
	results := make([]lease.HeartbeatResult, len(requests))
	m := r.current.Load()
	batches, others := r.groupByShard(m, requests)
	var g errgroup.Group
	for _, b := range batches {
		g.Go(func() error {
			r.sendBatch(ctx, m, b, requests, results)
			return nil
		})
	}
	r.sendEach(ctx, others, requests, results)
	_ = g.Wait() // its functions return nil
	return results
}

// A shardBatch is the part of a batch for one shard.
type shardBatch struct {
	shard   string
	indexes []int // of the requests
}

// groupByShard returns the batch of each shard, and the indexes of the other requests.
func (r *Router) groupByShard(m *Map, requests []lease.HeartbeatRequest) (batches []shardBatch, others []int) {
	if m == nil {
		m = &Map{}
	}
	for i, req := range requests {
		if len(m.Shards) == 0 || m.PreviousShard(req.User) != "" && !r.alreadyMoved(m, req.User) {
			others = append(others, i)
			continue
		}
		name := m.Shard(req.User)
		at := slices.IndexFunc(batches, func(b shardBatch) bool { return b.shard == name })
		if at < 0 {
			at = len(batches)
			batches = append(batches, shardBatch{name, make([]int, 0, len(requests)/len(m.Shards)+1)})
		}
		batches[at].indexes = append(batches[at].indexes, i)
	}
	return batches, others
}

// sendBatch sends a batch to its shard. What is not there is routed again if the map has
// changed.
func (r *Router) sendBatch(ctx context.Context, m *Map, b shardBatch, requests []lease.HeartbeatRequest, results []lease.HeartbeatResult) {
	h, err := r.targetFor(ctx, m, b.shard)
	if err != nil {
		r.sendEach(ctx, b.indexes, requests, results)
		return
	}
	batch := requests
	if len(b.indexes) < len(requests) {
		batch = make([]lease.HeartbeatRequest, 0, len(b.indexes))
		for _, i := range b.indexes {
			batch = append(batch, requests[i])
		}
	}
	answers := h.Heartbeats(ctx, batch)
	changed := r.mapChanged(h)
	var again []int
	for k, i := range b.indexes {
		results[i] = answers[k]
		if changed && isGone(answers[k].Err) {
			again = append(again, i)
		}
	}
	r.sendEach(ctx, again, requests, results)
}

// sendEach routes the requests with these indexes one by one.
func (r *Router) sendEach(ctx context.Context, indexes []int, requests []lease.HeartbeatRequest, results []lease.HeartbeatResult) {
	var g errgroup.Group
	g.SetLimit(maxConcurrentHeartbeats)
	for _, i := range indexes {
		g.Go(func() error {
			results[i] = lease.NewHeartbeatResult(r.Heartbeat(ctx, requests[i].User, requests[i].ID))
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
}
