//go:build linux

package torture

import (
	"context"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

var withMutants = flag.Bool("torture.mutants", false, "check that the checkers find deliberate bugs")

// A mutant is a version of the service with one deliberate bug, which a checker must find.
type mutant struct {
	name    string
	scene   string // the scene in which a checker finds it
	patches []patch
}

// A patch replaces old, which must occur once in the file, by new. MUTANT in new becomes the
// condition that this mutant is selected.
type patch struct{ file, old, new string }

// patchedSources returns, by path, every source file that a mutant changes, with the
// patches of all mutants applied. Each mutant is behind its own condition, so that one
// binary contains all of them.
func patchedSources(t *testing.T) map[string]string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	require.NoError(t, err)
	texts := map[string]string{}
	for i, m := range mutants {
		for _, p := range m.patches {
			path := filepath.Join(root, p.file)
			if _, read := texts[path]; !read {
				source, err := os.ReadFile(path)
				require.NoError(t, err, "mutant %q", m.name)
				texts[path] = string(source)
			}
			if !assert.Equal(t, 1, strings.Count(texts[path], p.old),
				"mutant %q: the patched text must occur once in %s:\n%s", m.name, p.file, p.old) {
				continue
			}
			change := strings.ReplaceAll(p.new, "MUTANT", fmt.Sprintf("mutant == %d", i+1))
			texts[path] = strings.Replace(texts[path], p.old, change, 1)
			dir := filepath.Dir(path)
			texts[filepath.Join(dir, "mutant.go")] = "package " + filepath.Base(dir) + `

import (
	"os"
	"strconv"
)

var mutant, _ = strconv.Atoi(os.Getenv("` + mutantVariable + `"))
`
		}
	}
	return texts
}

// buildMutants builds the binary that contains all mutants: go build reads the patched
// sources instead of the real ones.
func buildMutants(t *testing.T) string {
	t.Helper()
	binary, err := buildWith(writePatched(t))
	require.NoError(t, err, "the mutants do not compile")
	return binary
}

// writePatched writes the patched sources to files, and returns these by the paths that they
// replace.
func writePatched(t *testing.T) map[string]string {
	t.Helper()
	texts := patchedSources(t)
	require.False(t, t.Failed(), "some patches do not match")
	dir := t.TempDir()
	replace := map[string]string{}
	for path, text := range texts {
		changed := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		require.NoError(t, os.WriteFile(changed, []byte(text), 0o600))
		replace[path] = changed
	}
	return replace
}

const mutantVariable = "TORTURE_MUTANT" // without the prefix of the service's own variables, which it would reject

// A scene is a load with at most one fault in which checkers find bugs of one kind quickly.
type scene struct {
	round round
	ttl   time.Duration
	tries int
}

