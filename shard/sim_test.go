package shard

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/retry"
	"streamcount/internal/testing/etcdsim"
	"streamcount/lease"
)

// A sim is a service with repeated migrations, on simulated etcds, in virtual time. Nodes
// receive the map late, messages are lost, migrations are interrupted.
type sim struct {
	simConfig
	etcds map[string]*etcdsim.Etcd
	nodes []*Router
	links []*etcdsim.Link

	mu     sync.Mutex
	faults []string
	shards map[string]*contents       // by shard
	living map[string]map[string]bool // by user: the live streams on any shard
	done   map[string]int
}

// contents are a shard's streams and exported streams of each user.
type contents struct {
	streams, exported map[string][]string // nonces by user
	arrived           map[string]bool
}

type simConfig struct {
	seed                  uint64
	limit, users, viewers int
	nodesN, moves         int
	delay                 time.Duration
	lost                  float64
}

const (
	simTTL  = 20 * time.Second
	simPath = "/p"
)

var simNames = []string{"a", "b", "c"}

func drawSim(t *rapid.T) simConfig {
	return simConfig{
		seed: rapid.Uint64().Draw(t, "seed"), limit: rapid.IntRange(1, 3).Draw(t, "limit"),
		users: rapid.IntRange(2, 8).Draw(t, "users"), viewers: rapid.IntRange(6, 24).Draw(t, "viewers"),
		nodesN: rapid.IntRange(2, 4).Draw(t, "nodes"), moves: rapid.IntRange(1, 4).Draw(t, "moves"),
		delay: time.Duration(rapid.IntRange(0, 100).Draw(t, "delay")) * time.Millisecond,
		lost:  float64(rapid.IntRange(0, 8).Draw(t, "lost")) / 100,
	}
}

func (s *sim) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faultLocked(format, args...)
}

func (s *sim) faultLocked(format string, args ...any) {
	if len(s.faults) < 5 {
		at := time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
		s.faults = append(s.faults, fmt.Sprintf("%v: ", at)+fmt.Sprintf(format, args...))
	}
}

func (s *sim) count(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[what]++
}

// audit checks every revision of every shard. A stream that is being moved counts all the time.
func (s *sim) audit(name string) func(*etcdsim.Etcd, etcdsim.Cause) {
	return func(e *etcdsim.Etcd, _ etcdsim.Cause) {
		c := &contents{map[string][]string{}, map[string][]string{}, map[string]bool{}}
		for _, kv := range e.Locked(simPath + "/users/") {
			user, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), simPath+"/users/"), "/")
			c.streams[user] = append(c.streams[user], nonceOf(kv.Value))
		}
		for _, kv := range e.Locked(simPath + "/departed/") {
			var exported struct {
				Streams []struct{ Value []byte }
			}
			if err := json.Unmarshal(kv.Value, &exported); err != nil {
				s.fault("exported: %v", err)
			}
			for _, st := range exported.Streams {
				user := strings.TrimPrefix(string(kv.Key), simPath+"/departed/")
				c.exported[user] = append(c.exported[user], nonceOf(st.Value))
			}
		}
		for _, kv := range e.Locked(simPath + "/arrived/") {
			c.arrived[strings.TrimPrefix(string(kv.Key), simPath+"/arrived/")] = true
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.shards[name] = c
		s.addUp()
	}
}

func nonceOf(value []byte) string {
	var r struct{ N string }
	if err := json.Unmarshal(value, &r); err != nil {
		return "none: " + err.Error()
	}
	return r.N
}

func (s *sim) addUp() {
	for i := range s.users {
		user, now, arrived := simUser(i), map[string]bool{}, false
		for _, c := range s.shards {
			arrived = arrived || c.arrived[user]
		}
		for _, c := range s.shards {
			for _, n := range c.streams[user] {
				now[n] = true
			}
			if arrived {
				continue // the import has deleted it
			}
			for _, n := range c.exported[user] {
				now[n] = true
			}
		}
		if len(now) > s.limit && len(now) > len(s.living[user]) {
			s.faultLocked("%s has %d streams, the limit is %d", user, len(now), s.limit)
		}
		s.living[user] = now
	}
}

