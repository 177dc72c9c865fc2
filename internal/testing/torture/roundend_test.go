//go:build linux

package torture

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// drain waits until no key of any user is left. All clients have stopped.
func (w *testbed) drain(ctx context.Context, since time.Duration) []string {
	until := since + w.cfg.node.ttl + electionMs*time.Millisecond + 2*time.Second + lateSlack
	for now() < until {
		left, err := w.etcd.all.Get(ctx, w.cfg.node.prefix+"/users/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err == nil && left.Count == 0 {
			return nil
		}
		if wait(ctx, 50*time.Millisecond) {
			break
		}
	}
	for again := now() + patience; ; {
		left, err := w.etcd.all.Get(ctx, w.cfg.node.prefix+"/users/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		switch {
		case err == nil && left.Count == 0:
			return []string{fmt.Sprintf("%skeys were left until %.1f s after the repair", lateMark, (now() - since).Seconds())}
		case now() < again && !wait(ctx, 50*time.Millisecond):
			continue
		case err != nil:
			return []string{lateMark + "read the keys that are left: " + err.Error()}
		}
		var out []string
		for _, kv := range left.Kvs {
			out = append(out, fmt.Sprintf("left after all clients have stopped: %s", kv.Key))
		}
		return out
	}
}

// serviceCheckSuffix is part of the names of the users of checkService.
const serviceCheckSuffix = "-after"

// checkService checks that every node serves every call after the repair. It repeats the check
// for as long as patience, because the machine may be busy.
func (w *testbed) checkService(calls *caller, round string) (missing []string) {
	until := now() + patience
	for i := 0; i < 5 || now() < until; i++ {
		if missing = w.checkServiceOnce(calls, fmt.Sprint(round, serviceCheckSuffix, i)); len(missing) == 0 {
			return nil
		}
		time.Sleep(time.Second)
	}
	return missing
}

func (w *testbed) checkServiceOnce(calls *caller, prefix string) []string {
	var out []string
	first := len(calls.history.ops)
	for i := range w.nodes {
		c := &userClients{user: prefix + fmt.Sprint(i), caller: calls, heartbeating: map[int]bool{}}
		for range 5 {
			c.start(&op{User: c.user, Node: i}, nil, false, 0)
			if len(c.known) == 1 {
				c.heartbeat(c.known[0], i, 0)
				c.stop(c.known[0], i, 0)
			}
		}
	}
	ops := calls.history.ops[first:]
	for _, o := range ops {
		if o.Status != 200 || o.Degraded {
			out = append(out, "failed after the repair: "+o.String())
		}
	}
	if len(ops) != 15*len(w.nodes) {
		out = append(out, fmt.Sprintf("only %d of %d calls were answered after the repair", len(ops), 15*len(w.nodes)))
	}
	return out
}

// readLogs searches the logs of the nodes for panics and data races.
func (w *testbed) readLogs() []string {
	var out []string
	for _, n := range w.nodes {
		text, err := os.ReadFile(n.log)
		if err != nil {
			out = append(out, err.Error())
		}
		for _, bad := range []string{"DATA RACE", "panic", "fatal error"} {
			if strings.Contains(string(text), bad) {
				out = append(out, fmt.Sprintf("%s has logged %q: see %s", n.name, bad, n.log))
			}
		}
	}
	return out
}

// markLate marks problems that a slow machine can cause. Those are all except that a process
// crashed, or did not exit after SIGTERM.
func markLate(problems []string) []string {
	for i, what := range problems {
		if !strings.Contains(what, "crashed") && !strings.Contains(what, "did not exit") {
			problems[i] = lateMark + what
		}
	}
	return problems
}

// brokenMark is part of the output of a test that found a broken promise.
const brokenMark = "a promise is broken"

// report fails the test if anything was found.
func report(t *testing.T, where string, found []string) {
	t.Helper()
	for _, what := range found {
		t.Errorf("%s: %s", where, what)
	}
	if !onlyLate(found) {
		t.Error(brokenMark)
	}
}
