package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/lease/policy"
)

// A simEdge is the player of one session whose requests for media start and renew its stream.
// It sends each request to one node or to all of them, several at once.
type simEdge struct {
	*sim
	key       edgeKey
	rng       *rand.Rand
	home      int         // the only node that it calls, or -1 for all
	parallel  int         // requests to a node at once
	insists   bool        // it never pauses
	hasStart  atomic.Bool // a request has started a stream
	operators sync.WaitGroup
}

// TestSimulation_Edge is TestSimulation with more sessions whose requests start and renew their
// streams, and with nodes that are restarted. Of concurrent first requests, on any nodes, one starts
// a stream, and none ends the stream of the same session. If a stream is ended on purpose, each node
// bars its session, for as long as the player continues and no longer, until someone starts a
// stream of the session explicitly. A session is barred only then: not after an expiry, nor if
// its player has left.
func TestSimulation_Edge(t *testing.T) {
	t.Parallel()
	done := testSimulation(t, drawEdges)
	for _, what := range []string{
		"edge: allowed", "edge: started", "edge: joined", "edge: barred", "edge: left", "edge: was quiet", "edge: a bar has ended",
		"edge: explicit start", "edge: moved", "edge: disconnected", "restarts", "edge ended: stopped", "edge ended: expired",
	} {
		require.NotZero(t, done[what], what)
	}
	if done["runs"] < 100 {
		return // too few: some of the other events are once in two runs
	}
	for _, what := range []string{
		"edge ended: removed", "edge ended: evicted", "edge ended: replaced", "edge ended: left", "edge ended: explicit",
		"edge: barred at the start", "edge: barred for minutes", "edge: calm",
	} {
		require.NotZero(t, done[what], what)
	}
}

func drawEdges(t *rapid.T) simConfig {
	cfg := drawSim(t, OutageDeny)
	cfg.viewers, cfg.edges = rapid.IntRange(1, 5).Draw(t, "some viewers"), rapid.IntRange(4, 12).Draw(t, "many edges")
	cfg.cooldown = 2 * cfg.ttl // bars of evicted sessions last longer than others
	cfg.restarts = rapid.IntRange(0, 3).Draw(t, "restarts")
	if rapid.IntRange(0, 3).Draw(t, "calm") == 0 { // the checker requires more
		cfg.lost, cfg.cuts, cfg.outages, cfg.restarts = 0, 0, 0, 0
	}
	if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
		cfg.length, cfg.viewers, cfg.edges = barMaxAge+2*time.Minute, 1, 2
	}
	return cfg
}

const (
	// edgeInterval is the maximum time between two requests of a player that does not pause. With
	// the time that its calls take, it is less than barQuiet.
	edgeInterval = 3 * time.Second
	// edgeSessionPrefix is the begin of the names of the sessions.
	edgeSessionPrefix = "edge"
)

func (s *sim) watchEdge(i int) {
	v := &simEdge{
		sim: s, key: edgeKey{fmt.Sprint("e", i/4), fmt.Sprint(edgeSessionPrefix, i/2)},
		rng: rand.New(rand.NewPCG(s.seed, uint64(i)+1000)), insists: s.length > barMaxAge,
	}
	if i%2 == 0 {
		v.key.user = simUser(i % s.users) // who has viewers too
	}
	if i == 0 && s.calm() {
		s.count("edge: calm")
	}
	v.chooseNodes()
	for end := time.Now().Add(s.length); time.Now().Before(end); {
		v.play(end)
	}
	v.operators.Wait()
}

// chooseNodes selects the nodes that the player calls.
func (v *simEdge) chooseNodes() {
	v.home, v.parallel = -1, 1+v.rng.IntN(3)
	if v.rng.IntN(2) == 0 {
		v.home = v.rng.IntN(len(v.nodes))
	}
}