func simUser(i int) string { return fmt.Sprint("u", i) }

func simShards(names ...string) []Shard {
	var out []Shard
	for _, n := range names {
		out = append(out, Shard{n, []string{n}})
	}
	return out
}

// node starts a router whose watch events arrive lag late.
func (s *sim) node(ctx context.Context, t *testing.T, i int, nodes *sync.WaitGroup) *Router {
	t.Helper()
	rng := rand.New(rand.NewPCG(s.seed, uint64(i)+100))
	lag := time.Duration(rng.Int64N(int64(2 * time.Second)))
	if i == s.nodesN { // the process that migrates needs the plans
		lag /= 4
	}
	r, err := New(Config{
		Shards: simShards("a", "b"), Mapped: true, TTL: simTTL, Log: slog.New(slog.DiscardHandler),
		Open: func(_ context.Context, sh Shard, _ bool) (*Connection, error) {
			link := &etcdsim.Link{
				Etcd: s.etcds[sh.Name], Seed: s.seed + uint64(i)<<8 + uint64(sh.Name[0]), Delay: s.delay, Lost: s.lost, Lag: lag,
			}
			s.mu.Lock()
			s.links = append(s.links, link)
			s.mu.Unlock()
			l, err := lease.New(lease.Etcd{KV: link.KV(), Lease: link.Lease(), Watch: link.Watcher()}, lease.Config{
				Prefix: simPath, Limit: s.limit, TTL: simTTL, Secret: []byte(testID),
			})
			return &Connection{Limiter: l}, err
		},
	})
	require.NoError(t, err)
	nodes.Go(func() {
		if err := r.Run(ctx); err != nil {
			s.fault("run: %v", err)
		}
	})
	return r
}

func simulate(t *testing.T, cfg simConfig) *sim {
	t.Helper()
	s := &sim{
		simConfig: cfg, etcds: map[string]*etcdsim.Etcd{}, shards: map[string]*contents{},
		living: map[string]map[string]bool{}, done: map[string]int{},
	}
	ctx, stop := context.WithCancel(context.Background())
	var running, nodes, viewers sync.WaitGroup
	for _, name := range simNames {
		e := etcdsim.New()
		s.etcds[name], e.Audit = e, s.audit(name)
		running.Go(func() {
			for retry.Sleep(ctx, 500*time.Millisecond) == nil {
				e.Tick()
			}
		})
	}
	serving, drain := context.WithCancel(ctx)
	for i := range cfg.nodesN {
		s.nodes = append(s.nodes, s.node(serving, t, i, &nodes))
	}
	mover := s.node(serving, t, cfg.nodesN, &nodes)
	for _, r := range append(s.nodes, mover) {
		<-r.Ready()
	}
	over := make(chan struct{})
	for i := range cfg.viewers {
		viewers.Go(func() { s.watch(i, over) })
	}
	s.move(mover)
	close(over)
	viewers.Wait()
	time.Sleep(2*simTTL + 5*time.Second)
	drain()
	nodes.Wait()
	for name, e := range s.etcds {
		for _, prefix := range []string{"/users/", "/departed/", "/arrived/"} {
			for _, kv := range e.Read(simPath + prefix) {
				s.fault("%s is left on %s", kv.Key, name)
			}
		}
	}
	stop()
	running.Wait()
	return s
}

