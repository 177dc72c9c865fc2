package torture

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A world is everything that is broken and looked at.
type world struct {
	cfg     worldConfig
	etcd    *cluster
	nodes   []*node
	watcher *watcher
	unwatch func()
	logs    string // directory of the processes' logs and of what checkers have to show

	beside sync.WaitGroup // faults that take time

	mu      sync.Mutex
	windows []window // of the round
}

type worldConfig struct {
	node nodeConfig
	logs string
}

// newEtcd starts a cluster for a test and waits until it works.
func newEtcd(t *testing.T, quota int64, fast bool, logs string) *cluster {
	t.Helper()
	c, err := newCluster(t.TempDir(), quota, fast)
	t.Cleanup(c.close)
	require.NoError(t, err, "start etcd")
	for _, m := range c.members {
		m.log = logFile(logs, m.name)
	}
	require.NoError(t, c.awaitHealthy(t.Context(), 30*time.Second))
	return c
}

// newWorld starts nodes on c, and a watcher.
func newWorld(t *testing.T, c *cluster, cfg worldConfig) *world {
	t.Helper()
	w := &world{cfg: cfg, etcd: c, logs: cfg.logs}
	w.watch(0)
	for i := range regions {
		n, err := newNode(c, i, cfg.logs, cfg.node)
		w.nodes = append(w.nodes, n)
		require.NoError(t, err)
	}
	if err := awaitReady(t.Context(), w.nodes, 30*time.Second); err != nil {
		w.stop()
		require.NoError(t, err)
	}
	return w
}

// watch begins to follow etcd after a revision.
func (w *world) watch(after int64) {
	w.watcher = &watcher{
		etcd: w.etcd, prefix: w.cfg.node.prefix, book: newBook(w.cfg.node.prefix, w.cfg.node.limit), last: after,
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { w.watcher.run(ctx) })
	w.unwatch = func() {
		cancel()
		watching.Wait()
	}
}

func (w *world) stop() {
	for _, n := range w.nodes {
		n.close()
	}
	w.unwatch()
}

// note adds a window in which something was broken.
func (w *world) note(win window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.windows = append(w.windows, win)
}

// takeWindows returns those of the round.
func (w *world) takeWindows() []window {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.windows
	w.windows = nil
	return out
}

// heal makes everything whole again and waits until it works. It returns an error
// if that needs hands.
func (w *world) heal(ctx context.Context) error {
	if err := w.makeWhole(); err != nil {
		return err
	}
	if err := w.etcd.awaitHealthy(ctx, 45*time.Second); err != nil {
		return err
	}
	return awaitReady(ctx, w.nodes, 30*time.Second)
}

func (w *world) makeWhole() error {
	for _, row := range w.etcd.links {
		for _, l := range row {
			l.heal()
		}
	}
	for _, n := range w.nodes {
		for _, l := range n.links {
			l.heal()
		}
		n.resume()
		if err := n.clock.set(0); err != nil {
			return err
		}
	}
	for _, m := range w.etcd.members {
		m.resume()
		if !m.alive() {
			if err := m.start(); err != nil {
				return err
			}
		}
	}
	for _, n := range w.nodes {
		if n.died() {
			return fmt.Errorf("%s has ended by itself: see %s", n.name, n.log)
		}
		if !n.alive() {
			if err := n.start(); err != nil {
				return err
			}
		}
	}
	return nil
}

// play is one round: crowds play for as long as load, while chaos does what it
// does; then everything has to get well, and to go away. It returns what the
// checkers have to say.
func (w *world) play(t *testing.T, r round) (*checker, []string) {
	t.Helper()
	h := &history{}
	calls := newCaller(w.nodes, h)
	defer calls.close()
	crowds := r.crowds(calls)
	r.begin(calls)
	ctx, cancel := context.WithTimeout(t.Context(), r.load)
	defer cancel()
	var playing sync.WaitGroup
	for i, c := range crowds {
		c.run(ctx, r.seed+uint64(i)<<20, &playing)
	}
	playing.Go(func() { r.changePlans(ctx, calls) })
	var trouble []string
	if r.chaos != nil {
		if err := r.chaos(ctx, w, rand.New(rand.NewPCG(r.seed, 7))); err != nil {
			trouble = append(trouble, err.Error())
		}
	}
	<-ctx.Done()
	playing.Wait()
	w.beside.Wait()
	// What still goes wrong a moment after everything is whole is a fault of ours.
	if err := w.heal(t.Context()); err != nil {
		trouble = append(trouble, err.Error())
	}
	if r.demand {
		trouble = append(trouble, w.demandService(calls, r.name)...)
	}
	trouble = perhapsLate(trouble)
	healed := now()
	calls.close()
	switch {
	case !r.brief:
		trouble = append(trouble, w.drain(t.Context(), healed)...)
	case r.cleanup > 0:
		wait(t.Context(), lateWork+r.cleanup+time.Second)
	}
	if err := w.watcher.awaitNow(t.Context()); err != nil {
		trouble = append(trouble, lateMark+err.Error())
	}
	trouble = append(trouble, w.readLogs()...)
	c := newChecker(w.watcher.record(), h, w.takeWindows())
	c.limit, c.ttl, c.cleanup = w.cfg.node.limit, w.cfg.node.ttl, r.cleanup
	found := append(trouble, c.checkAll(filepath.Join(w.logs, r.name))...)
	if len(found) > 0 {
		w.keep(r, h, c, found)
	}
	return c, found
}