// play sends requests for a while. Then the player leaves, or is silent.
func (v *simEdge) play(end time.Time) {
	for until := time.Now().Add(v.upTo(3 * v.ttl)); time.Now().Before(end) && (v.insists || time.Now().Before(until)); {
		v.requests(!v.insists && v.rng.IntN(30) == 0)
		interval := v.upTo(edgeInterval)
		switch started := v.hasStart.Swap(false); {
		case started && v.rng.IntN(2) == 0: // other nodes may not have received the stream
			v.operateLater(3)
			interval = v.upTo(v.lag + v.delay + 1)
		case v.rng.IntN(8) == 0:
			v.operateLater(v.rng.IntN(5))
		}
		time.Sleep(interval)
		if v.home >= 0 && v.rng.IntN(12) == 0 {
			v.home = v.rng.IntN(len(v.nodes)) // the other one has failed
		}
	}
	if v.insists {
		return
	}
	switch v.rng.IntN(8) {
	case 0, 1:
		v.leave()
		v.requests(false)
	case 2, 3, 4:
		v.pause()
	case 5:
		v.startExplicitly()
	}
}

// requests sends requests to the nodes at once, and waits for the answers.
func (v *simEdge) requests(entry bool) {
	var all sync.WaitGroup
	for i := range v.nodes {
		if v.home >= 0 && v.home != i {
			continue
		}
		for range v.parallel {
			disconnects, after := v.rng.IntN(20) == 0, v.upTo(200*time.Millisecond)
			evict, look, move := v.rng.IntN(4) == 0, v.rng.IntN(8) == 0, v.rng.IntN(40) == 0
			all.Go(func() {
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				if disconnects {
					defer time.AfterFunc(after, cancel).Stop()
				}
				v.request(ctx, i, entry, look, evict, move)
			})
		}
	}
	all.Wait()
}

// request does what a proxy does for one request of the player.
func (v *simEdge) request(ctx context.Context, node int, entry, look, evict, move bool) {
	l := v.limiterOf(node)
	r, attend := v.edge.request(v.key, l, entry, look), l.Attend
	if look {
		attend = l.LookUpSession
	}
	a, err := attend(ctx, v.key.user, v.key.session, entry)
	switch {
	case err != nil:
		v.fault("attend: %v", err)
	case a.Stream.User != "":
		who, err := l.ids.Parse(v.key.user, a.Stream.ID)
		if err != nil {
			v.fault("%s: %v", a.Stream.ID, err)
		}
		v.report(v.edge.allow(r, who.Nonce.String(), !look && a.Current && !a.Stream.Degraded && ctx.Err() == nil))
		v.count("edge: allowed")
		if move && !look {
			v.move(r, a.Stream)
		}
	case a.Bar != nil:
		v.report(v.edge.reject(r, &a.Bar.EndedError, false))
		v.count("edge: barred")
		if v.insists {
			v.count("edge: barred for minutes")
		}
	default:
		v.report(v.edge.pass(r))
		if !look && a.Current {
			v.start(ctx, r, evict)
		}
	}
	if ctx.Err() != nil {
		v.count("edge: disconnected")
	}
}

// start is the start of a request whose session has no stream.
func (v *simEdge) start(ctx context.Context, r edgeRequest, evict bool) {
	req := Request{Session: v.key.session, Join: true, Via: "edge:vod"}
	if evict {
		req.OnLimit = policy.ReplaceOldest
	}
	done := v.edge.starting(v.key, r.node)
	st, err := r.node.Start(ctx, v.key.user, req)
	done(err)
	bar, barred := errors.AsType[*Bar](err)
	switch {
	case barred:
		v.report(v.edge.reject(r, &bar.EndedError, true))
		v.count("edge: barred at the start")
	case errors.Is(err, ErrLimit), errors.Is(err, ErrUnavailable), err != nil && ctx.Err() != nil:
		v.count("edge: rejected or failed")
	case err != nil:
		v.fault("start of %s: %v", v.key, err)
	case st.Joined:
		v.count("edge: joined")
	default:
		v.hasStart.Store(true)
		v.count("edge: started")
		for _, e := range st.Ended {
			if e.Stream.Session == v.key.session {
				v.fault("a start of %s has ended its own stream: %s", v.key, e.Reason)
			}
		}
	}
}