// move migrates users several times, the last time without an interruption.
func (s *sim) move(mover *Router) {
	rng := rand.New(rand.NewPCG(s.seed, 3))
	for i := range s.moves {
		time.Sleep(time.Duration(rng.Int64N(int64(10 * time.Second))))
		names := append([]string(nil), simNames...)
		rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		to := simShards(names[:1+rng.IntN(3)]...)
		for tries := 0; ; tries++ {
			ctx, cancel := context.WithCancel(context.Background())
			if tries < 2 && rng.IntN(2) == 0 { // interrupt it
				ctx, cancel = context.WithTimeout(ctx, time.Duration(rng.Int64N(int64(5*time.Second))))
			}
			err := mover.Move(ctx, to, func(Progress) {})
			cancel()
			if err == nil {
				s.count("moved")
				break
			}
			s.count("interrupted")
			if tries > 200 {
				s.fault("move %d does not end: %v", i, err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *sim) watch(i int, over <-chan struct{}) {
	rng := rand.New(rand.NewPCG(s.seed, uint64(i)+10))
	user := simUser(i % s.users)
	pause := func(d time.Duration) bool {
		select {
		case <-over:
			return false
		case <-time.After(time.Duration(rng.Int64N(int64(d)))):
			return true
		}
	}
	for pause(time.Second) {
		asked, node := time.Now(), s.nodes[rng.IntN(len(s.nodes))]
		st, err := node.Start(context.Background(), user, lease.Request{})
		switch {
		case errors.Is(err, lease.ErrLimit):
			s.count("refused")
			continue
		case err != nil:
			s.count("failed")
			continue
		}
		s.count("started")
		good := min(st.Stream.ExpiresAt.Sub(asked), simTTL) - simTTL
		s.play(user, st.Stream.ID, asked.Add(good), rng, pause)
	}
}

// heartbeat sends a heartbeat alone, or in a batch with heartbeats of other users.
func (s *sim) heartbeat(node *Router, user, id string, rng *rand.Rand) (lease.Stream, error) {
	if rng.IntN(2) == 0 {
		return node.Heartbeat(context.Background(), user, id)
	}
	batch := []lease.HeartbeatRequest{{User: user + "-1", ID: id}, {User: user, ID: id}, {User: user + "-2", ID: id}, {User: user, ID: id}}
	results := node.Heartbeats(context.Background(), batch)
	for i, r := range results {
		if batch[i].User != user && r.Err == nil {
			s.fault("%s of %s was accepted for user %s", id, user, batch[i].User)
		}
	}
	if (results[1].Err == nil) != (results[3].Err == nil) {
		s.fault("%s of %s has two results in one batch: %v, %v", id, user, results[1].Err, results[3].Err)
	}
	r := results[1]
	return lease.Stream{ID: id, User: user, ExpiresAt: r.ExpiresAt, TTL: r.TTL, Degraded: r.Degraded}, r.Err
}

// play renews a stream that only its viewer may end.
func (s *sim) play(user, id string, good time.Time, rng *rand.Rand, pause func(time.Duration) bool) {
	for n := rng.IntN(6); n > 0 && pause(simTTL/4); n-- {
		st, err := s.heartbeat(s.nodes[rng.IntN(len(s.nodes))], user, id, rng)
		switch {
		case errors.Is(err, lease.ErrEnded):
			if silent := time.Since(good); silent < simTTL {
				s.fault("%s of %s is gone %v after it was renewed: %v", id, user, silent, err)
			}
			s.count("expired")
			return
		case err != nil:
			s.count("heartbeat failed")
		case st.Degraded:
			s.count("degraded")
		default:
			s.count("renewed")
			good = st.ExpiresAt.Add(-simTTL)
		}
	}
	if rng.IntN(4) == 0 {
		return // the viewer crashes
	}
	_, err := s.nodes[rng.IntN(len(s.nodes))].Stop(context.Background(), user, id)
	if errors.Is(err, lease.ErrEnded) && time.Since(good) < simTTL {
		s.fault("stop: %s of %s is gone %v after it was renewed: %v", id, user, time.Since(good), err)
	}
	s.count("stopped")
}

// defaultRuns is the number of simulations of a test run; -rapid.checks sets another.
const defaultRuns = 15

func checksAreSet() (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	return set
}

// Repeated migrations by a command that is interrupted, on nodes that receive the map late,
// over a network that loses messages. No user is over the limit at any revision of any shard,
// and no stream ends that was not stopped or silent.
func TestSimulation(t *testing.T) {
	calls, runs, done := int64(0), 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if runs >= defaultRuns && !checksAreSet() {
			return
		}
		cfg := drawSim(rt)
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
			rt.Fatalf("%s", strings.Join(s.faults, "\n"))
		}
	})
	t.Logf("%d runs, %d calls of etcd, %v", runs, calls, done)
	require.NotZero(t, done["moved"])
}
