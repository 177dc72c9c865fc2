package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/lease/internal/bars"
	"streamcount/lease/policy"
)

// A simEdge is the player of one session whose requests for media start and renew its stream.
// It sends each request to one node or to all of them, several at once.
type simEdge struct {
	*sim
	user, session string
	rng           *rand.Rand
	home          int // the only node that it calls, or -1 for all
	parallel      int // requests to a node at once
	used          map[int]bool
	operators     sync.WaitGroup
}

// TestSimulation_Edge is TestSimulation with more sessions whose requests start and renew their
// streams. Of concurrent first requests, on any nodes, one starts a stream, and none ends the
// stream of the same session. If a stream is ended on purpose, its session starts no other while
// its player continues. A session is barred only then: not after an expiry, nor if its player
// has left.
func TestSimulation_Edge(t *testing.T) {
	t.Parallel()
	done := testSimulation(t, func(rt *rapid.T) simConfig {
		cfg := drawSim(rt, OutageDeny)
		cfg.viewers, cfg.edges = rapid.IntRange(1, 5).Draw(rt, "some viewers"), rapid.IntRange(4, 12).Draw(rt, "many edges")
		return cfg
	})
	for _, what := range []string{
		"edge: allowed", "edge: started", "edge: joined", "edge: barred", "edge: left", "edge: failed over", "edge: was quiet",
		"edge ended: stopped", "edge ended: expired",
	} {
		require.NotZero(t, done[what], what)
	}
	if done["runs"] < 100 {
		return // too few: some of the other events are once in two runs
	}
	for _, what := range []string{"edge ended: removed", "edge ended: evicted", "edge ended: replaced", "edge ended: left"} {
		require.NotZero(t, done[what], what)
	}
}

// edgeInterval is the maximum time between two requests of a player that does not pause. With
// the time that its calls take, it is less than bars.Quiet.
const edgeInterval = 3 * time.Second

func (s *sim) watchEdge(i int) {
	v := &simEdge{
		sim: s, user: fmt.Sprint("e", i/4), session: fmt.Sprint("edge", i),
		rng: rand.New(rand.NewPCG(s.seed, uint64(i)+1000)),
	}
	if i%2 == 0 {
		v.user = simUser(i % s.users) // who has viewers too
	}
	v.chooseNodes()
	for end := time.Now().Add(s.length); time.Now().Before(end); {
		v.play(end)
	}
	v.operators.Wait()
}

// chooseNodes selects the nodes that the player calls, until it is quiet the next time.
func (v *simEdge) chooseNodes() {
	v.home, v.parallel, v.used = -1, 1+v.rng.IntN(3), map[int]bool{}
	if v.rng.IntN(2) == 0 {
		v.home = v.rng.IntN(len(v.nodes))
	}
}

// play sends requests for a while. Then the player leaves, or is silent.
func (v *simEdge) play(end time.Time) {
	for until := time.Now().Add(v.upTo(3 * v.ttl)); time.Now().Before(end) && time.Now().Before(until); {
		v.requests(false)
		if v.rng.IntN(8) == 0 {
			do, l := v.rng.IntN(5), v.nodes[v.rng.IntN(len(v.nodes))]
			v.operators.Go(func() { v.operate(do, l) })
		}
		time.Sleep(v.upTo(edgeInterval))
		if v.home >= 0 && v.rng.IntN(12) == 0 {
			v.failOver()
		}
	}
	switch v.rng.IntN(4) {
	case 0:
		v.leave()
		v.requests(false)
	case 1, 2:
		v.pause()
	}
}

// failOver selects a node to which the session has sent no request since it was quiet. On
// another node its bar would end, because a node measures the time since its own last request.
func (v *simEdge) failOver() {
	for i := range v.nodes {
		if !v.used[i] {
			v.home = i
			v.count("edge: failed over")
			return
		}
	}
}

