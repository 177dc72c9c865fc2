package torture

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// These faults take an operator's hands, or a system call.

func restartNode(t *trouble) (func() error, []int) {
	i, n := t.anyNode()
	if n.alive() && !n.isPaused() && !n.terminate(15*time.Second) {
		return func() error { return fmt.Errorf("%s did not end by itself when told to", n.name) }, []int{i}
	}
	return nil, []int{i}
}

func restartMember(t *trouble) (func() error, []int) {
	t.etcd.members[t.rng.IntN(members)].terminate(10 * time.Second)
	return nil, nil
}

// rollingRestart restarts one process after the other, each when the one before
// works again.
func rollingRestart(t *trouble) (func() error, []int) {
	return func() error {
		ctx := context.WithoutCancel(t.ctx)
		for _, m := range t.etcd.members {
			m.terminate(10 * time.Second)
			if err := t.heal(ctx); err != nil {
				return err
			}
		}
		for _, n := range t.nodes {
			n.terminate(10 * time.Second)
			if err := t.heal(ctx); err != nil {
				return err
			}
		}
		return nil
	}, []int{0, 1, 2}
}

func moveLeader(t *trouble) (func() error, []int) {
	from := t.leader()
	to := t.etcd.members[t.follower()]
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
	defer cancel()
	_, _ = t.etcd.clients[from].MoveLeader(ctx, to.id) // it may lead no more
	return nil, nil
}

// pauseLeader goes on for as long as it is to last, also where others that began with
// it last longer: see docs/correctness.md on a leader that was paused for a TTL.
func pauseLeader(t *trouble) (func() error, []int) {
	m := t.etcd.members[t.leader()]
	return during(t, func(ctx context.Context) {
		m.pause()
		<-ctx.Done()
		m.resume()
	}), nil
}

// replaceMember has a member die for good and a fresh one take its place.
func replaceMember(t *trouble) (func() error, []int) {
	who := t.follower()
	t.etcd.members[who].kill()
	return func() error {
		ctx := context.WithoutCancel(t.ctx)
		if err := t.heal(ctx); err != nil { // the others have to be there
			return err
		}
		if err := t.etcd.replace(ctx, who); err != nil {
			return err
		}
		return t.heal(ctx) // nor may the next be taken out before this one is in
	}, nil
}

// slowDisk delays the fsyncs of a member, where there is strace to do so, and
// else all that it does.
func slowDisk(t *trouble) (func() error, []int) {
	m := t.etcd.members[0] // that waits for its disk
	delay := [...]int{10, 100, 400}[t.rng.IntN(3)]
	if _, err := exec.LookPath("strace"); err != nil || m.pid() == 0 {
		return during(t, func(ctx context.Context) {
			for ctx.Err() == nil {
				m.pause()
				wait(ctx, time.Duration(delay)*ms)
				m.resume()
				wait(ctx, 20*ms)
			}
			m.resume()
		}), nil
	}
	tracer := exec.Command("strace", "-f", "-qq", "-e", "trace=fdatasync,fsync", "-e",
		fmt.Sprintf("inject=fdatasync,fsync:delay_enter=%d", delay*1000), "-o", "/dev/null", "-p", strconv.Itoa(m.pid()))
	if err := tracer.Start(); err != nil {
		return func() error { return err }, nil
	}
	return func() error {
		_ = tracer.Process.Signal(unix.SIGINT) // lets go of the member
		_ = tracer.Wait()                      // it says that it was told to
		return nil
	}, nil
}

// fullDisk lets a member write no file beyond its first byte: it must end, and
// comes back when there is room.
func fullDisk(t *trouble) (func() error, []int) {
	m := t.etcd.members[t.rng.IntN(members)]
	pid := m.pid()
	if pid == 0 {
		return nil, nil
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1, Max: 1}, nil); err != nil {
		return func() error { return fmt.Errorf("limit the files of %s: %w", m.name, err) }, nil
	}
	return func() error {
		for until := now() + 5*time.Second; m.alive() && now() < until; {
			time.Sleep(20 * ms)
		}
		if m.alive() {
			m.kill() // it had nothing to write; it must not go on like that
		}
		return nil
	}, nil
}

const ballast = "/ballast/"

// noSpace fills etcd up to its quota with keys that are none of ours, and makes
// room again as docs/operations.md says.
func noSpace(t *trouble) (func() error, []int) {
	mend := func() error { return t.makeRoom(context.WithoutCancel(t.ctx)) }
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	for i := range 200 {
		call, end := context.WithTimeout(ctx, time.Second)
		_, err := t.etcd.all.Put(call, ballast+strconv.Itoa(i), strings.Repeat("x", 1<<20))
		end()
		if err != nil {
			break // it is full, or has other troubles as well
		}
	}
	return mend, nil
}

func (w *world) makeRoom(ctx context.Context) error {
	if err := w.makeWhole(); err != nil {
		return err
	}
	var rev int64
	if err := retry(ctx, func(call context.Context) error {
		resp, err := w.etcd.all.Delete(call, ballast, clientv3.WithPrefix())
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	}); err != nil {
		return fmt.Errorf("delete the ballast: %w", err)
	}
	// Nodes look at the past of calls that are under way, for as long as those may
	// take.
	wait(ctx, lateWork)
	if err := w.watcher.awaitNow(ctx); err != nil {
		return err
	}
	if err := w.etcd.compact(ctx, rev); err != nil {
		return err
	}
	for i := range w.etcd.members {
		if err := w.etcd.defragment(ctx, i); err != nil {
			return err
		}
	}
	return retry(ctx, func(call context.Context) error {
		_, err := w.etcd.all.AlarmDisarm(call, &clientv3.AlarmMember{})
		return err
	})
}

func (c *cluster) compact(ctx context.Context, rev int64) error {
	if rev < 1 {
		return nil
	}
	return retry(ctx, func(call context.Context) error {
		_, err := c.all.Compact(call, rev, clientv3.WithCompactPhysical())
		if err != nil && strings.Contains(err.Error(), "has been compacted") {
			return nil
		}
		return err
	})
}

func (c *cluster) defragment(ctx context.Context, i int) error {
	return retry(ctx, func(call context.Context) error {
		_, err := c.clients[i].Defragment(call, c.members[i].cfg.Client)
		return err
	})
}

// compactUnderView has a node hear nothing while etcd forgets the history that
// the node would need to catch up. What nodes may still ask about their own last
// writes is spared, and what the watcher has not seen.
func compactUnderView(t *trouble) (func() error, []int) {
	i, n := t.anyNode()
	for _, l := range n.links {
		l.drop(back)
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), 2*time.Second)
		defer cancel()
		if old := t.watcher.revisionAt(now() - lateWork - time.Second); old > 0 {
			_ = t.etcd.compact(ctx, old) // with another fault it may not answer: then it is nothing
		}
		return nil
	}, []int{i}
}

// revisionAt is a revision that was in the book at that time; 0 if none is known.
func (w *watcher) revisionAt(at time.Duration) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	rev := int64(0)
	for _, r := range w.readings {
		if r.told > at {
			break
		}
		rev = r.rev
	}
	return min(rev, w.last-1)
}

func defragmentAll(t *trouble) (func() error, []int) {
	return during(t, func(ctx context.Context) {
		for i := range t.etcd.members {
			call, cancel := context.WithTimeout(ctx, t.lasts)
			_, _ = t.etcd.clients[i].Defragment(call, t.etcd.members[i].cfg.Client) // another fault may be faster
			cancel()
		}
	}), nil
}
