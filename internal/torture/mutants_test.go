package torture

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var withMutants = flag.Bool("torture.mutants", false, "have the checkers find deliberate bugs")

// A mutant is the service with one deliberate bug, which a checker must find.
type mutant struct {
	name    string
	scene   string // in which it shows
	patches []patch
}

// A patch replaces the only place where a source says old. In what it is replaced
// by, MUTANT is a condition: that this mutant is wanted.
type patch struct{ file, old, new string }

// The bugs are all in one binary, each behind a condition, so that it is built
// once; go build takes the changed sources instead of the real ones. A patch that
// does not fit any more is an error: look at what has become of the line it was
// about.
func buildMutants(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	dir := t.TempDir()
	texts := map[string]string{}
	for i, m := range mutants {
		for _, p := range m.patches {
			path := filepath.Join(root, p.file)
			if _, read := texts[path]; !read {
				source, err := os.ReadFile(path)
				require.NoError(t, err)
				texts[path] = string(source)
			}
			require.Equal(t, 1, strings.Count(texts[path], p.old),
				"mutant %q: %s must say once:\n%s", m.name, p.file, p.old)
			wanted := fmt.Sprintf("mutant == %d", i+1)
			if filepath.Dir(p.file) != "lease" {
				wanted = fmt.Sprintf("lease.Mutant() == %d", i+1)
			}
			change := strings.ReplaceAll(p.new, "MUTANT", wanted)
			texts[path] = strings.Replace(texts[path], p.old, change, 1)
		}
	}
	texts[filepath.Join(root, "lease", "mutant.go")] = `package lease

import (
	"os"
	"strconv"
)

var mutant, _ = strconv.Atoi(os.Getenv("` + mutantVariable + `"))

func Mutant() int { return mutant }
`
	replace := map[string]string{}
	for path, text := range texts {
		changed := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		require.NoError(t, os.WriteFile(changed, []byte(text), 0o600))
		replace[path] = changed
	}
	binary, err := buildWith(replace)
	require.NoError(t, err, "the mutants do not compile")
	return binary
}

const mutantVariable = "TORTURE_MUTANT" // not one of the service's own, which it would look up

// A scene is where bugs of one kind show quickly: few users, all of whose clients
// are in each other's way, and one fault.
type scene struct {
	round round
	ttl   time.Duration
	tries int
}

func scenes() map[string]scene {
	with := func(r round, load time.Duration, begin func(*trouble)) round {
		r.load, r.chaos = load, constant(begin)
		return r
	}
	crowded := round{
		busy: 3, load: 2 * time.Second,
		style: style{players: 5, think: 25 * time.Millisecond, hangUp: 0.02, beats: 1200 * time.Millisecond, sessions: 2},
	}
	alone := crowded
	alone.busy, alone.style.players = 1, 4
	together := crowded
	together.style.oneNode, together.style.players, together.style.think = true, 8, 10*time.Millisecond
	together.style.weights = map[string]int{"start": 10, "evict": 5, "session": 3, "stop at once": 12, "list": 1}
	jealous := crowded
	jealous.busy, jealous.style.players, jealous.style.think = 6, 6, 10*time.Millisecond
	jealous.style.weights = map[string]int{"evict": 15, "replace": 10, "session": 5, "beat": 30}
	ruled := with(crowded, 2*time.Second, hearLate)
	ruled.style.weights = map[string]int{"start": 20, "limit": 12, "stop": 8, "session": 4, "list": 2}
	quiet := crowded
	quiet.busy, quiet.load, quiet.style.think, quiet.style.oneNode = 5, 4*time.Second, 300*time.Millisecond, true
	quiet.style.weights = map[string]int{"start": 3, "beat": 20}
	// Many users who mostly start, so that what is left of starts is left alone.
	hangs := crowded
	hangs.busy, hangs.load, hangs.cleanup = 16, 1500*time.Millisecond, 4*time.Second
	hangs.style.players, hangs.style.think, hangs.style.hangUp = 2, 150*time.Millisecond, 0.4
	hangs.style.weights = map[string]int{"start": 10, "session": 4, "stop": 6}
	unanswered := with(hangs, hangs.load, loseReplies)
	unanswered.style.hangUp = 0
	hangs = with(hangs, hangs.load, far)
	behind := with(crowded, 6*time.Second, pauseFollowers)
	behind.busy, behind.style.players, behind.style.think = 12, 3, 80*time.Millisecond
	behind.style.weights = map[string]int{"session": 6, "stop": 8, "dead beat": 20}
	clocks := with(quiet, 9*time.Second, setClocks)
	return map[string]scene{
		"crowded":    {crowded, 5 * time.Second, 5},
		"alone":      {alone, 5 * time.Second, 5},
		"together":   {together, 5 * time.Second, 5},
		"jealous":    {jealous, 5 * time.Second, 8},
		"quiet":      {quiet, 5 * time.Second, 4},
		"lossy":      {with(crowded, 2*time.Second, loseReplies), 5 * time.Second, 5},
		"late":       {with(crowded, 2*time.Second, hearLate), 5 * time.Second, 5},
		"behind":     {behind, 5 * time.Second, 4},
		"ruled":      {ruled, 5 * time.Second, 8},
		"clocks":     {clocks, 5 * time.Second, 3},
		"away":       {with(crowded, 5*time.Second, cutOff), 5 * time.Second, 2},
		"hung up":    {hangs, 20 * time.Second, 4},
		"unanswered": {unanswered, 20 * time.Second, 4},
	}
}

