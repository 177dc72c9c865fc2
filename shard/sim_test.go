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

	"streamcount/internal/etcdsim"
	"streamcount/lease"
)

// A sim is a service that is spread anew again and again, on etcds made of maps, in
// virtual time: nodes hear of it late, messages are lost, moves are broken off.
type sim struct {
	simConfig
	etcds map[string]*etcdsim.Etcd
	nodes []*Router
	links []*etcdsim.Link

	mu     sync.Mutex
	faults []string
	homes  map[string]*contents       // by shard
	living map[string]map[string]bool // by user: what is in use anywhere
	done   map[string]int
}

// contents are what a shard has of each user.
type contents struct {
	streams, luggage map[string][]string // nonces by user
	arrived          map[string]bool
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

// audit looks at every revision of every shard. A stream that is under way from one to
// another counts all the time.
func (s *sim) audit(name string) func(*etcdsim.Etcd, etcdsim.Cause) {
	return func(e *etcdsim.Etcd, _ etcdsim.Cause) {
		c := &contents{map[string][]string{}, map[string][]string{}, map[string]bool{}}
		for _, kv := range e.Locked(simPath + "/users/") {
			user, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), simPath+"/users/"), "/")
			c.streams[user] = append(c.streams[user], nonceOf(kv.Value))
		}
		for _, kv := range e.Locked(simPath + "/departed/") {
			var luggage struct {
				Streams []struct{ Value []byte }
			}
			if err := json.Unmarshal(kv.Value, &luggage); err != nil {
				s.fault("luggage: %v", err)
			}
			for _, st := range luggage.Streams {
				user := strings.TrimPrefix(string(kv.Key), simPath+"/departed/")
				c.luggage[user] = append(c.luggage[user], nonceOf(st.Value))
			}
		}
		for _, kv := range e.Locked(simPath + "/arrived/") {
			c.arrived[strings.TrimPrefix(string(kv.Key), simPath+"/arrived/")] = true
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.homes[name] = c
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
		for _, c := range s.homes {
			arrived = arrived || c.arrived[user]
		}
		for _, c := range s.homes {
			for _, n := range c.streams[user] {
				now[n] = true
			}
			if arrived {
				continue // it has been unpacked
			}
			for _, n := range c.luggage[user] {
				now[n] = true
			}
		}
		if len(now) > s.limit && len(now) > len(s.living[user]) {
			s.faultLocked("%s has %d streams of %d", user, len(now), s.limit)
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

// node starts a router that hears of everything lag late.
func (s *sim) node(ctx context.Context, t *testing.T, i int, nodes *sync.WaitGroup) *Router {
	t.Helper()
	luck := rand.New(rand.NewPCG(s.seed, uint64(i)+100))
	lag := time.Duration(luck.Int64N(int64(2 * time.Second)))
	if i == s.nodesN { // whoever moves has to know the plans
		lag /= 4
	}
	r, err := New(Config{
		Shards: simShards("a", "b"), Mapped: true, TTL: simTTL, Log: slog.New(slog.DiscardHandler),
		Open: func(_ context.Context, sh Shard, _ bool) (*Opened, error) {
			link := &etcdsim.Link{
				Etcd: s.etcds[sh.Name], Seed: s.seed + uint64(i)<<8 + uint64(sh.Name[0]), Delay: s.delay, Lost: s.lost, Lag: lag,
			}
			s.mu.Lock()
			s.links = append(s.links, link)
			s.mu.Unlock()
			l, err := lease.New(lease.Etcd{KV: link.KV(), Lease: link.Lease(), Watch: link.Watcher()}, lease.Config{
				Prefix: simPath, Limit: s.limit, TTL: simTTL, Secret: []byte(testID),
			})
			return &Opened{Limiter: l}, err
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
		simConfig: cfg, etcds: map[string]*etcdsim.Etcd{}, homes: map[string]*contents{},
		living: map[string]map[string]bool{}, done: map[string]int{},
	}
	ctx, stop := context.WithCancel(context.Background())
	var running, nodes, evening sync.WaitGroup
	for _, name := range simNames {
		e := etcdsim.New()
		s.etcds[name], e.Audit = e, s.audit(name)
		running.Go(func() {
			for wait(ctx, 500*time.Millisecond) {
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
		evening.Go(func() { s.watch(i, over) })
	}
	s.move(mover)
	close(over)
	evening.Wait()
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

// move spreads users anew some times, the last time without an interruption.
func (s *sim) move(mover *Router) {
	luck := rand.New(rand.NewPCG(s.seed, 3))
	for i := range s.moves {
		time.Sleep(time.Duration(luck.Int64N(int64(10 * time.Second))))
		names := append([]string(nil), simNames...)
		luck.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		to := simShards(names[:1+luck.IntN(3)]...)
		for tries := 0; ; tries++ {
			ctx, cancel := context.WithCancel(context.Background())
			if tries < 2 && luck.IntN(2) == 0 { // it is broken off
				ctx, cancel = context.WithTimeout(ctx, time.Duration(luck.Int64N(int64(5*time.Second))))
			}
			err := mover.Move(ctx, to, func(Progress) {})
			cancel()
			if err == nil {
				s.count("moved")
				break
			}
			s.count("broken off")
			if tries > 200 {
				s.fault("move %d does not end: %v", i, err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *sim) watch(i int, over <-chan struct{}) {
	luck := rand.New(rand.NewPCG(s.seed, uint64(i)+10))
	user := simUser(i % s.users)
	pause := func(d time.Duration) bool {
		select {
		case <-over:
			return false
		case <-time.After(time.Duration(luck.Int64N(int64(d)))):
			return true
		}
	}
	for pause(time.Second) {
		asked, node := time.Now(), s.nodes[luck.IntN(len(s.nodes))]
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
		s.play(user, st.Stream.ID, asked.Add(good), luck, pause)
	}
}

// play keeps a stream that nobody but its viewer may end.
func (s *sim) play(user, id string, good time.Time, luck *rand.Rand, pause func(time.Duration) bool) {
	for n := luck.IntN(6); n > 0 && pause(simTTL/4); n-- {
		st, err := s.nodes[luck.IntN(len(s.nodes))].Heartbeat(context.Background(), user, id)
		switch {
		case errors.Is(err, lease.ErrEnded):
			if silent := time.Since(good); silent < simTTL {
				s.fault("%s of %s is gone %v after it was renewed: %v", id, user, silent, err)
			}
			s.count("lapsed")
			return
		case err != nil:
			s.count("beat failed")
		case st.Degraded:
			s.count("degraded")
		default:
			s.count("renewed")
			good = st.ExpiresAt.Add(-simTTL)
		}
	}
	if luck.IntN(4) == 0 {
		return // it dies
	}
	_, err := s.nodes[luck.IntN(len(s.nodes))].Stop(context.Background(), user, id)
	if errors.Is(err, lease.ErrEnded) && time.Since(good) < simTTL {
		s.fault("stop: %s of %s is gone %v after it was renewed: %v", id, user, time.Since(good), err)
	}
	s.count("stopped")
}

// usualEvenings are enough for every day; -rapid.checks asks for more.
const usualEvenings = 15

func checksAreSet() (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	return set
}

// Users are spread anew again and again, on nodes that hear of it late, over a network
// that loses messages, by a command that is broken off. Nobody is over his limit at any
// revision of any shard, and no stream ends that was not stopped or silent.
func TestSimulation(t *testing.T) {
	calls, runs, done := int64(0), 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		if runs >= usualEvenings && !checksAreSet() {
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
	t.Logf("%d evenings, %d calls of etcd, %v", runs, calls, done)
	require.NotZero(t, done["moved"])
}
