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

// A crowd is all that the clients of one user know together.
type crowd struct {
	user   string
	caller *caller
	all    []*crowd // of every user
	family bool     // has a plan at times
	style  style

	mu    sync.Mutex
	known []*stream // not known to be over
	kept  map[int]bool
	over  []ended // the last few
}

// ended is a stream that is over, by the word of a node.
type ended struct {
	*stream
	node int
}

// style is how the clients of a user behave.
type style struct {
	players  int
	think    time.Duration // between two requests of one player, at most
	oneNode  bool          // all clients are at the first
	hangUp   float64       // how often a client hangs up
	beats    time.Duration // between two heartbeats of a stream
	weights  map[string]int
	sessions int
}

// path is that of the user's resource.
func (c *crowd) path() string { return "/streams/users/" + c.user }

// run plays until ctx ends.
func (c *crowd) run(ctx context.Context, seed uint64, group *sync.WaitGroup) {
	for i := range c.style.players {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		group.Go(func() {
			for !wait(ctx, time.Duration(rng.Int64N(int64(c.style.think)))) {
				c.act(rng)
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 1000))
	group.Go(func() { c.keepAlive(ctx, rng) })
}

// keepAlive sends heartbeats for every stream that somebody watches.
func (c *crowd) keepAlive(ctx context.Context, rng *rand.Rand) {
	var beats sync.WaitGroup
	defer beats.Wait()
	for !wait(ctx, c.style.beats/2+time.Duration(rng.Int64N(int64(c.style.beats/2)))) {
		c.mu.Lock()
		for _, s := range c.known {
			if c.kept[s.op] {
				node := rng.IntN(len(c.caller.nodes))
				beats.Go(func() { c.beatUntilHeard(ctx, s, node) })
			}
		}
		c.mu.Unlock()
	}
}

// beatUntilHeard asks one node after the other, as players do.
func (c *crowd) beatUntilHeard(ctx context.Context, s *stream, node int) {
	for i := range c.caller.nodes {
		o := c.beat(s, (node+i)%len(c.caller.nodes), 0)
		if o.Status == 200 && !o.Degraded || o.Status == 410 || ctx.Err() != nil {
			return
		}
	}
}

// moves are what a player may do next, and how often.
var moves = map[string]int{
	"start": 22, "session": 14, "evict": 10, "replace": 8, "stop": 14, "stop twice": 3, "stop at once": 3, "quietest": 2, "remove": 1,
	"beat": 12, "dead beat": 6, "list": 4, "look": 3, "limit": 3, "foreign": 2, "crash": 6,
}

// quietMoves are those of somebody who watches.
var quietMoves = map[string]int{"start": 8, "session": 4, "stop": 3, "beat": 30, "dead beat": 3, "list": 3, "look": 3, "crash": 2}

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

// act does one thing.
func (c *crowd) act(rng *rand.Rand) {
	weights := c.style.weights
	if weights == nil {
		weights = moves
	}
	node, s := rng.IntN(len(c.caller.nodes)), c.any(rng)
	if c.style.oneNode {
		node = 0
	}
	hang := c.hangUp(rng)
	o := &op{User: c.user, Node: node}
	switch move := pick(rng, weights); move {
	case "start", "session", "evict", "replace":
		c.startMove(move, o, s, rng, hang)
	case "stop", "stop twice", "stop at once":
		if s != nil {
			c.stopMove(move, s, node, rng, hang)
		}
	case "beat":
		if s != nil {
			c.beat(s, node, hang)
		}
	case "dead beat":
		if dead := c.anyOver(rng); dead.stream != nil {
			if rng.IntN(2) == 0 {
				node = dead.node
			}
			c.beat(dead.stream, node, hang)
		}
	case "crash":
		c.forget(s)
	default:
		c.userMove(move, o, rng, hang)
	}
}

// startMove starts a stream of some kind; one with a session may be repeated, as
// clients do that got no answer.
func (c *crowd) startMove(move string, o *op, s *stream, rng *rand.Rand, hang time.Duration) {
	switch move {
	case "session":
		o.Session = "session-" + strconv.Itoa(rng.IntN(c.style.sessions))
	case "evict":
		o.Evict = true
		if rng.IntN(3) == 0 {
			o.Session = "session-" + strconv.Itoa(rng.IntN(c.style.sessions))
		}
	case "replace":
		if s == nil {
			return
		}
		o.Replaces = s.op
	}
	keep := rng.Float64() < 0.7
	again := rng.Float64() < 0.3
	c.start(o, s, keep, hang)
	if o.unknown() && o.Session != "" || again && o.Session != "" {
		c.start(&op{User: o.User, Node: rng.IntN(len(c.caller.nodes)), Session: o.Session, Evict: o.Evict}, nil, keep, 0)
	}
}

// stopMove stops a stream, as clients do that press twice or get no answer.
func (c *crowd) stopMove(move string, s *stream, node int, rng *rand.Rand, hang time.Duration) {
	var other sync.WaitGroup
	if move == "stop at once" {
		other.Go(func() { c.stop(s, node, 0) })
	}
	c.stop(s, node, hang)
	other.Wait()
	if move == "stop twice" {
		c.stop(s, rng.IntN(len(c.caller.nodes)), 0)
	}
}

// userMove asks about the user as a whole.
func (c *crowd) userMove(move string, o *op, rng *rand.Rand, hang time.Duration) {
	switch move {
	case "quietest":
		o.Kind = kindQuietest
		c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/stop", "", hang})
	case "remove":
		o.Kind = kindRemove
		c.caller.do(context.Background(), o, request{http.MethodDelete, c.path(), "", hang})
	case "list":
		o.Kind = kindList
		c.caller.do(context.Background(), o, request{http.MethodGet, c.path() + "?consistency=linearizable", "", 0})
	case "look":
		o.Kind = kindLook
		c.caller.do(context.Background(), o, request{http.MethodGet, c.path(), "", 0})
	case "limit":
		c.setLimit(o, rng)
	case "foreign":
		other := c.all[rng.IntN(len(c.all))]
		if s := other.any(rng); other != c && s != nil {
			o.Kind, o.Stream = kindForeign, s.op
			call := [...]string{"/heartbeat", "/stop"}[rng.IntN(2)]
			c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/streams/" + s.id + call, "", 0})
		}
	}
}

// setLimit gives the user a limit or plan of his own, or takes it away.
func (c *crowd) setLimit(o *op, rng *rand.Rand) {
	o.Kind = kindLimit
	path := "/limits/users/" + c.user
	switch n := rng.IntN(6); {
	case n == 0:
		o.Limit = -1
		c.caller.do(context.Background(), o, request{http.MethodDelete, path, "", 0})
	case n <= 3 && c.family:
		o.Plan = planName(c.user)
		c.caller.do(context.Background(), o, request{http.MethodPut, path, `{"plan":"` + o.Plan + `"}`, 0})
	default:
		o.Limit = 1 + rng.IntN(3)
		c.caller.do(context.Background(), o, request{http.MethodPut, path, fmt.Sprintf(`{"limit":%d}`, o.Limit), 0})
	}
}

// start sends o. replaced is the stream that it names, if it does.
func (c *crowd) start(o *op, replaced *stream, keep bool, hang time.Duration) {
	o.Kind, o.N = kindStart, int(numbers.Add(1))
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
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // strings always marshal
	}
	a := c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/start", string(text), hang})
	if a == nil || o.Status != 200 || a.Stream == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) > 12 {
		c.known = c.known[1:]
	}
	c.known = append(c.known, &stream{op: o.N, id: a.Stream.ID, user: c.user, session: o.Session})
	c.kept[o.N] = keep
}

