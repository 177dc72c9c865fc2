//go:build linux

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

// The faults in this file are actions of an operator, or need a system call.

func restartNode(t *injection) (func() error, []int) {
	i, n := t.anyNode()
	if n.alive() && !n.isPaused() && !n.terminate(patience) {
		return func() error { return fmt.Errorf("%s did not exit after SIGTERM", n.name) }, []int{i}
	}
	return nil, []int{i}
}

func restartMember(t *injection) (func() error, []int) {
	t.etcd.members[t.rng.IntN(members)].terminate(10 * time.Second)
	return nil, nil
}

// rollingRestart restarts one process after the other. Before each it waits until the
// previous one works again.
func rollingRestart(t *injection) (func() error, []int) {
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

func moveLeader(t *injection) (func() error, []int) {
	from := t.leader()
	to := t.etcd.members[t.follower()]
	ctx, cancel := context.WithTimeout(t.ctx, 2*time.Second)
	defer cancel()
	_, _ = t.etcd.clients[from].MoveLeader(ctx, to.id) // fails if it is no longer the leader
	return nil, nil
}

// pauseLeader resumes the leader after its own duration, even if other faults of the same
// window last longer: docs/correctness.md describes what a pause of a TTL would do.
func pauseLeader(t *injection) (func() error, []int) {
	m := t.etcd.members[t.leader()]
	return during(t, func(ctx context.Context) {
		m.pause()
		<-ctx.Done()
		m.resume()
	}), nil
}

// replaceMember kills a member, deletes its data, and adds a new member in its place.
func replaceMember(t *injection) (func() error, []int) {
	who := t.follower()
	t.etcd.members[who].kill()
	return func() error {
		ctx := context.WithoutCancel(t.ctx)
		if err := t.heal(ctx); err != nil { // the other members must work
			return err
		}
		if err := t.etcd.replace(ctx, who); err != nil {
			return err
		}
		return t.heal(ctx) // the new member must work before the next fault
	}, nil
}

// slowDisk delays the fsyncs of a member with strace. Without strace it pauses the member
// repeatedly.
func slowDisk(t *injection) (func() error, []int) {
	m := t.etcd.members[0] // the only one that calls fsync
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
		_ = tracer.Process.Signal(unix.SIGINT) // strace detaches from the member
		_ = tracer.Wait()                      // the error is the signal
		return nil
	}, nil
}

// fullDisk limits the size of a member's files to one byte. The member must exit. It is
// started again without the limit.
func fullDisk(t *injection) (func() error, []int) {
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
			m.kill() // it wrote nothing, and must not continue with the limit
		}
		return nil
	}, nil
}

// fillPrefix is the prefix of the keys that fill etcd. It is outside the service's prefix.
const fillPrefix = "/fill/"

// fillEtcd fills etcd up to its quota with other keys, and frees the space again as
// docs/operations.md describes.
func fillEtcd(t *injection) (func() error, []int) {
	undo := func() error { return t.freeSpace(context.WithoutCancel(t.ctx)) }
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	for i := range 200 {
		call, end := context.WithTimeout(ctx, time.Second)
		_, err := t.etcd.all.Put(call, fillPrefix+strconv.Itoa(i), strings.Repeat("x", 1<<20))
		end()
		if err != nil {
			break // etcd is full, or another fault affects it
		}
	}
	return undo, nil
}

func (w *testbed) freeSpace(ctx context.Context) error {
	if err := w.repairAll(); err != nil {
		return err
	}
	var rev int64
	if err := retry(ctx, func(call context.Context) error {
		resp, err := w.etcd.all.Delete(call, fillPrefix, clientv3.WithPrefix())
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	}); err != nil {
		return fmt.Errorf("delete the keys that filled etcd: %w", err)
	}
	// Nodes may read old revisions while their calls are under way.
	wait(ctx, lateWork)
	if err := w.watcher.awaitLatest(ctx); err != nil {
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

// compactUnseenRevisions cuts the replies to a node, and compacts the revisions that the
// node has missed. It does not compact revisions that nodes may still read to find the
// outcome of their own writes, nor those that the watcher has not received.
func compactUnseenRevisions(t *injection) (func() error, []int) {
	i, n := t.anyNode()
	for _, l := range n.links {
		l.drop(inbound)
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), 2*time.Second)
		defer cancel()
		if old := t.watcher.revisionAt(now() - lateWork - time.Second); old > 0 {
			_ = t.etcd.compact(ctx, old) // fails if another fault stops etcd; then nothing is compacted
		}
		return nil
	}, []int{i}
}

// revisionAt returns the newest revision that was read before at, or 0 if there is none.
func (w *watcher) revisionAt(at time.Duration) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	rev := int64(0)
	for _, r := range w.readings {
		if r.receivedAt > at {
			break
		}
		rev = r.rev
	}
	return min(rev, w.last-1)
}

func defragmentAll(t *injection) (func() error, []int) {
	return during(t, func(ctx context.Context) {
		for i := range t.etcd.members {
			call, cancel := context.WithTimeout(ctx, t.duration)
			_, _ = t.etcd.clients[i].Defragment(call, t.etcd.members[i].cfg.Client) // fails if another fault stops the member
			cancel()
		}
	}), nil
}
