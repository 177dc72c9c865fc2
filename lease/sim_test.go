package lease

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdsim"
	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

// A sim is one simulation, in virtual time: nodes and viewers on a simulated etcd, over a
// network that loses messages. The simulated etcd has the true state.
type sim struct {
	simConfig
	etcd  *etcdsim.Etcd
	nodes []*simNode
	links []*etcdsim.Link

	mu      sync.Mutex
	faults  []string
	spans   map[string][]span      // by user: the number of streams over time
	puts    map[streamid.Nonce]put // all streams of the simulation
	live    map[streamid.Nonce]string
	leases  map[streamid.Nonce]int64
	taken   map[streamid.Nonce][]taken       // streams that were renewed recently and ended by a start
	held    map[streamid.Nonce]bool          // streams whose viewers have not stopped them
	gone    map[streamid.Nonce]etcdsim.Cause // the causes of ended streams
	evicted map[string]time.Time             // by session: when a start evicted its stream
	batches map[int]*simBatch                // by the home of their viewers: those that are not sent yet
	ended   []HeartbeatRequest               // heartbeats of streams that have ended on every replica
	plans   simPlans
	edge    *edgeChecker
	done    map[string]int // by event: how often it happened
}

type span struct {
	from time.Time
	n    int
}

// taken is a stream that a start ended.
type taken struct {
	nonce  streamid.Nonce
	silent time.Duration // time since its last renewal
}

type put struct {
	at time.Time
	n  int // streams of the user at that revision
}

// simConfig has the parameters of a simulation.
type simConfig struct {
	seed                  uint64
	limit, users, viewers int
	planUsers             int // users with plans with several limits
	edges                 int // sessions whose requests for media start their streams
	nodesN                int
	ttl, length, cooldown time.Duration
	delay, lag            time.Duration
	lost                  float64
	cuts, outages         int           // failures of one link, and of all links
	restarts              int           // of nodes
	elections             int           // leader changes that the old leader does not notice at once
	backlog, unnoticed    time.Duration // until an expired lease is revoked; until the old leader notices the change
	outage                Outage
}

func drawSim(t *rapid.T, outage Outage) simConfig {
	ms := func(name string, limit int) time.Duration {
		return time.Duration(rapid.IntRange(0, limit).Draw(t, name)) * time.Millisecond
	}
	cfg := simConfig{
		seed: rapid.Uint64().Draw(t, "seed"), limit: rapid.IntRange(1, 3).Draw(t, "limit"),
		users: rapid.IntRange(1, 5).Draw(t, "users"), planUsers: rapid.IntRange(0, 3).Draw(t, "planUsers"), viewers: rapid.IntRange(4, 16).Draw(t, "viewers"),
		nodesN: rapid.IntRange(1, 3).Draw(t, "nodes"), ttl: time.Duration(rapid.IntRange(10, 30).Draw(t, "ttl")) * time.Second,
		length: 2 * time.Minute, delay: ms("delay", 100), lag: ms("lag", 1500),
		lost: float64(rapid.IntRange(0, 10).Draw(t, "lost")) / 100, outage: outage,
		cuts: rapid.IntRange(0, 3).Draw(t, "cuts"), outages: rapid.IntRange(0, 2).Draw(t, "outages"),
		elections: rapid.IntRange(0, 2).Draw(t, "elections"),
		backlog:   ms("backlog", 5000), unnoticed: ms("unnoticed", 20000),
	}
	cfg.cooldown = cfg.ttl / 2
	if outage == OutageDeny { // otherwise each node may admit a stream of a session
		cfg.edges = rapid.IntRange(0, 3).Draw(t, "edges")
	}
	return cfg
}

// calm reports whether every node receives every change in time.
func (c simConfig) calm() bool {
	return c.lost == 0 && c.cuts == 0 && c.outages == 0 && c.restarts == 0
}

func (s *sim) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultLocked(format, args...)
}

func (s *sim) faultLocked(format string, args ...any) {
	if len(s.faults) < 5 {
		s.faults = append(s.faults, fmt.Sprintf("%v: ", time.Since(simBegin))+fmt.Sprintf(format, args...))
	}
}

