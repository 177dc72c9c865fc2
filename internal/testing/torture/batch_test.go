//go:build linux

package torture

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"
)

// batchItem is one heartbeat of a batch, or one that the answer reports as ended.
type batchItem struct {
	UserID   string `json:"userId"`
	StreamID string `json:"streamId"`
}

// batchAnswer is the answer to a batch of heartbeats.
type batchAnswer struct {
	Alive    int `json:"alive"`
	Degraded int `json:"degraded"`
	Ended    []struct {
		batchItem
		Reason string `json:"reason"`
	} `json:"ended"`
}

// heartbeatBatch sends the heartbeats of streams in one request. Each is an operation.
func (c *userClients) heartbeatBatch(streams []*stream, node int, disconnectAfter time.Duration) []*op {
	var ops []*op
	var items []batchItem
	for _, s := range streams {
		o := &op{Kind: kindHeartbeat, User: c.user, Node: node, Stream: s.op, Batch: true}
		if s.user != c.user {
			o.Kind = kindForeign
		}
		ops, items = append(ops, o), append(items, batchItem{c.user, s.id})
	}
	text, err := json.Marshal(map[string]any{"heartbeats": items})
	if err != nil {
		panic(err) // strings always marshal
	}
	c.caller.doBatch(ops, items, request{http.MethodPost, "/streams/heartbeats", string(text), disconnectAfter})
	for i, o := range ops {
		if o.Status == 410 {
			c.markEnded(streams[i], node)
		}
	}
	return ops
}

// doBatch is do for the operations of a batch.
func (c *caller) doBatch(ops []*op, items []batchItem, r request) {
	a := &batchAnswer{}
	body, sent := c.send(context.Background(), ops, r, a)
	if !sent {
		return
	}
	for i, o := range ops {
		if o.Status == 200 {
			o.setResult(a, items, items[i])
		}
		if o.Text == "" && (o.unknown() && o.Status != 0 && o.Status != 503 || !o.unknown() && !o.expected()) {
			o.Text = string(body)
		}
		c.history.add(o)
	}
}

// setResult stores the result of a heartbeat of a batch in o, with the status that the same
// heartbeat has alone. An answer does not say which streams are degraded.
func (o *op) setResult(a *batchAnswer, items []batchItem, item batchItem) {
	requested, ended := 0, 0
	for _, other := range items {
		if other == item {
			requested++
		}
	}
	for _, e := range a.Ended {
		if e.batchItem == item {
			ended++
			o.Reason = e.Reason
		}
	}
	switch {
	case a.Alive+len(a.Ended) != len(items) || ended != 0 && ended != requested:
		o.Text = "the batch does not have one result for each heartbeat"
	case ended == 0:
		o.Degraded = a.Degraded > 0
	case o.Kind == kindForeign:
		o.Status = 404
	default:
		o.Status = 410
	}
}

// batchUntilAnswered sends a batch to one node after the other, until each of its
// heartbeats is answered.
func (c *userClients) batchUntilAnswered(ctx context.Context, streams []*stream, node int) {
	for i := range c.caller.nodes {
		ops := c.heartbeatBatch(streams, (node+i)%len(c.caller.nodes), 0)
		var left []*stream
		for j, o := range ops {
			if !o.final() {
				left = append(left, streams[j])
			}
		}
		if streams = left; len(left) == 0 || ctx.Err() != nil {
			return
		}
	}
}

// batch returns streams in random order, with some that have ended, duplicates, and in some
// cases a stream of another user.
func (c *userClients) batch(rng *rand.Rand, streams []*stream) []*stream {
	all := slices.Clone(streams)
	for range rng.IntN(3) {
		if ended := c.randomEnded(rng); ended.stream != nil {
			all = append(all, ended.stream)
		}
	}
	other := c.all[rng.IntN(len(c.all))]
	if s := other.randomStream(rng); other != c && s != nil && rng.IntN(3) == 0 {
		all = append(all, s)
	}
	for range rng.IntN(3) {
		if len(all) > 0 {
			all = append(all, oneOf(rng, all))
		}
	}
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}
