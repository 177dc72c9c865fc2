// Package child runs other programs and ends them with this process.
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

// Start starts cmd. On Linux, cmd is killed when this process ends for any reason.
func Start(cmd *exec.Cmd) (*Process, error) { return startWith(cmd, cmd.Start) }

// StartOnOtherCPUs is like Start. It restricts cmd to one half of the processors and
// this process to the other half. With a single processor, and on other systems than
// Linux, both share all processors.
func StartOnOtherCPUs(cmd *exec.Cmd) (*Process, error) {
	return startWith(cmd, func() error { return startOnOtherCPUs(cmd.Start) })
}

func startWith(cmd *exec.Cmd, start func() error) (*Process, error) {
	killWithParent(cmd)
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

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done returns a channel that is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err returns how the program ended: nil for exit code 0. It is valid once Done is
// closed.
func (p *Process) Err() error { return p.err }

// Kill ends the program at once, and returns when it has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it fails if the program has ended
	<-p.done
}

// Stop sends the program SIGTERM and kills it if it is still running after grace. It
// returns when the program has ended.
func (p *Process) Stop(grace time.Duration) {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil { // the program has ended, or the system has no such signal
		_ = p.cmd.Process.Kill()
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
