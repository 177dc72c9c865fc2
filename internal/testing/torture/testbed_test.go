//go:build linux

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

// patience is the deadline of conditions that must become true. It is long, so that no test
// fails because the machine is slow.
const patience = 2 * time.Minute

// A testbed has the etcd cluster, the nodes, and the watcher of a test.
type testbed struct {
	cfg     testbedConfig
	etcd    *cluster
	nodes   []*node
	watcher *watcher
	unwatch func()
	logs    string // directory of logs and of the output of checkers

	faultTasks sync.WaitGroup // faults that change over time

	mu      sync.Mutex
	windows []window // of the round
}

type testbedConfig struct {
	node nodeConfig
	logs string
}

// newEtcd starts a cluster for a test and waits until it is healthy.
func newEtcd(t *testing.T, quota int64, fast bool, logs string) *cluster {
	t.Helper()
	c, err := newCluster(t.TempDir(), quota, fast)
	t.Cleanup(c.close)
	require.NoError(t, err, "start etcd")
	for _, m := range c.members {
		m.log = logFile(logs, m.name)
	}
	require.NoError(t, c.awaitHealthy(t.Context(), patience))
	return c
}

// newTestbed starts nodes on c, and a watcher.
func newTestbed(t *testing.T, c *cluster, cfg testbedConfig) *testbed {
	t.Helper()
	w := &testbed{cfg: cfg, etcd: c, logs: cfg.logs}
	w.watch(0)
	for i := range regions {
		n, err := newNode(c, i, cfg.logs, cfg.node)
		w.nodes = append(w.nodes, n)
		require.NoError(t, err)
	}
	if err := awaitReady(t.Context(), w.nodes, patience); err != nil {
		w.stop()
		require.NoError(t, err)
	}
	return w
}

// watch starts a watcher after a revision.
func (w *testbed) watch(after int64) {
	w.watcher = &watcher{
		etcd: w.etcd, prefix: w.cfg.node.prefix, revisions: newRevisionChecker(w.cfg.node.prefix, w.cfg.node.limit), last: after,
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { w.watcher.run(ctx) })
	w.unwatch = func() {
		cancel()
		watching.Wait()
	}
}

func (w *testbed) stop() {
	for _, n := range w.nodes {
		n.close()
	}
	w.unwatch()
}

// addWindow adds a window with a fault.
func (w *testbed) addWindow(win window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.windows = append(w.windows, win)
}

// takeWindows returns the windows of the round and removes them.
func (w *testbed) takeWindows() []window {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.windows
	w.windows = nil
	return out
}

// heal repairs everything and waits until it works. It returns an error if an operator
// would have to act.
func (w *testbed) heal(ctx context.Context) error {
	if err := w.repairAll(); err != nil {
		return err
	}
	if err := w.etcd.awaitHealthy(ctx, patience); err != nil {
		return err
	}
	return awaitReady(ctx, w.nodes, patience)
}

func (w *testbed) repairAll() error {
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
		if n.crashed() {
			return fmt.Errorf("%s has crashed: see %s", n.name, n.log)
		}
		if !n.alive() {
			if err := n.start(); err != nil {
				return err
			}
		}
	}
	return nil
}