// move continues the session with other content, which ends its stream and starts another one.
func (v *simEdge) move(r edgeRequest, from Stream) {
	ended, done := v.edge.doing("take over", v.key.user, v.key.session), v.edge.starting(v.key, r.node)
	_, err := r.node.Start(context.Background(), v.key.user, Request{Session: v.key.session, Via: "edge:vod", Content: Content{ID: from.ID}})
	ended(err)
	done(err)
	if bar, barred := errors.AsType[*Bar](err); barred {
		v.report(v.edge.reject(r, &bar.EndedError, true))
	}
	if err == nil {
		v.count("edge: moved")
	}
}

// startExplicitly starts the stream of the session by a call of its application, which no bar keeps
// from it.
func (v *simEdge) startExplicitly() {
	done := v.edge.doing("take over", v.key.user, v.key.session)
	_, err := v.limiterOf(v.rng.IntN(len(v.nodes))).Start(context.Background(), v.key.user, Request{Session: v.key.session})
	done(err)
	switch {
	case err == nil:
		v.count("edge: explicit start")
	case errors.Is(err, ErrEnded):
		v.fault("an explicit start of %s is barred: %v", v.key, err)
	}
}

func (v *simEdge) report(wrong string) {
	if wrong != "" {
		v.fault("%s", wrong)
	}
}

func (v *simEdge) operateLater(do int) {
	l := v.limiterOf(v.rng.IntN(len(v.nodes)))
	v.operators.Go(func() { v.operate(do, l) })
}

// operate ends streams of the user on purpose, by calls of others.
func (v *simEdge) operate(do int, l *Limiter) {
	ctx, user := context.Background(), v.key.user
	v.count("edge: operated")
	if user[0] == 'e' { // no viewer expects that its stream lives
		switch do {
		case 0:
			done := v.edge.doing("remove", user, "")
			_, err := l.Remove(ctx, user)
			done(err)
			return
		case 1:
			done := v.edge.doing("stop", user, "")
			_, err := l.StopOldestHeartbeat(ctx, user)
			done(err)
			return
		}
	}
	list, _ := l.List(ctx, user, Linearizable) // other nodes may not have the stream yet
	i := slices.IndexFunc(list.Active, func(s Stream) bool { return s.Session == v.key.session })
	if i < 0 {
		return
	}
	id := list.Active[i].ID
	if do == 2 {
		_, _ = l.Start(ctx, user, Request{Replaces: []string{id}}) // it expires
		return
	}
	done := v.edge.doing("stop", user, v.key.session)
	_, err := l.Stop(ctx, user, id)
	done(err)
}

// leave ends the session's stream as its player does.
func (v *simEdge) leave() {
	done := v.edge.doing("leave", v.key.user, v.key.session)
	err := v.limiterOf(max(v.home, 0)).Leave(context.Background(), v.key.user, v.key.session)
	done(err)
	switch {
	case err == nil:
		v.count("edge: left")
	case !errors.Is(err, ErrUnavailable):
		v.fault("leave: %v", err)
	}
}

// pause makes the player silent, at times for so long that its bar ends, or its stream.
func (v *simEdge) pause() {
	longest := barQuiet + 2*time.Second
	if v.rng.IntN(2) == 0 {
		longest += 2 * v.ttl
	}
	time.Sleep(v.upTo(longest))
	if v.rng.IntN(2) == 0 {
		v.chooseNodes()
	}
	v.requests(v.rng.IntN(2) == 0)
	v.count("edge: was quiet")
}

func (v *simEdge) upTo(d time.Duration) time.Duration { return time.Duration(v.rng.Int64N(int64(d))) }
