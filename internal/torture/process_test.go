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

// A process is one that the test runs and breaks: a member of etcd or a node.
// Its methods are for one caller at a time, but pid and alive.
type process struct {
	name string
	log  string // file with its output
	cmd  func() *exec.Cmd

	mu      sync.Mutex // guards what follows
	running *exec.Cmd
	done    chan struct{} // closed when running has ended
	paused  bool
	told    bool // to end
}

// start runs it.
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
	p.running, p.done, p.paused, p.told = cmd, done, false, false
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // whoever ended it knows why
		close(done)
	}()
	return nil
}

// pid is 0 while it does not run.
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

// kill is kill -9.
func (p *process) kill() { p.end(syscall.SIGKILL, time.Minute) }

// terminate asks it to end, and reports whether it did so by itself and in time.
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
	p.told = true
	p.mu.Unlock()
	_ = p.running.Process.Signal(how) // it may have ended
	select {
	case <-p.done:
		return true
	case <-time.After(patience):
		return false
	}
}

// died reports whether it ended without being told to.
func (p *process) died() bool {
	if p.alive() {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running != nil && !p.told
}

// pause stops it as a machine does that hangs.
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