func scenes() map[string]scene {
	with := func(r round, load time.Duration, begin func(*injection)) round {
		r.load, r.chaos = load, constant(begin)
		return r
	}
	conflicts := round{
		busy: 3, load: 2 * time.Second,
		behavior: behavior{players: 5, think: 25 * time.Millisecond, disconnects: 0.02, heartbeatInterval: 1200 * time.Millisecond, sessions: 2, batches: 0.5},
	}
	oneUser := conflicts
	oneUser.busy, oneUser.behavior.players = 1, 4
	oneNode := conflicts
	oneNode.behavior.oneNode, oneNode.behavior.players, oneNode.behavior.think = true, 8, 10*time.Millisecond
	oneNode.behavior.weights = map[string]int{"start": 10, "evict": 5, "session": 3, "stop at once": 12, "list": 1}
	evictions := conflicts
	evictions.busy, evictions.behavior.players, evictions.behavior.think = 6, 6, 10*time.Millisecond
	evictions.behavior.weights = map[string]int{"evict": 15, "replace": 10, "session": 5, "heartbeat": 30}
	ruleChanges := with(conflicts, 2*time.Second, delayWatch)
	ruleChanges.behavior.weights = map[string]int{"start": 20, "limit": 12, "stop": 8, "session": 4, "list": 2}
	heartbeats := conflicts
	heartbeats.busy, heartbeats.load, heartbeats.behavior.think, heartbeats.behavior.oneNode = 5, 4*time.Second, 300*time.Millisecond, true
	heartbeats.behavior.weights = map[string]int{"start": 3, "heartbeat": 20}
	batches := heartbeats
	batches.behavior.batches = 1
	batches.behavior.weights = map[string]int{"start": 3, "batch": 5}
	// Many users who mostly start, so that few other calls end the streams of failed starts.
	disconnects := conflicts
	disconnects.busy, disconnects.load, disconnects.cleanup = 16, 1500*time.Millisecond, 4*time.Second
	disconnects.behavior.players, disconnects.behavior.think, disconnects.behavior.disconnects = 2, 150*time.Millisecond, 0.4
	disconnects.behavior.weights = map[string]int{"start": 10, "session": 4, "stop": 6}
	unansweredStarts := with(disconnects, disconnects.load, loseReplies)
	unansweredStarts.behavior.disconnects = 0
	disconnects = with(disconnects, disconnects.load, delayReplies)
	pausedFollowers := with(conflicts, 6*time.Second, pauseFollowers)
	pausedFollowers.busy, pausedFollowers.behavior.players, pausedFollowers.behavior.think = 12, 3, 80*time.Millisecond
	pausedFollowers.behavior.weights = map[string]int{"session": 6, "stop": 8, "heartbeat after end": 20}
	several := conflicts
	several.busy, several.several, several.behavior.players, several.behavior.think = 0, 6, 5, 15*time.Millisecond
	several.behavior.weights = severalActions
	severalChanges := with(several, 2*time.Second, delayWatch)
	severalChanges.behavior.weights = map[string]int{"start": 10, "session": 6, "evict": 10, "several limits": 14, "stop": 8}
	// Streams begin, then two nodes lose etcd, and clients send them stops and heartbeats.
	lateOutage := with(conflicts, 8*time.Second, cutOffLater)
	lateOutage.busy, lateOutage.behavior.players, lateOutage.behavior.think = 16, 6, 200*time.Millisecond
	lateOutage.behavior.weights = map[string]int{"start": 4, "session": 4, "stop": 6, "heartbeat": 20}
	clockSteps := with(heartbeats, 9*time.Second, setClocks)
	return map[string]scene{
		"conflicts":         {conflicts, 5 * time.Second, 5},
		"one user":          {oneUser, 5 * time.Second, 5},
		"one node":          {oneNode, 5 * time.Second, 5},
		"evictions":         {evictions, 5 * time.Second, 8},
		"heartbeats":        {heartbeats, 5 * time.Second, 4},
		"batches":           {batches, 5 * time.Second, 4},
		"lost replies":      {with(conflicts, 2*time.Second, loseReplies), 5 * time.Second, 5},
		"delayed watch":     {with(conflicts, 2*time.Second, delayWatch), 5 * time.Second, 5},
		"paused followers":  {pausedFollowers, 5 * time.Second, 4},
		"rule changes":      {ruleChanges, 5 * time.Second, 8},
		"several limits":    {several, 5 * time.Second, 8},
		"several changes":   {severalChanges, 5 * time.Second, 8},
		"clock steps":       {clockSteps, 5 * time.Second, 3},
		"outage":            {with(conflicts, 5*time.Second, cutOff), 5 * time.Second, 2},
		"late outage":       {lateOutage, 5 * time.Second, 3},
		"disconnects":       {disconnects, 20 * time.Second, 4},
		"unanswered starts": {unansweredStarts, 20 * time.Second, 4},
	}
}

// constant returns a function that injects one fault for a whole round.
func constant(begin func(*injection)) func(context.Context, *testbed, *rand.Rand) error {
	return func(ctx context.Context, w *testbed, rng *rand.Rand) error {
		win := window{Name: "constant", From: now(), Nodes: []int{0, 1, 2}}
		begin(&injection{w, ctx, rng, time.Minute})
		<-ctx.Done()
		w.faultTasks.Wait() // they resume what they have paused
		err := w.heal(context.WithoutCancel(ctx))
		win.To = now()
		w.addWindow(win)
		return err
	}
}

func loseReplies(t *injection) {
	for i := range t.nodes {
		t.background(func() { loseRepeatedly(t.ctx, t.nodes[i], inbound, uint64(i)+t.rng.Uint64()) })
	}
}

// delayReplies delays all replies of etcd, so that a client which disconnects does so before
// its start is answered.
func delayReplies(t *injection) {
	for _, n := range t.nodes {
		for _, l := range n.links {
			l.slow(inbound, 40*ms, 0)
		}
	}
}