func (s *sim) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[what]++
}

// simBegin is the virtual time at which each simulation begins.
var simBegin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// audit checks every revision.
func (s *sim) audit(e *etcdsim.Etcd, cause etcdsim.Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := schema.Keys{Prefix: "/p"}
	now, live, started := map[string]int{}, map[streamid.Nonce]string{}, map[string]streamid.Nonce{}
	for _, kv := range e.Locked(k.UsersPrefix()) {
		user, _, _ := k.ParseUserKey(kv.Key)
		now[user]++
		live[schema.DecodeHead(kv.Value).Nonce] = user
		s.leases[schema.DecodeHead(kv.Value).Nonce] = kv.Lease
	}
	for n, user := range live {
		if _, known := s.puts[n]; known {
			continue
		}
		s.puts[n], started[user] = put{time.Now(), now[user]}, n
		if now[user] > s.limit && !s.plans.hasPlan(user) {
			s.faultLocked("%s has %d streams, the limit is %d", user, now[user], s.limit)
		}
	}
	for n, user := range s.live {
		if live[n] != "" {
			continue
		}
		s.gone[n] = cause
		if cause != etcdsim.Written || !s.held[n] {
			continue
		}
		if started[user] == (streamid.Nonce{}) {
			s.faultLocked("%s of %s was ended without a request", n, user)
		}
		if silent := time.Since(e.Renewed(s.leases[n])); silent < s.ttl {
			s.taken[started[user]] = append(s.taken[started[user]], taken{n, silent})
		}
	}
	s.live = live
	for _, wrong := range append(s.plans.audit(e), s.edge.audit(e, cause)...) {
		s.faultLocked("%s", wrong)
	}
	for i := range s.users {
		user := simUser(i)
		if all := s.spans[user]; len(all) == 0 || all[len(all)-1].n != now[user] {
			s.spans[user] = append(all, span{time.Now(), now[user]})
		}
	}
}

func simUser(i int) string { return fmt.Sprint("u", i) }

// counts returns the numbers of streams that user has had since a time, newest first.
func (s *sim) counts(user string, since time.Time) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, all := []int{0}, s.spans[user] // before the first span there are no streams
	for i := len(all) - 1; i >= 0; i-- {
		counts = append(counts, all[i].n)
		if all[i].from.Before(since) {
			return counts[1:]
		}
	}
	return counts
}

func simulate(t *testing.T, cfg simConfig) *sim {
	t.Helper()
	s := &sim{
		simConfig: cfg, etcd: etcdsim.New(), spans: map[string][]span{}, puts: map[streamid.Nonce]put{},
		leases: map[streamid.Nonce]int64{}, taken: map[streamid.Nonce][]taken{}, gone: map[streamid.Nonce]etcdsim.Cause{}, held: map[streamid.Nonce]bool{},
		evicted: map[string]time.Time{}, batches: map[int]*simBatch{}, done: map[string]int{},
		plans: newSimPlans(cfg), edge: newEdgeChecker(cfg),
	}
	s.etcd.Audit, s.etcd.Backlog = s.audit, cfg.backlog
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for !sleep(ctx, 500*time.Millisecond) {
			s.etcd.Tick()
		}
	})
	serving, drain := context.WithCancel(ctx)
	for i := range cfg.nodesN {
		s.addNode(i).start(serving)
	}
	var viewers sync.WaitGroup
	for i := range cfg.viewers {
		viewers.Go(func() { s.watch(i) })
	}
	for i := range cfg.edges {
		viewers.Go(func() { s.watchEdge(i) })
	}
	viewers.Go(s.injectFaults)
	viewers.Go(func() { s.scheduleRestarts(serving) })
	viewers.Go(s.changeRules)
	viewers.Wait()
	s.waitForExpiry()
	drain()
	for _, n := range s.nodes {
		n.running.Wait()
	}
	time.Sleep(2*cfg.ttl + cfg.backlog + time.Second) // the leases that a pool could not revoke expire
	if n := s.etcd.Leases(); n > 0 {
		s.fault("%d leases are left", n)
	}
	for _, kv := range s.etcd.Read("/p/") {
		if !isRule(string(kv.Key)) {
			s.fault("%s is left", kv.Key)
		}
	}
	stop()
	running.Wait()
	return s
}

