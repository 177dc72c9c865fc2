//go:build linux

package torture

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"time"
)

var regions = [...]string{"eu", "us", "ap"}

// A node is a process "streamcount serve" with a separate link to each member.
type node struct {
	process
	url    string
	links  [members]*link
	relays []*relay
	clock  *clock
}

// nodeConfig is the configuration of the nodes.
type nodeConfig struct {
	binary string
	prefix string
	ttl    time.Duration
	limit  int
	env    []string
}

// newNode starts node i on c.
func newNode(c *cluster, i int, dir string, cfg nodeConfig) (*node, error) {
	address := freeAddress()
	n := &node{url: "http://" + address}
	var ends []string
	for j, m := range c.members {
		l := &link{}
		relay, err := newRelay(m.cfg.Client, func(net.Conn) *link { return l })
		if err != nil {
			return n, err
		}
		n.links[j], n.relays = l, append(n.relays, relay)
		ends = append(ends, "http://"+relay.address())
	}
	name := "node" + fmt.Sprint(i)
	var err error
	if n.clock, err = newClock(dir, name); err != nil {
		return n, err
	}
	n.process = process{name: name, log: logFile(dir, name), cmd: func() *exec.Cmd {
		cmd := exec.Command(cfg.binary, "serve", "--listen", address, "--etcd-endpoints", strings.Join(ends, ","),
			"--etcd-near", ends[i%members], "--etcd-prefix", cfg.prefix, "--ttl", cfg.ttl.String(),
			"--limit", fmt.Sprint(cfg.limit), "--region", regions[i%len(regions)], "--node", name,
			"--cooldown", "0s", "--rate-per-user", "0", "--drain", "5s", "--log-level", "warn")
		own := slices.DeleteFunc(cmd.Environ(), func(v string) bool { // the node rejects the variables of tests
			return strings.HasPrefix(v, "STREAMCOUNT_")
		})
		cmd.Env = append(append(own, clockVariable+"="+n.clock.path), cfg.env...)
		return cmd
	}}
	return n, n.start()
}

func (n *node) close() {
	n.kill()
	for i, relay := range n.relays {
		n.links[i].heal()
		n.links[i].reset()
		relay.close()
	}
}

// ready reports whether the node answers its readiness check.
func (n *node) ready(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.url+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := operators.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// operators is the HTTP client for requests that are not part of the history.
var operators = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}

// awaitReady waits until all nodes are ready. It returns an error if one exits.
func awaitReady(ctx context.Context, nodes []*node, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, n := range nodes {
		for !n.ready(ctx) {
			if wait(ctx, 20*time.Millisecond) || !n.alive() {
				return fmt.Errorf("%s did not become ready: see %s", n.name, n.log)
			}
		}
	}
	return nil
}