// requests sends requests to the nodes at once, and waits for the answers.
func (v *simEdge) requests(entry bool) {
	var all sync.WaitGroup
	for i := range v.nodes {
		if v.home >= 0 && v.home != i {
			continue
		}
		v.used[i] = true
		for range v.parallel {
			cancelled := v.rng.IntN(20) == 0
			after := v.upTo(200*time.Millisecond) + 1
			evict := v.rng.IntN(4) == 0
			all.Go(func() {
				ctx := context.Background()
				if cancelled {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, after)
					defer cancel()
				}
				v.request(ctx, v.nodes[i], entry, evict)
			})
		}
	}
	all.Wait()
}

// request does what a proxy does for one request of the player.
func (v *simEdge) request(ctx context.Context, l *Limiter, entry, evict bool) {
	applied := l.replica.AppliedRevision()
	a, err := l.Attend(ctx, v.user, v.session, entry)
	switch {
	case err != nil:
		v.fault("attend: %v", err)
		return
	case a.Stream.User != "":
		v.count("edge: allowed")
		return
	case a.Bar != nil:
		v.checkBar(applied, &a.Bar.EndedError)
		if entry && v.calm() && v.edge.endedLongAgo(v.session) {
			v.fault("%s is barred (%s) after it was quiet", v.session, a.Bar.Reason)
		}
		v.count("edge: barred")
		return
	case !a.Current:
		v.count("edge: not current")
		return
	}
	req := Request{Session: v.session, Join: true, Via: "edge:vod"}
	if evict {
		req.OnLimit = policy.ReplaceOldest
	}
	done := v.edge.starting(v.session)
	st, err := l.Start(ctx, v.user, req)
	done(err)
	var bar *Bar
	switch {
	case errors.As(err, &bar):
		v.checkBar(applied, &bar.EndedError)
		v.count("edge: barred at the start")
	case err != nil:
		v.count("edge: rejected or failed")
	case st.Joined:
		v.count("edge: joined")
	default:
		v.count("edge: started")
		for _, e := range st.Ended {
			if e.Stream.Session == v.session {
				v.fault("a start of %s has ended its own stream: %s", v.session, e.Reason)
			}
		}
	}
}

// checkBar checks that a session with a bar had a stream that was ended on purpose. applied is
// a revision that the node's replica contained before the request.
func (v *simEdge) checkBar(applied int64, by *EndedError) {
	if !v.edge.mayBeBarred(v.session, applied) {
		v.fault("%s is barred (%s), and no stream of it was ended on purpose", v.session, by.Reason)
	}
}

// operate ends streams of the user on purpose, by calls of others.
func (v *simEdge) operate(do int, l *Limiter) {
	ctx := context.Background()
	v.edge.stopping(v.user)
	v.count("edge: operated")
	if v.user[0] == 'e' { // no viewer expects that its stream lives
		switch do {
		case 0:
			_, _ = l.Remove(ctx, v.user)
			return
		case 1:
			_, _ = l.StopOldestHeartbeat(ctx, v.user)
			return
		}
	}
	list, _ := l.List(ctx, v.user, Linearizable) // other nodes may not have the stream yet
	i := slices.IndexFunc(list.Active, func(s Stream) bool { return s.Session == v.session })
	if i < 0 {
		return
	}
	id := list.Active[i].ID
	if do == 2 {
		_, _ = l.Start(ctx, v.user, Request{Replaces: []string{id}}) // it expires
		return
	}
	_, _ = l.Stop(ctx, v.user, id)
}

// leave ends the session's stream as its player does.
func (v *simEdge) leave() {
	v.edge.leave(v.session)
	if err := v.nodes[max(v.home, 0)].Leave(context.Background(), v.user, v.session); err == nil {
		v.count("edge: left")
	}
}

// pause makes the player silent for so long that its bar ends, and at times its stream.
func (v *simEdge) pause() {
	time.Sleep(bars.Quiet + time.Second + v.upTo(2*v.ttl))
	v.edge.release(v.session, time.Now().Add(-bars.EntryQuiet))
	v.chooseNodes()
	v.requests(true)
	v.count("edge: was quiet")
}

// calm reports whether every node receives every change in time.
func (v *simEdge) calm() bool { return v.lost == 0 && v.cuts == 0 && v.outages == 0 }

func (v *simEdge) upTo(d time.Duration) time.Duration { return time.Duration(v.rng.Int64N(int64(d))) }