// keep writes down what a failed round did.
func (w *world) keep(r round, h *history, c *checker, found []string) {
	dir := filepath.Join(w.logs, r.name)
	_ = os.MkdirAll(dir, 0o755)
	var b strings.Builder
	for _, o := range h.ops {
		fmt.Fprintln(&b, o)
	}
	_ = os.WriteFile(filepath.Join(dir, "history.txt"), []byte(b.String()), 0o644)
	b.Reset()
	for _, l := range c.lives {
		fmt.Fprintln(&b, l)
	}
	_ = os.WriteFile(filepath.Join(dir, "streams.txt"), []byte(b.String()), 0o644)
	windows, _ := json.MarshalIndent(c.windows, "", " ")
	_ = os.WriteFile(filepath.Join(dir, "faults.json"), windows, 0o644)
	_ = os.WriteFile(filepath.Join(dir, "found.txt"), []byte(strings.Join(found, "\n")), 0o644)
	machine, _ := json.Marshal(h.ops)
	_ = os.WriteFile(filepath.Join(dir, "history.json"), machine, 0o644)
}

// A round is some users' whole life.
type round struct {
	name    string
	seed    uint64
	load    time.Duration
	busy    int // users whose clients are in each other's way
	quiet   int // users who mostly watch
	style   style
	chaos   func(context.Context, *world, *rand.Rand) error
	cleanup time.Duration // see checker
	demand  bool          // everything must work at once when all is whole
	brief   bool          // do not wait until everything has gone away
}

// planName is the plan of the users of a round who have one.
func planName(user string) string {
	name, _, _ := strings.Cut(user, "-")
	return name + "-family"
}

func (r round) crowds(calls *caller) []*crowd {
	var out []*crowd
	for i := range r.busy + r.quiet {
		c := &crowd{
			user: fmt.Sprintf("%s-%03d", r.name, i), caller: calls, family: i%4 == 0, style: r.style, kept: map[int]bool{},
		}
		if i >= r.busy {
			c.style.players, c.style.think, c.style.weights = 1, 8*c.style.think, quietMoves
			c.family = false
		}
		out = append(out, c)
	}
	for _, c := range out {
		c.all = out
	}
	return out
}

// begin makes the round's plan.
func (r round) begin(calls *caller) {
	for i := 0; ; i++ {
		o := &op{Kind: kindPlan, Node: i % len(calls.nodes), Plan: planName(r.name + "-"), Limit: 2, Evict: true}
		r.setPlan(calls, o)
		if o.Status == 200 {
			return
		}
	}
}

func (r round) setPlan(calls *caller, o *op) {
	onLimit := "deny"
	if o.Evict {
		onLimit = "replace-oldest"
	}
	calls.do(context.Background(), o, request{
		http.MethodPut, "/plans/" + o.Plan, fmt.Sprintf(`{"limit":%d,"onLimit":"%s"}`, o.Limit, onLimit), 0,
	})
}

// changePlans changes the plan now and then.
func (r round) changePlans(ctx context.Context, calls *caller) {
	rng := rand.New(rand.NewPCG(r.seed, 99))
	for !wait(ctx, 300*time.Millisecond+time.Duration(rng.Int64N(int64(time.Second)))) {
		r.setPlan(calls, &op{
			Kind: kindPlan, Node: rng.IntN(len(calls.nodes)), Plan: planName(r.name + "-"), Limit: 1 + rng.IntN(3),
			Evict: rng.IntN(2) == 0,
		})
	}
}
