package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"streamcount/internal/bench/child"
	"streamcount/internal/retry"
)

// An NGINX describes an nginx in front of the edge of a node.
type NGINX struct {
	Template string // path of deploy/edge/nginx.conf
	Address  string // to listen on
	Node     string // address of the edge
	Root     string // directory of the media
}

// A Proxy is a running proxy.
type Proxy struct {
	process *child.Process
	output  *tailBuffer
	dir     string
}

// StartNGINX starts nginx with the configuration that fails closed: a viewer receives an error if
// no check was answered. Stop ends it.
func (cfg Config) StartNGINX(ctx context.Context, n NGINX) (*Proxy, error) {
	path, err := exec.LookPath("nginx")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/nginx"); err != nil { // not in the PATH of users on Debian
			return nil, errors.New("there is no nginx: install it, for example with apt-get install nginx")
		}
	}
	dir, err := os.MkdirTemp(cfg.Dir, "streamcount-bench-")
	if err != nil {
		return nil, fmt.Errorf("create a directory for nginx: %w", err)
	}
	p := &Proxy{dir: dir, output: &tailBuffer{}}
	if err := n.configure(dir); err != nil {
		return nil, JoinErrors(err, p.Stop())
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), path, "-e", "stderr", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"))
	cmd.Env, cmd.Stdout, cmd.Stderr = cfg.Env, p.output, p.output
	if p.process, err = child.Start(cmd); err != nil {
		return nil, JoinErrors(err, p.Stop())
	}
	if err := p.waitListening(ctx, n.Address); err != nil {
		return nil, JoinErrors(fmt.Errorf("start nginx: %w", err), p.Stop())
	}
	return p, nil
}

// configure writes the configuration to dir.
func (n NGINX) configure(dir string) error {
	template, err := os.ReadFile(n.Template)
	if err != nil {
		return fmt.Errorf("read the configuration of nginx: %w", err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(template)) {
		if !strings.HasPrefix(line, "#") && !strings.HasSuffix(strings.TrimSpace(line), "# fail open") {
			kept.WriteString(line)
		}
	}
	text := strings.NewReplacer(
		"${SC_LISTEN}", n.Address, "${SC_NODE_1}", n.Node, "${SC_NODE_2}", n.Node, "${SC_KEY}", "unused",
		"proxy_pass http://${SC_ORIGIN};", "root "+n.Root+";",
		"/var/cache/nginx/streamcount", filepath.Join(dir, "cache")).Replace(kept.String())
	if strings.Contains(text, "${SC_") {
		return fmt.Errorf("%s has names that are not replaced: pass the file deploy/edge/nginx.conf", n.Template)
	}
	main := "worker_processes auto;\npid nginx.pid;\ndaemon off;\nerror_log stderr;\nevents { worker_connections 32768; }\nhttp {\naccess_log off;\n"
	if os.Geteuid() == 0 { // another user could not read the directory
		main = "user root;\n" + main
	}
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		main += name + "_temp_path temp/" + name + ";\n"
	}
	return errors.Join(
		os.Mkdir(filepath.Join(dir, "temp"), 0o700),
		os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(main+text+"}\n"), 0o600),
	)
}

func (p *Proxy) waitListening(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.process.Done():
			return fmt.Errorf("the process exited: %s", p.output)
		default:
		}
		if retry.Sleep(ctx, 10*time.Millisecond) != nil {
			return JoinErrors(context.Cause(ctx), err)
		}
	}
}

// Usage returns what the process and its workers use.
func (p *Proxy) Usage() Usage { return processUsage(p.process.PID()) }

// Stop ends the proxy and deletes its data.
func (p *Proxy) Stop() error {
	if p.process != nil {
		p.process.Stop(stopTimeout)
	}
	return os.RemoveAll(p.dir)
}
