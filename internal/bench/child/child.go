// Package child runs other programs so that none is left behind.
package child

import (
	"fmt"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// A Process is a running program.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of its end, valid once done
}

// Start starts cmd. Where the system can do that (Linux), cmd is killed when
// this process ends, however that happens.
func Start(cmd *exec.Cmd) (*Process, error) { return begin(cmd, cmd.Start) }

// StartApart is Start where cmd gets one half of the processors, and this process
// keeps to the other from then on, so that neither takes the other's. On one
// processor, and where the system is not Linux, they share.
func StartApart(cmd *exec.Cmd) (*Process, error) {
	return begin(cmd, func() error { return startApart(cmd.Start) })
}

func begin(cmd *exec.Cmd, start func() error) (*Process, error) {
	dieWithParent(cmd)
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux sends the signal when the thread that started cmd ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	return p, nil
}

// PID is its process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the program ended, once it has: nil for exit code 0.
func (p *Process) Err() error { return p.err }

// Stop asks the program to end, and ends it if it has not after grace. It
// returns when it has.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it fails if the program has ended
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