// waitForExpiry waits until the streams of all viewers must have expired.
func (s *sim) waitForExpiry() {
	for _, l := range s.links {
		l.StopLosses()
	}
	time.Sleep(2*s.ttl + s.backlog + 5*time.Second)
	for _, kv := range s.etcd.Read("/p/users/") {
		s.fault("%s is left, of %s", kv.Key, kv.Value)
	}
}

// injectFaults cuts links and changes the leader at random times.
func (s *sim) injectFaults() {
	rng := rand.New(rand.NewPCG(s.seed, 2))
	var all sync.WaitGroup
	at := func(do func()) {
		wait := time.Duration(rng.Int64N(int64(s.length)))
		all.Go(func() { time.Sleep(wait); do() })
	}
	for range s.cuts {
		link, d := s.links[rng.IntN(len(s.links))], time.Duration(rng.Int64N(int64(10*time.Second)))
		at(func() { link.Cut(true); time.Sleep(d); link.Cut(false) })
	}
	for range s.outages {
		d := time.Duration(rng.Int64N(int64(10 * time.Second)))
		at(func() {
			for _, l := range s.links {
				l.Cut(true)
			}
			time.Sleep(d)
			for _, l := range s.links {
				l.Cut(false)
			}
			s.etcd.Elect()
		})
	}
	for range s.elections {
		at(func() { s.etcd.Depose(s.unnoticed) })
	}
	all.Wait()
}

// defaultRuns is the number of simulations of a test run; -rapid.checks sets another.
const defaultRuns = 15

func checksAreSet() (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	return set
}

// Viewers start, renew, stop and abandon streams on nodes whose messages are lost, whose links
// are cut, and whose etcd changes its leader. No user is over the limit at any revision, every
// answer is correct, no stream ends without a request or an expiry, and nothing is left. Some
// users have plans with several limits, which change.
func TestSimulation(t *testing.T) {
	t.Parallel()
	requireAll(t, testSimulation(t, func(rt *rapid.T) simConfig { return drawSim(rt, OutageDeny) }))
}

func requireAll(t *testing.T, done map[string]int) {
	t.Helper()
	require.NotZero(t, done["started"])
	require.NotZero(t, done["batches of several viewers"])
	require.NotZero(t, done["under several limits"])
	require.NotZero(t, done["compared evictions"])
}

// testSimulation runs simulations, and returns how often each event happened.
func testSimulation(t *testing.T, draw func(*rapid.T) simConfig) map[string]int {
	t.Helper()
	calls, runs, done := int64(0), 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if runs >= defaultRuns && !checksAreSet() {
			return
		}
		cfg := draw(rt)
		var s *sim
		etcdsim.Bubble(t, func(t *testing.T) { t.Helper(); s = simulate(t, cfg) })
		runs++
		for _, l := range s.links {
			calls += l.Calls.Load()
		}
		for what, n := range s.done {
			done[what] += n
		}
		for what, n := range s.edge.done {
			done[what] += n
		}
		done["under several limits"] += s.plans.checker.Admitted
		done["evicting under several limits"] += s.plans.checker.Evicting
		done["compared evictions"] += s.plans.checker.Compared
		if len(s.faults) > 0 {
			rt.Fatalf("%v", s.faults)
		}
	})
	done["runs"] = runs
	t.Logf("%d runs, %d calls of etcd, %v", runs, calls, done)
	return done
}

// TestSimulation_Admit is TestSimulation with nodes that admit starts while etcd is unavailable.
func TestSimulation_Admit(t *testing.T) {
	t.Parallel()
	requireAll(t, testSimulation(t, func(rt *rapid.T) simConfig { return drawSim(rt, OutageAdmit) }))
}
