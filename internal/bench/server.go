package bench

import (
	"bufio"
	"bytes"
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
)

// Streamcount is the name of the target that is not a peer.
const Streamcount = "streamcount"

// Launch says how to start targets.
type Launch struct {
	Exe  string   // streamcount's own program
	Env  []string // of the processes
	Dir  string   // where their directories go; "" means the system's place for temporary files
	Etcd []string // endpoints of an etcd for them; none means one of their own
	// Clean removes what a target wrote below a prefix of Etcd. Required with
	// Etcd.
	Clean func(ctx context.Context, prefix string) error
	// Stderr gets what a target that failed wrote there; nil discards it.
	Stderr io.Writer

	apart bool // from this process: each has half of the processors
}

const (
	startTime = 60 * time.Second // for a target's first answer, on an empty directory
	stopTime  = 20 * time.Second
	cleanTime = 5 * time.Second
	stderrEnd = 4 << 10 // bytes of it that are kept
)

// A server is a target that was started for a visit.
type server struct {
	launch Launch
	args   []string
	dir    string
	prefix string // in Launch.Etcd

	process *child.Process
	url     string
	said    *tail
}

// start runs the target name until stop. A limit and a TTL of 0 are its own.
func (l Launch) start(ctx context.Context, name, token string, limit int, ttl time.Duration) (*server, error) {
	dir, err := os.MkdirTemp(l.Dir, "streamcount-bench-")
	if err != nil {
		return nil, fmt.Errorf("make a directory for %s: %w", name, err)
	}
	s := &server{launch: l, dir: dir, prefix: "/streamcount-bench-" + token}
	s.args = []string{"serve", "--log-level=warn", "--rate-per-user=0"}
	if name != Streamcount {
		s.args = []string{"bench", "peer", name}
	}
	s.args = append(s.args, "--listen=127.0.0.1:0", "--limit="+strconv.Itoa(limit), "--ttl="+ttl.String())
	switch {
	case len(l.Etcd) > 0:
		s.args = append(s.args, "--etcd-endpoints="+strings.Join(l.Etcd, ","), "--etcd-prefix="+s.prefix)
		if name != Streamcount {
			s.args = append(s.args, "--data-dir="+dir)
		}
	default:
		s.args = append(s.args, "--data-dir="+filepath.Join(dir, "data"))
	}
	if err := s.run(ctx, startTime); err != nil {
		return nil, join(fmt.Errorf("start: %w", err), s.stop(ctx))
	}
	return s, nil
}

// serving is the line that a target prints when it is ready.
var serving = regexp.MustCompile(`serving (http://\S+)`)

// run starts the process and waits until it says where it serves, and answers
// there that it is ready.
func (s *server) run(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not ready after %v", patience))
	defer cancel()
	// Not under ctx: it must be able to end in order.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), s.launch.Exe, s.args...)
	cmd.Env = s.launch.Env
	s.said = &tail{}
	found := make(chan string, 1)
	cmd.Stderr = s.said
	out, in := io.Pipe()
	cmd.Stdout = in
	start := child.Start
	if s.launch.apart {
		start = child.StartApart
	}
	process, err := start(cmd)
	if err != nil {
		return err
	}
	s.process = process
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if m := serving.FindStringSubmatch(lines.Text()); m != nil && len(found) == 0 {
				found <- m[1]
			}
		}
		_, _ = io.Copy(io.Discard, out) // a line too long to scan must not block it
	}()
	go func() { <-process.Done(); _ = in.Close() }()
	select {
	case s.url = <-found:
	case <-process.Done():
		return s.failure()
	case <-ctx.Done():
		return s.complaint(context.Cause(ctx))
	}
	return s.awaitReady(ctx)
}

func (s *server) awaitReady(ctx context.Context) error {
	var last error // that was not ctx's end
	for {
		err := isReady(ctx, s.url)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-s.process.Done():
			return s.failure()
		default:
		}
		if !wait(ctx, 2*time.Millisecond) {
			return join(context.Cause(ctx), last)
		}
	}
}

// isReady asks /readyz.
func isReady(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it has been read
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("/readyz answers %d: %s", resp.StatusCode, bytes.TrimSpace(text))
	}
	return err
}

// failure says that the process ended by itself.
func (s *server) failure() error {
	how := "exit status 0"
	if err := s.process.Err(); err != nil {
		how = err.Error()
	}
	return s.complaint(fmt.Errorf("it ended by itself (%s)", how))
}

// complaint adds to err the last line that the process wrote to stderr, and
// shows all of them where there are more.
func (s *server) complaint(err error) error {
	text := s.said.String()
	if text == "" {
		return err
	}
	last := text[strings.LastIndexByte(text, '\n')+1:]
	if s.launch.Stderr != nil && last != text {
		_, _ = fmt.Fprintf(s.launch.Stderr, "%s\n", text) // the error is told in any case
	}
	return fmt.Errorf("%w: %s", err, last)
}

// restart ends the process and starts it again on what it left, and returns
// how long it took from the start to its first answer that it is ready.
func (s *server) restart(ctx context.Context) (time.Duration, error) {
	s.process.Stop(stopTime)
	begin := time.Now()
	err := s.run(ctx, 10*time.Minute)
	return time.Since(begin), err
}

// stop ends the target and removes what it wrote, even when ctx has ended.
func (s *server) stop(ctx context.Context) error {
	if s.process != nil {
		s.process.Stop(stopTime)
	}
	var errs []error
	if len(s.launch.Etcd) > 0 {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
		defer cancel()
		errs = append(errs, s.launch.Clean(ctx, s.prefix))
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}

// join is errors.Join on one line.
func join(first, second error) error {
	if first == nil || second == nil {
		return errors.Join(first, second)
	}
	return fmt.Errorf("%w; %w", first, second)
}

// A tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	end []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end = append(t.end, p...)
	if extra := len(t.end) - stderrEnd; extra > 0 {
		t.end = append(t.end[:0], t.end[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.end))
}