// playRound runs one round: clients send requests for r.load while r.chaos injects faults.
// Afterwards everything must recover, and all streams must end. It returns the findings.
func (w *testbed) playRound(t *testing.T, r round) (*checker, []string) {
	t.Helper()
	stall := startStallMeter()
	defer stall.stop()
	h := &history{}
	calls := newCaller(w.nodes, h)
	defer calls.close()
	clients := r.clients(calls)
	r.begin(calls)
	ctx, cancel := context.WithTimeout(t.Context(), r.load)
	defer cancel()
	var playing sync.WaitGroup
	for i, c := range clients {
		c.run(ctx, r.seed+uint64(i)<<20, &playing)
	}
	playing.Go(func() { r.changePlans(ctx, calls) })
	var problems []string
	if r.chaos != nil {
		if err := r.chaos(ctx, w, rand.New(rand.NewPCG(r.seed, 7))); err != nil {
			problems = append(problems, err.Error())
		}
	}
	<-ctx.Done()
	playing.Wait()
	w.faultTasks.Wait()
	// After the repair everything must work.
	if err := w.heal(t.Context()); err != nil {
		problems = append(problems, err.Error())
	}
	if r.checkService {
		problems = append(problems, w.checkService(calls, r.name)...)
	}
	problems = markLate(problems)
	healed := now()
	calls.close()
	switch {
	case !r.skipDrain:
		problems = append(problems, w.drain(t.Context(), healed)...)
	case r.cleanup > 0:
		wait(t.Context(), lateWork+r.cleanup+time.Second)
	}
	if err := w.watcher.awaitLatest(t.Context()); err != nil {
		problems = append(problems, lateMark+err.Error())
	}
	problems = append(problems, w.readLogs()...)
	stall.stop()
	c := newChecker(w.watcher.record(), h, w.takeWindows())
	c.stall = stall
	c.limit, c.ttl, c.cleanup = w.cfg.node.limit, w.cfg.node.ttl, r.cleanup
	found := append(problems, c.checkAll(filepath.Join(w.logs, r.name))...)
	if len(found) > 0 {
		w.saveArtifacts(r, h, c, found)
	}
	return c, found
}

// saveArtifacts writes the history of a failed round to files.
func (w *testbed) saveArtifacts(r round, h *history, c *checker, found []string) {
	dir := filepath.Join(w.logs, r.name)
	_ = os.MkdirAll(dir, 0o755)
	var b strings.Builder
	for _, o := range h.ops {
		fmt.Fprintln(&b, o)
	}
	_ = os.WriteFile(filepath.Join(dir, "history.txt"), []byte(b.String()), 0o644)
	b.Reset()
	for _, l := range c.streams {
		fmt.Fprintln(&b, l)
	}
	_ = os.WriteFile(filepath.Join(dir, "streams.txt"), []byte(b.String()), 0o644)
	windows, _ := json.MarshalIndent(c.windows, "", " ")
	_ = os.WriteFile(filepath.Join(dir, "faults.json"), windows, 0o644)
	_ = os.WriteFile(filepath.Join(dir, "found.txt"), []byte(strings.Join(found, "\n")), 0o644)
	machine, _ := json.Marshal(h.ops)
	_ = os.WriteFile(filepath.Join(dir, "history.json"), machine, 0o644)
}

// A round is a period of load on new users.
type round struct {
	name         string
	seed         uint64
	load         time.Duration
	busy         int // number of users with conflicting clients
	quiet        int // number of users whose clients mostly send heartbeats
	several      int // number of users with several limits and conflicting clients
	behavior     behavior
	chaos        func(context.Context, *testbed, *rand.Rand) error
	cleanup      time.Duration // see checker
	checkService bool          // everything must work after the repair
	skipDrain    bool          // do not wait until all streams have ended
}

// planName is the name of the plan of a round.
func planName(user string) string {
	name, _, _ := strings.Cut(user, "-")
	return name + "-family"
}

func (r round) clients(calls *caller) []*userClients {
	var out []*userClients
	for i := range r.busy + r.quiet {
		c := &userClients{
			user: fmt.Sprintf("%s-%03d", r.name, i), caller: calls, hasPlan: i%4 == 0, behavior: r.behavior, heartbeating: map[int]bool{},
		}
		if i >= r.busy {
			c.behavior.players, c.behavior.think, c.behavior.weights = 1, 8*c.behavior.think, quietActions
			c.hasPlan = false
		}
		out = append(out, c)
	}
	out = append(out, r.severalClients(calls)...)
	for _, c := range out {
		c.all = out
	}
	return out
}

// begin creates the plans of the round.
func (r round) begin(calls *caller) {
	for _, c := range r.severalClients(calls) {
		c.setFirstPlan(r.seed)
	}
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

// changePlans changes the plan about once a second.
func (r round) changePlans(ctx context.Context, calls *caller) {
	rng := rand.New(rand.NewPCG(r.seed, 99))
	for !wait(ctx, 300*time.Millisecond+time.Duration(rng.Int64N(int64(time.Second)))) {
		r.setPlan(calls, &op{
			Kind: kindPlan, Node: rng.IntN(len(calls.nodes)), Plan: planName(r.name + "-"), Limit: 1 + rng.IntN(3),
			Evict: rng.IntN(2) == 0,
		})
	}
}
