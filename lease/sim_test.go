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

	"streamcount/internal/etcdsim"
)

// A sim is an evening on an etcd made of maps: nodes, viewers, and a network that
// loses messages, in virtual time. What is true is read from that etcd.
type sim struct {
	simConfig
	etcd  *etcdsim.Etcd
	nodes []*Limiter
	links []*etcdsim.Link

	mu      sync.Mutex
	faults  []string
	spans   map[string][]span // how many streams each user had, and from when on
	puts    map[nonce]put     // every stream there ever was
	live    map[nonce]string
	leases  map[nonce]int64
	taken   map[nonce][]taken       // what was renewed lately and went for a start
	held    map[nonce]bool          // by a viewer who has not asked for the end
	gone    map[nonce]etcdsim.Cause // how streams went
	evicted map[string]time.Time    // when a start told that it had evicted a stream of this session
	done    map[string]int          // what happened how often
}

type span struct {
	from time.Time
	n    int
}

// taken is a stream that a start ended.
type taken struct {
	nonce  nonce
	silent time.Duration // since it was renewed
}

type put struct {
	at time.Time
	n  int // streams of the user at that revision
}

// simConfig is what rapid draws.
type simConfig struct {
	seed                   uint64
	limit, users, viewers  int
	nodesN                 int
	ttl, length            time.Duration
	delay, lag             time.Duration
	lost                   float64
	cuts, aways, elections int           // links that are cut, times that all are, changes of the leader
	backlog, unnoticed     time.Duration // of leases that have run out; of a change of the leader, by the old one
	outage                 Outage
}

func drawSim(t *rapid.T, outage Outage) simConfig {
	ms := func(name string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Millisecond
	}
	return simConfig{
		seed: rapid.Uint64().Draw(t, "seed"), limit: rapid.IntRange(1, 3).Draw(t, "limit"),
		users: rapid.IntRange(1, 5).Draw(t, "users"), viewers: rapid.IntRange(4, 16).Draw(t, "viewers"),
		nodesN: rapid.IntRange(1, 3).Draw(t, "nodes"), ttl: time.Duration(rapid.IntRange(10, 30).Draw(t, "ttl")) * time.Second,
		length: 2 * time.Minute, delay: ms("delay", 100), lag: ms("lag", 1500),
		lost: float64(rapid.IntRange(0, 10).Draw(t, "lost")) / 100, outage: outage,
		cuts: rapid.IntRange(0, 3).Draw(t, "cuts"), aways: rapid.IntRange(0, 2).Draw(t, "aways"),
		elections: rapid.IntRange(0, 2).Draw(t, "elections"),
		backlog:   ms("backlog", 5000), unnoticed: ms("unnoticed", 20000),
	}
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

// simBegin is when every bubble's clock starts.
var simBegin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// audit looks at every revision.
func (s *sim) audit(e *etcdsim.Etcd, why etcdsim.Cause) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := keys{"/p"}
	now, live, begun := map[string]int{}, map[nonce]string{}, map[string]nonce{}
	for _, kv := range e.Locked(k.users()) {
		user, _, _ := k.split(kv.Key)
		now[user]++
		live[headOf(kv.Value).Nonce] = user
		s.leases[headOf(kv.Value).Nonce] = kv.Lease
	}
	for n, user := range live {
		if _, known := s.puts[n]; known {
			continue
		}
		s.puts[n], begun[user] = put{time.Now(), now[user]}, n
		if now[user] > s.limit {
			s.faultLocked("%s has %d streams of %d", user, now[user], s.limit)
		}
	}
	for n, user := range s.live {
		if live[n] != "" {
			continue
		}
		s.gone[n] = why
		if why != etcdsim.Written || !s.held[n] {
			continue
		}
		if begun[user] == (nonce{}) {
			s.faultLocked("%s of %s was ended, and nobody asked for it", n, user)
		}
		if silent := time.Since(e.Renewed(s.leases[n])); silent < s.ttl {
			s.taken[begun[user]] = append(s.taken[begun[user]], taken{n, silent})
		}
	}
	s.live = live
	for i := range s.users {
		user := simUser(i)
		if all := s.spans[user]; len(all) == 0 || all[len(all)-1].n != now[user] {
			s.spans[user] = append(all, span{time.Now(), now[user]})
		}
	}
}

func simUser(i int) string { return fmt.Sprint("u", i) }