// setClocks sets the clocks of all nodes an hour ahead.
func setClocks(t *injection) {
	t.background(func() {
		wait(t.ctx, time.Second)
		for _, n := range t.nodes {
			_ = n.clock.set(time.Hour) // heal sets it too, and returns the error if that fails
		}
	})
}

// pauseFollowers pauses one follower at a time, for less time than a node needs to detect it.
// A node that watches through this follower has an old replica, and writes through the leader.
func pauseFollowers(t *injection) {
	t.background(func() {
		for t.ctx.Err() == nil {
			m := t.etcd.members[t.follower()]
			m.pause()
			wait(t.ctx, 2500*ms)
			m.resume()
			wait(t.ctx, 300*ms)
		}
	})
}

func delayWatch(t *injection) {
	for _, l := range t.nodes[0].links {
		l.slow(inbound, 400*ms, 0)
	}
}

func cutOff(t *injection) {
	for _, n := range t.nodes[:2] {
		for _, l := range n.links {
			cut(l)
		}
	}
}

// cutOffLater is cutOff for nodes that already serve streams.
func cutOffLater(t *injection) {
	t.background(func() {
		wait(t.ctx, 1500*ms)
		cutOff(t)
	})
}

// run runs rounds of a scene until a checker finds something, but at most tries of them.
// control is set if there is no mutant, and nothing may be found. Then findings that a slow
// machine can cause do not count if the machine stalled.
func (s scene) run(t *testing.T, c *cluster, node nodeConfig, name string, control bool) (found []string) {
	t.Helper()
	node.prefix, node.ttl, node.limit = "/"+name, s.ttl, 2
	w := newTestbed(t, c, testbedConfig{logs: artifactDir(t), node: node})
	defer w.stop()
	// On a slow machine less happens in a round, so there are more rounds before a bug
	// counts as not found.
	tries := s.tries
	if !control {
		tries *= 3
	}
	for i := 0; i < tries && len(found) == 0; i++ {
		r := s.round
		r.name, r.seed, r.skipDrain = fmt.Sprintf("%s%d", name, i), uint64(i+1), true
		checked, all := w.playRound(t, r)
		found = checked.found
		require.True(t, onlyLate(all[:len(all)-len(found)]), "found by something other than a checker: %v", all)
		if control {
			found = checked.stall.judge(t, found)
		}
	}
	return found
}

// TestMutants_PatchesMatch checks that each patch of a mutant matches its source once, and that
// the result is Go. Rename or move code together with the patches in bugs_test.go.
func TestMutants_PatchesMatch(t *testing.T) {
	for path, text := range patchedSources(t) {
		_, err := parser.ParseFile(token.NewFileSet(), path, text, 0)
		assert.NoError(t, err)
	}
}

// TestMutants checks that a checker finds each deliberate bug in its scene, and that no checker
// finds anything in any scene without a bug.
func TestMutants(t *testing.T) {
	longtest.Require(t)
	if !*withMutants {
		t.Skip("it takes minutes: run .ci/mutants")
	}
	binary := buildMutants(t)
	c := newEtcd(t, 0, true, t.TempDir())
	all := scenes()
	used := map[string]bool{}
	for i, m := range mutants {
		if m.simulated() {
			continue
		}
		used[m.scene] = true
		t.Run(m.name, func(t *testing.T) {
			if m.scene == "clock steps" && !canSetClocks {
				t.Skip("the clock can be set on amd64 only")
			}
			began := time.Now()
			s, known := all[m.scene]
			require.True(t, known, "no scene %q", m.scene)
			env := []string{fmt.Sprintf("%s=%d", mutantVariable, i+1)}
			found := s.run(t, c, nodeConfig{binary: binary, env: env}, fmt.Sprintf("m%d", i+1), false)
			require.NotEmpty(t, found, "no checker has found the mutant")
			first, _, _ := strings.Cut(found[0], "\n")
			t.Logf("found in %.1f s: %s", time.Since(began).Seconds(), first)
		})
	}
	for name, s := range all {
		t.Run("none, "+name, func(t *testing.T) {
			assert.True(t, used[name], "no mutant uses this scene")
			s.tries = 1
			report(t, "no mutant", s.run(t, c, nodeConfig{binary: binary}, "none-"+strings.ReplaceAll(name, " ", "-"), true))
		})
	}
}