// constant has one fault for all of a round.
func constant(begin func(*trouble)) func(context.Context, *world, *rand.Rand) error {
	return func(ctx context.Context, w *world, rng *rand.Rand) error {
		win := window{Name: "constant", From: now(), Nodes: []int{0, 1, 2}}
		begin(&trouble{w, ctx, rng, time.Minute})
		<-ctx.Done()
		w.beside.Wait() // whoever pauses something resumes it
		err := w.heal(context.WithoutCancel(ctx))
		win.To = now()
		w.note(win)
		return err
	}
}

func loseReplies(t *trouble) {
	for i := range t.nodes {
		t.background(func() { loseAgain(t.ctx, t.nodes[i], back, uint64(i)+t.rng.Uint64()) })
	}
}

// far keeps starts under way for longer than those who hang up wait, who would else be
// answered now and then, and would not hear it.
func far(t *trouble) {
	for _, n := range t.nodes {
		for _, l := range n.links {
			l.slow(back, 40*ms, 0)
		}
	}
}

// setClocks sets all nodes' clocks an hour ahead.
func setClocks(t *trouble) {
	t.background(func() {
		wait(t.ctx, time.Second)
		for _, n := range t.nodes {
			_ = n.clock.set(time.Hour) // the round ends by setting it too, and says so if that fails
		}
	})
}

// pauseFollowers has one follower stand still at a time, for less than a node
// takes to notice: who watches it is behind, and writes through the leader.
func pauseFollowers(t *trouble) {
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

func hearLate(t *trouble) {
	for _, l := range t.nodes[0].links {
		l.slow(back, 400*ms, 0)
	}
}

func cutOff(t *trouble) {
	for _, n := range t.nodes[:2] {
		for _, l := range n.links {
			cut(l)
		}
	}
}

// watch plays scenes until a checker complains, or the tries are used up.
func (s scene) watch(t *testing.T, c *cluster, node nodeConfig, name string) (found []string) {
	t.Helper()
	node.prefix, node.ttl, node.limit = "/"+name, s.ttl, 2
	w := newWorld(t, c, worldConfig{logs: artifactDir(t), node: node})
	defer w.stop()
	for i := 0; i < s.tries && len(found) == 0; i++ {
		r := s.round
		r.name, r.seed, r.brief = fmt.Sprintf("%s%d", name, i), uint64(i+1), true
		checked, all := w.play(t, r)
		found = checked.found
		require.True(t, onlyLate(all[:len(all)-len(found)]), "something else than a checker complained: %v", all)
	}
	return found
}

// Each deliberate bug is found by a checker, in the scene where it shows; and
// without one nothing is found in any scene.
func TestMutants(t *testing.T) {
	need(t)
	if !*withMutants {
		t.Skip("it takes minutes: run .ci/mutants")
	}
	binary := buildMutants(t)
	c := newEtcd(t, 0, true, t.TempDir())
	all := scenes()
	used := map[string]bool{}
	for i, m := range mutants {
		used[m.scene] = true
		t.Run(m.name, func(t *testing.T) {
			if m.scene == "clocks" && !canSetClocks {
				t.Skip("clocks can be set on amd64 alone")
			}
			began := time.Now()
			s, known := all[m.scene]
			require.True(t, known, "no scene %q", m.scene)
			env := []string{fmt.Sprintf("%s=%d", mutantVariable, i+1)}
			found := s.watch(t, c, nodeConfig{binary: binary, env: env}, fmt.Sprintf("m%d", i+1))
			require.NotEmpty(t, found, "no checker found it")
			first, _, _ := strings.Cut(found[0], "\n")
			t.Logf("found in %.1f s: %s", time.Since(began).Seconds(), first)
		})
	}
	for name, s := range all {
		t.Run("none, "+name, func(t *testing.T) {
			assert.True(t, used[name], "no mutant shows in this scene")
			s.tries = 1
			report(t, "no mutant", s.watch(t, c, nodeConfig{binary: binary}, "none-"+strings.ReplaceAll(name, " ", "-")))
		})
	}
}