func (c *crowd) beat(s *stream, node int, hang time.Duration) *op {
	o := &op{Kind: kindBeat, User: c.user, Node: node, Stream: s.op}
	c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/streams/" + s.id + "/heartbeat", "", hang})
	if o.Status == 410 {
		c.isOver(s, node)
	}
	return o
}

func (c *crowd) stop(s *stream, node int, hang time.Duration) {
	o := &op{Kind: kindStop, User: c.user, Node: node, Stream: s.op}
	c.caller.do(context.Background(), o, request{http.MethodPost, c.path() + "/streams/" + s.id + "/stop", "", hang})
	if o.Status == 200 || o.Status == 410 {
		c.isOver(s, node)
	}
}

// isOver moves a stream to those that are.
func (c *crowd) isOver(s *stream, node int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.Index(c.known, s)
	if at < 0 {
		return
	}
	c.known = slices.Delete(c.known, at, at+1)
	delete(c.kept, s.op)
	c.over = append(c.over, ended{s, node})
	if len(c.over) > 6 {
		c.over = c.over[1:]
	}
}

// forget has the client of a stream crash without a word.
func (c *crowd) forget(s *stream) {
	if s == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept[s.op] = false
}

func (c *crowd) any(rng *rand.Rand) *stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return oneOf(rng, c.known)
}

func (c *crowd) anyOver(rng *rand.Rand) ended {
	c.mu.Lock()
	defer c.mu.Unlock()
	return oneOf(rng, c.over)
}

// oneOf is the zero T if there is none.
func oneOf[T any](rng *rand.Rand, of []T) (one T) {
	if len(of) > 0 {
		one = of[rng.IntN(len(of))]
	}
	return one
}

func (c *crowd) hangUp(rng *rand.Rand) time.Duration {
	if rng.Float64() >= c.style.hangUp {
		return 0
	}
	return 1 + time.Duration(rng.Int64N(int64(4*time.Millisecond)))
}
