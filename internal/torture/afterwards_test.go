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

// drain waits until nothing is left of any user: nobody watches any more.
func (w *world) drain(ctx context.Context, since time.Duration) []string {
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
	for again := now() + 20*time.Second; ; {
		left, err := w.etcd.all.Get(ctx, w.cfg.node.prefix+"/users/", clientv3.WithPrefix(), clientv3.WithKeysOnly())
		switch {
		case err == nil && left.Count == 0:
			return []string{fmt.Sprintf("%sleft behind until %.1f s after all was well", lateMark, (now() - since).Seconds())}
		case now() < again && !wait(ctx, 50*time.Millisecond):
			continue
		case err != nil:
			return []string{lateMark + "cannot see what is left: " + err.Error()}
		}
		var out []string
		for _, kv := range left.Kvs {
			out = append(out, fmt.Sprintf("left behind when all clients were long gone: %s", kv.Key))
		}
		return out
	}
}

// afterwards is in the names of users who come when all is over.
const afterwards = "-after"

// demandService wants every node to serve everything, now that all is well. A
// machine that has other things to do gets more than one chance.
func (w *world) demandService(calls *caller, round string) (missing []string) {
	for i := range 5 {
		if missing = w.demandOnce(calls, fmt.Sprint(round, afterwards, i)); len(missing) == 0 {
			return nil
		}
		time.Sleep(time.Second)
	}
	return missing
}

func (w *world) demandOnce(calls *caller, prefix string) []string {
	var out []string
	first := len(calls.history.ops)
	for i := range w.nodes {
		c := &crowd{user: prefix + fmt.Sprint(i), caller: calls, kept: map[int]bool{}}
		for range 5 {
			c.start(&op{User: c.user, Node: i}, nil, false, 0)
			if len(c.known) == 1 {
				c.beat(c.known[0], i, 0)
				c.stop(c.known[0], i, 0)
			}
		}
	}
	asked := calls.history.ops[first:]
	for _, o := range asked {
		if o.Status != 200 || o.Degraded {
			out = append(out, "all is well, but: "+o.String())
		}
	}
	if len(asked) != 15*len(w.nodes) {
		out = append(out, fmt.Sprintf("all is well, but only %d of %d calls were answered", len(asked), 15*len(w.nodes)))
	}
	return out
}

// readLogs looks for what no node may say.
func (w *world) readLogs() []string {
	var out []string
	for _, n := range w.nodes {
		text, err := os.ReadFile(n.log)
		if err != nil {
			out = append(out, err.Error())
		}
		for _, bad := range []string{"DATA RACE", "panic", "fatal error"} {
			if strings.Contains(string(text), bad) {
				out = append(out, fmt.Sprintf("%s says %q: see %s", n.name, bad, n.log))
			}
		}
	}
	return out
}

// perhapsLate marks what goes by somebody's patience: all but that a process ended, or
// did not end, by itself.
func perhapsLate(trouble []string) []string {
	for i, what := range trouble {
		if !strings.Contains(what, "by itself") {
			trouble[i] = lateMark + what
		}
	}
	return trouble
}

// brokenMark tells .ci/run that running it again is no answer.
const brokenMark = "a promise is broken"

// report fails the test by what was found.
func report(t *testing.T, where string, found []string) {
	t.Helper()
	for _, what := range found {
		t.Errorf("%s: %s", where, what)
	}
	if !onlyLate(found) {
		t.Error(brokenMark)
	}
}
