//go:build linux

package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// userClients has the clients of one user, and their common state.
type userClients struct {
	user     string
	caller   *caller
	all      []*userClients // those of every user
	hasPlan  bool           // sometimes sets a plan for the user
	several  bool           // the user has a plan with several limits
	behavior behavior

	mu           sync.Mutex
	known        []*stream // not reported as ended
	heartbeating map[int]bool
	ended        []endedStream // the last six
}

// endedStream is a stream that a node has reported as ended.
type endedStream struct {
	*stream
	node int
}

// behavior is how the clients of a user behave.
type behavior struct {
	players           int
	think             time.Duration // maximum time between two requests of one player
	oneNode           bool          // all requests go to the first node
	batches           float64       // share of the periodic heartbeats that are sent in batches
	disconnects       float64       // share of requests that a client cancels
	heartbeatInterval time.Duration // maximum time between two heartbeats of a stream
	weights           map[string]int
	sessions          int
}

// path is the path of the user's resource.
func (c *userClients) path() string { return "/streams/users/" + c.user }

// run sends requests until ctx ends.
func (c *userClients) run(ctx context.Context, seed uint64, group *sync.WaitGroup) {
	for i := range c.behavior.players {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		group.Go(func() {
			for !wait(ctx, time.Duration(rng.Int64N(int64(c.behavior.think)))) {
				c.doRandomAction(rng)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 1000))
	group.Go(func() { c.keepAlive(ctx, rng) })
}

// keepAlive sends the heartbeats of all streams that are played.
func (c *userClients) keepAlive(ctx context.Context, rng *rand.Rand) {
	var heartbeats sync.WaitGroup
	defer heartbeats.Wait()
	for !wait(ctx, c.behavior.heartbeatInterval/2+time.Duration(rng.Int64N(int64(c.behavior.heartbeatInterval/2)))) {
		kept := c.keptStreams()
		if rng.Float64() < c.behavior.batches {
			node, batch := c.anyNode(rng), c.batch(rng, kept)
			if len(batch) > 0 {
				heartbeats.Go(func() { c.batchUntilAnswered(ctx, batch, node) })
			}
			continue
		}
		for _, s := range kept {
			node := c.anyNode(rng)
			heartbeats.Go(func() { c.heartbeatUntilAnswered(ctx, s, node) })
		}
	}
}

// keptStreams returns the streams that are played.
func (c *userClients) keptStreams() (kept []*stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.known {
		if c.heartbeating[s.op] {
			kept = append(kept, s)
		}
	}
	return kept
}

// anyNode returns a random node, or the first if all requests go to it.
func (c *userClients) anyNode(rng *rand.Rand) int {
	if c.behavior.oneNode {
		return 0
	}
	return rng.IntN(len(c.caller.nodes))
}

// heartbeatUntilAnswered sends a heartbeat to one node after the other, as players do.
func (c *userClients) heartbeatUntilAnswered(ctx context.Context, s *stream, node int) {
	for i := range c.caller.nodes {
		o := c.heartbeat(s, (node+i)%len(c.caller.nodes), 0)
		if o.final() || ctx.Err() != nil {
			return
		}
	}
}

// actions are what clients do, with weights.
var actions = map[string]int{
	"start": 22, "session": 14, "evict": 10, "replace": 8, "stop": 14, "stop twice": 3, "stop at once": 3, "stop any": 2, "remove": 1,
	"heartbeat": 12, "heartbeat after end": 6, "batch": 6, "list": 4, "bounded list": 3, "limit": 3, "foreign": 2, "crash": 6,
}

// quietActions are those of clients that mostly send heartbeats.
var quietActions = map[string]int{"start": 8, "session": 4, "stop": 3, "heartbeat": 30, "heartbeat after end": 3, "batch": 6, "list": 3, "bounded list": 3, "crash": 2}

func pick(rng *rand.Rand, weights map[string]int) string {
	names := make([]string, 0, len(weights))
	total := 0
	for name, w := range weights {
		names = append(names, name)
		total += w
	}
	slices.Sort(names)
	for n := rng.IntN(total); ; {
		for _, name := range names {
			if n -= weights[name]; n < 0 {
				return name
			}
		}
	}
}

// doRandomAction performs a random action.
func (c *userClients) doRandomAction(rng *rand.Rand) {
	weights := c.behavior.weights
	if weights == nil {
		weights = actions
	}
	node, s := c.anyNode(rng), c.randomStream(rng)
	disconnectAfter := c.disconnectTime(rng)
	o := &op{User: c.user, Node: node}
	switch action := pick(rng, weights); action {
	case "start", "session", "evict", "replace":
		c.startAction(action, o, s, rng, disconnectAfter)
	case "stop", "stop twice", "stop at once":
		if s != nil {
			c.stopAction(action, s, node, rng, disconnectAfter)
		}
	case "heartbeat":
		if s != nil {
			c.heartbeat(s, node, disconnectAfter)
		}
	case "heartbeat after end":
		if ended := c.randomEnded(rng); ended.stream != nil {
			if rng.IntN(2) == 0 {
				node = ended.node
			}
			c.heartbeat(ended.stream, node, disconnectAfter)
		}
	case "batch":
		if batch := c.batch(rng, c.keptStreams()); len(batch) > 0 {
			c.heartbeatBatch(batch, node, disconnectAfter)
		}
	case "crash":
		c.abandon(s)
	default:
		c.userAction(action, o, rng, disconnectAfter)
	}
}

// startAction starts a stream. It may repeat a start that has a session, as a client does
// that receives no answer.
func (c *userClients) startAction(action string, o *op, s *stream, rng *rand.Rand, disconnectAfter time.Duration) {
	switch action {
	case "session":
		o.Session = "session-" + strconv.Itoa(rng.IntN(c.behavior.sessions))
	case "evict":
		o.Evict = true
		if rng.IntN(3) == 0 {
			o.Session = "session-" + strconv.Itoa(rng.IntN(c.behavior.sessions))
		}
	case "replace":
		if s == nil {
			return
		}
		o.Replaces = s.op
	}
	keep := rng.Float64() < 0.7
	again := rng.Float64() < 0.3
	c.start(o, s, keep, disconnectAfter)
	if o.unknown() && o.Session != "" || again && o.Session != "" {
		c.start(&op{User: o.User, Node: rng.IntN(len(c.caller.nodes)), Session: o.Session, Evict: o.Evict}, nil, keep, 0)
	}
}

// stopAction stops a stream, once or twice.
func (c *userClients) stopAction(action string, s *stream, node int, rng *rand.Rand, disconnectAfter time.Duration) {
	var other sync.WaitGroup
	if action == "stop at once" {
		other.Go(func() { c.stop(s, node, 0) })
	}
	c.stop(s, node, disconnectAfter)
	other.Wait()
	if action == "stop twice" {
		c.stop(s, rng.IntN(len(c.caller.nodes)), 0)
	}
}

// userAction performs an action that concerns the user as a whole.
func (c *userClients) userAction(action string, o *op, rng *rand.Rand, disconnectAfter time.Duration) {
	switch action {
	case "stop any":
		o.Kind = kindStopAny
		c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/stop", "", disconnectAfter})
	case "remove":
		o.Kind = kindRemove
		c.caller.do(context.Background(), o, request{http.MethodDelete, c.path(), "", disconnectAfter})
	case "list":
		o.Kind = kindList
		c.caller.do(context.Background(), o, request{http.MethodGet, c.path() + "?consistency=linearizable", "", 0})
	case "bounded list":
		o.Kind = kindBoundedList
		c.caller.do(context.Background(), o, request{http.MethodGet, c.path(), "", 0})
	case "limit":
		c.setLimit(o, rng)
	case "several limits":
		c.setSeveral(o, rng)
	case "foreign":
		other := c.all[rng.IntN(len(c.all))]
		if s := other.randomStream(rng); other != c && s != nil {
			o.Kind, o.Stream = kindForeign, s.op
			call := [...]string{"/heartbeat", "/stop"}[rng.IntN(2)]
			c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/streams/" + s.id + call, "", 0})
		}
	}
}

// setLimit sets or removes the user's own limit or plan.
func (c *userClients) setLimit(o *op, rng *rand.Rand) {
	o.Kind = kindLimit
	path := "/limits/users/" + c.user
	switch n := rng.IntN(6); {
	case n == 0:
		o.Limit = -1
		c.caller.do(context.Background(), o, request{http.MethodDelete, path, "", 0})
	case n <= 3 && c.hasPlan:
		o.Plan = planName(c.user)
		c.caller.do(context.Background(), o, request{http.MethodPut, path, `{"plan":"` + o.Plan + `"}`, 0})
	default:
		o.Limit = 1 + rng.IntN(3)
		c.caller.do(context.Background(), o, request{http.MethodPut, path, fmt.Sprintf(`{"limit":%d}`, o.Limit), 0})
	}
}

// start sends o. replaced is the stream that it replaces, if any.
func (c *userClients) start(o *op, replaced *stream, keep bool, disconnectAfter time.Duration) {
	o.Kind, o.N = kindStart, int(opNumbers.Add(1))
	body := map[string]any{"content": map[string]string{"title": strconv.Itoa(o.N)}}
	if o.Session != "" {
		body["session"] = o.Session
	}
	if o.Replaces != 0 {
		body["replaces"] = replaced.id
	}
	if o.Evict {
		body["onLimit"] = "replace-oldest"
	}
	if c.several {
		describe(body, o)
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings always marshal
	}
	a := c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/start", string(text), disconnectAfter})
	if a == nil || o.Status != 200 || a.Stream == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) > 12 {
		c.known = c.known[1:]
	}
	c.known = append(c.known, &stream{op: o.N, id: a.Stream.ID, user: c.user, session: o.Session})
	c.heartbeating[o.N] = keep
}

func (c *userClients) heartbeat(s *stream, node int, disconnectAfter time.Duration) *op {
	o := &op{Kind: kindHeartbeat, User: c.user, Node: node, Stream: s.op}
	c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/streams/" + s.id + "/heartbeat", "", disconnectAfter})
	if o.Status == 410 {
		c.markEnded(s, node)
	}
	return o
}

func (c *userClients) stop(s *stream, node int, disconnectAfter time.Duration) {
	o := &op{Kind: kindStop, User: c.user, Node: node, Stream: s.op}
	c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/streams/" + s.id + "/stop", "", disconnectAfter})
	if o.Status == 200 || o.Status == 410 {
		c.markEnded(s, node)
	}
}

// markEnded moves a stream from known to ended.
func (c *userClients) markEnded(s *stream, node int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.Index(c.known, s)
	if at < 0 {
		return
	}
	c.known = slices.Delete(c.known, at, at+1)
	delete(c.heartbeating, s.op)
	c.ended = append(c.ended, endedStream{s, node})
	if len(c.ended) > 6 {
		c.ended = c.ended[1:]
	}
}

// abandon ends the heartbeats of a stream, as a crash of its client does.
func (c *userClients) abandon(s *stream) {
	if s == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heartbeating[s.op] = false
}

func (c *userClients) randomStream(rng *rand.Rand) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return oneOf(rng, c.known)
}

func (c *userClients) randomEnded(rng *rand.Rand) endedStream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return oneOf(rng, c.ended)
}

// oneOf returns a random element, or the zero T if there is none.
func oneOf[T any](rng *rand.Rand, of []T) (one T) {
	if len(of) > 0 {
		one = of[rng.IntN(len(of))]
	}
	return one
}

func (c *userClients) disconnectTime(rng *rand.Rand) time.Duration {
	if rng.Float64() >= c.behavior.disconnects {
		return 0
	}
	return 1 + time.Duration(rng.Int64N(int64(4*time.Millisecond)))
}