// counts are how many streams a user had since some time, one after the other.
func (s *sim) counts(user string, since time.Time) []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, all := []int{0}, s.spans[user] // nobody has streams before the first
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
		simConfig: cfg, etcd: etcdsim.New(), spans: map[string][]span{}, puts: map[nonce]put{},
		leases: map[nonce]int64{}, taken: map[nonce][]taken{}, gone: map[nonce]etcdsim.Cause{}, held: map[nonce]bool{},
		evicted: map[string]time.Time{}, done: map[string]int{},
	}
	s.etcd.Audit, s.etcd.Backlog = s.audit, cfg.backlog
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for !pauseFor(ctx, 500*time.Millisecond) {
			s.etcd.Tick()
		}
	})
	serving, drain := context.WithCancel(ctx)
	var nodes sync.WaitGroup
	for i := range cfg.nodesN {
		link := &etcdsim.Link{Etcd: s.etcd, Seed: cfg.seed + uint64(i), Delay: cfg.delay, Lost: cfg.lost, Lag: cfg.lag}
		l, err := New(Etcd{KV: link.KV(), Lease: link.Lease(), Watch: link.Watcher()}, Config{
			Prefix: "/p", Limit: cfg.limit, TTL: cfg.ttl, Secret: []byte("0123456789abcdef"), Cooldown: cfg.ttl / 2,
			Outage: cfg.outage,
		})
		require.NoError(t, err)
		s.nodes, s.links = append(s.nodes, l), append(s.links, link)
		nodes.Go(func() {
			if err := l.Run(serving); err != nil {
				s.fault("run: %v", err)
			}
		})
	}
	var evening sync.WaitGroup
	for i := range cfg.viewers {
		evening.Go(func() { s.watch(i) })
	}
	evening.Go(s.trouble)
	evening.Wait()
	s.silence()
	drain()
	nodes.Wait()
	time.Sleep(2*cfg.ttl + cfg.backlog + time.Second) // what a pool could not revoke any more
	if n := s.etcd.Leases(); n > 0 {
		s.fault("%d leases are left", n)
	}
	for _, kv := range s.etcd.Read("/p/") {
		s.fault("%s is left", kv.Key)
	}
	stop()
	running.Wait()
	return s
}

// silence waits until nothing may be left of those who went.
func (s *sim) silence() {
	for _, l := range s.links {
		l.Calm()
	}
	time.Sleep(2*s.ttl + s.backlog + 5*time.Second)
	for _, kv := range s.etcd.Read("/p/users/") {
		s.fault("%s is left, of %s", kv.Key, kv.Value)
	}
}

// trouble is what happens to the network.
func (s *sim) trouble() {
	luck := rand.New(rand.NewPCG(s.seed, 2))
	var all sync.WaitGroup
	at := func(do func()) {
		wait := time.Duration(luck.Int64N(int64(s.length)))
		all.Go(func() { time.Sleep(wait); do() })
	}
	for range s.cuts {
		link, d := s.links[luck.IntN(len(s.links))], time.Duration(luck.Int64N(int64(10*time.Second)))
		at(func() { link.Cut(true); time.Sleep(d); link.Cut(false) })
	}
	for range s.aways {
		d := time.Duration(luck.Int64N(int64(10 * time.Second)))
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

// usualEvenings are enough for every day; -rapid.checks asks for more.
const usualEvenings = 15

func checksAreSet() (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	return set
}

// Evenings of viewers who start, keep, stop, abandon and forget streams through nodes
// whose messages are lost, whose links are cut, and whose etcd changes its leader. At no
// revision is anybody over the limit; nothing that is answered is untrue; nothing ends
// that should live, and nothing stays that should not.
func TestSimulation(t *testing.T) {
	testSimulation(t, OutageDeny)
}

func testSimulation(t *testing.T, outage Outage) {
	t.Helper()
	calls, runs, done := int64(0), 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if runs >= usualEvenings && !checksAreSet() {
			return
		}
		cfg := drawSim(rt, outage)
		var s *sim
		etcdsim.Bubble(t, func(t *testing.T) { t.Helper(); s = simulate(t, cfg) })
		runs++
		for _, l := range s.links {
			calls += l.Calls.Load()
		}
		for what, n := range s.done {
			done[what] += n
		}
		if len(s.faults) > 0 {
			rt.Fatalf("%v", s.faults)
		}
	})
	t.Logf("%d evenings, %d calls of etcd, %v", runs, calls, done)
	require.NotZero(t, done["started"])
}

// The same where starts are admitted while etcd is away.
func TestSimulation_Admit(t *testing.T) {
	testSimulation(t, OutageAdmit)
}
