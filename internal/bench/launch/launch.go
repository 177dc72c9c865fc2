// Package launch starts the programs that a benchmark measures, and reads what they use.
package launch

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"streamcount/internal/bench/child"
	"streamcount/internal/retry"
)

// Config describes how targets are started.
type Config struct {
	NodeBinary string   // path of streamcount
	PeerBinary string   // path of a program whose "peer NAME" command serves a peer
	Env        []string // environment of the processes
	Dir        string   // parent of their directories; "" means the system's directory for temporary files
	Etcd       []string // endpoints of an etcd for the targets; without any, each embeds its own
	// DeleteKeys deletes the keys that a target wrote below a prefix of Etcd. It is
	// required with Etcd.
	DeleteKeys func(ctx context.Context, prefix string) error
	// Stderr receives the standard error of a target that failed; nil discards it.
	Stderr io.Writer

	SeparateCPUs bool // the target and this process each have half of the processors
}

// A Spec describes one target.
type Spec struct {
	Peer   string // name of the peer; "" for a node
	Binary string // of the node; "" means Config.NodeBinary
	Token  string // part of its prefix in Config.Etcd
	Limit  int    // maximum number of streams per user
	TTL    time.Duration
	Args   []string // further arguments of the program
}

const (
	startTimeout   = 60 * time.Second // until a new target is ready
	stopTimeout    = 20 * time.Second
	cleanTimeout   = 5 * time.Second
	stderrTailSize = 4 << 10 // bytes
)

// A Target is a running program. It may be restarted.
type Target struct {
	cfg    Config
	binary string
	args   []string
	dir    string
	prefix string // in Config.Etcd

	process *child.Process
	URL     string // of its API
	stderr  *tailBuffer
}

// Start starts a target. Stop ends it.
func (cfg Config) Start(ctx context.Context, spec Spec) (*Target, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "streamcount-bench-")
	if err != nil {
		return nil, fmt.Errorf("create a directory for the target: %w", err)
	}
	s := &Target{cfg: cfg, dir: dir, prefix: "/streamcount-bench-" + spec.Token}
	s.binary, s.args = cmp.Or(spec.Binary, cfg.NodeBinary), []string{"serve", "--log-level=warn", "--rate-per-user=0"}
	if spec.Peer != "" {
		s.binary, s.args = cfg.PeerBinary, []string{"peer", spec.Peer}
	}
	s.args = append(s.args, "--listen=127.0.0.1:0", "--limit="+strconv.Itoa(spec.Limit), "--ttl="+spec.TTL.String())
	switch {
	case len(cfg.Etcd) > 0:
		s.args = append(s.args, "--etcd-endpoints="+strings.Join(cfg.Etcd, ","), "--etcd-prefix="+s.prefix)
		if spec.Peer != "" {
			s.args = append(s.args, "--data-dir="+dir)
		}
	default:
		s.args = append(s.args, "--data-dir="+filepath.Join(dir, "data"))
	}
	s.args = append(s.args, spec.Args...)
	if err := s.launchProcess(ctx, startTimeout); err != nil {
		return nil, JoinErrors(fmt.Errorf("start: %w", err), s.Stop(ctx))
	}
	return s, nil
}

// servingLine matches the line in which a target prints its address.
var servingLine = regexp.MustCompile(`serving (http://\S+)`)

// launchProcess starts the process and waits until it has printed its address and is
// ready.
func (s *Target) launchProcess(ctx context.Context, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not ready after %v", timeout))
	defer cancel()
	// The process outlives ctx, so that Stop can end it with a signal.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.binary, s.args...)
	cmd.Env = s.cfg.Env
	s.stderr = &tailBuffer{}
	found := make(chan string, 1)
	cmd.Stderr = s.stderr
	out, stdout := io.Pipe()
	cmd.Stdout = stdout
	start := child.Start
	if s.cfg.SeparateCPUs {
		start = child.StartOnOtherCPUs
	}
	process, err := start(cmd)
	if err != nil {
		return err
	}
	s.process = process
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := servingLine.FindStringSubmatch(lines.Text()); m != nil && len(found) == 0 {
				found <- m[1]
			}
		}
		_, _ = io.Copy(io.Discard, out) // so that the process can write lines that are too long for the scanner
	}()
	go func() { <-process.Done(); _ = stdout.Close() }()
	select {
	case s.URL = <-found:
	case <-process.Done():
		return s.ExitError()
	case <-ctx.Done():
		return s.withStderr(context.Cause(ctx))
	}
	return s.waitReady(ctx)
}

func (s *Target) waitReady(ctx context.Context) error {
	var last error // the last error before ctx ended
	for {
		err := checkReady(ctx, s.URL)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-s.process.Done():
			return s.ExitError()
		default:
		}
		if retry.Sleep(ctx, 2*time.Millisecond) != nil {
			return JoinErrors(context.Cause(ctx), last)
		}
	}
}

// checkReady returns an error unless /readyz answers 200.
func checkReady(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // the body has been read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("/readyz answers %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	return err
}

// Done returns a channel that is closed when the process has ended.
func (s *Target) Done() <-chan struct{} { return s.process.Done() }

// Usage returns what the process and its children use.
func (s *Target) Usage() Usage { return processUsage(s.process.PID()) }

// ExitError returns an error for a process that exited without being stopped.
func (s *Target) ExitError() error {
	how := "exit status 0"
	if err := s.process.Err(); err != nil {
		how = err.Error()
	}
	return s.withStderr(fmt.Errorf("the process exited (%s)", how))
}

// withStderr adds to err the last line that the process wrote to stderr. If there are
// more lines, it writes all of them to Config.Stderr.
func (s *Target) withStderr(err error) error {
	text := s.stderr.String()
	if text == "" {
		return err
	}
	last := text[strings.LastIndexByte(text, '\n')+1:]
	if s.cfg.Stderr != nil && last != text {
		_, _ = fmt.Fprintf(s.cfg.Stderr, "%s\n", text) // err is returned in any case
	}
	return fmt.Errorf("%w: %s", err, last)
}

// Restart stops the process and starts it again on its data. It returns the time from
// the start until the process is ready.
func (s *Target) Restart(ctx context.Context) (time.Duration, error) {
	s.process.Stop(stopTimeout)
	begin := time.Now()
	err := s.launchProcess(ctx, 10*time.Minute)
	return time.Since(begin), err
}

// Stop ends the process and deletes its data, even if ctx has ended.
func (s *Target) Stop(ctx context.Context) error {
	if s.process != nil {
		s.process.Stop(stopTimeout)
	}
	var errs []error
	if len(s.cfg.Etcd) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
		defer cancel()
		errs = append(errs, s.cfg.DeleteKeys(ctx, s.prefix))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// JoinErrors is like errors.Join, with a text of one line.
func JoinErrors(first, second error) error {
	if first == nil || second == nil {
		return errors.Join(first, second)
	}
	return fmt.Errorf("%w; %w", first, second)
}

// A tailBuffer stores the last stderrTailSize bytes that are written to it.
type tailBuffer struct {
	mu  sync.Mutex
	end []byte
}

func (t *tailBuffer) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	if extra := len(t.end) - stderrTailSize; extra > 0 {
		t.end = append(t.end[:0], t.end[extra:]...)
	}
	return len(p), nil
}

func (t *tailBuffer) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.end))
}
