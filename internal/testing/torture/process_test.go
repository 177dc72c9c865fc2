//go:build linux

package torture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// A process is a member of etcd or a node, which the test starts, pauses and ends. Only pid
// and alive may be called concurrently.
type process struct {
	name string
	log  string // file with its output
	cmd  func() *exec.Cmd

	mu        sync.Mutex // guards the fields below
	running   *exec.Cmd
	done      chan struct{} // closed when running has ended
	paused    bool
	signalled bool // end has sent it a signal
}

// start starts the process.
func (p *process) start() error {
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	_, _ = fmt.Fprintf(out, "--- %s starts at %v\n", p.name, now().Round(time.Millisecond))
	cmd := p.cmd()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.running, p.done, p.paused, p.signalled = cmd, done, false, false
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // crashed reports an unexpected exit
		close(done)
	}()
	return nil
}

// pid returns the process id, or 0 if the process does not run.
func (p *process) pid() int {
	if !p.alive() {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running.Process.Pid
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill sends SIGKILL and waits for the end.
func (p *process) kill() { p.end(syscall.SIGKILL, time.Minute) }

// terminate sends SIGTERM, and reports whether the process exited with success within patience.
func (p *process) terminate(patience time.Duration) bool {
	if !p.alive() {
		return true
	}
	if !p.end(syscall.SIGTERM, patience) {
		p.kill()
		return false
	}
	return p.running.ProcessState.Success()
}

func (p *process) end(how syscall.Signal, patience time.Duration) bool {
	if !p.alive() {
		return true
	}
	p.resume()
	p.mu.Lock()
	p.signalled = true
	p.mu.Unlock()
	_ = p.running.Process.Signal(how) // it may have ended
	select {
	case <-p.done:
		return true
	case <-time.After(patience):
		return false
	}
}

// crashed reports whether the process exited without a signal of end.
func (p *process) crashed() bool {
	if p.alive() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running != nil && !p.signalled
}

// pause stops the process with SIGSTOP, as if its machine hung.
func (p *process) pause() {
	if p.alive() {
		p.mu.Lock()
		p.paused = true
		p.mu.Unlock()
		_ = p.running.Process.Signal(syscall.SIGSTOP)
	}
}

func (p *process) resume() {
	if !p.alive() {
		return
	}
	p.mu.Lock()
	p.paused = false
	p.mu.Unlock()
	_ = p.running.Process.Signal(syscall.SIGCONT)
}

func (p *process) isPaused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.paused
}

func logFile(dir, name string) string { return filepath.Join(dir, name+".log") }
