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

// A node is one "streamcount serve", with a link of its own to each member.
type node struct {
	process
	url   string
	links [members]*link
	doors []*relay
	clock *clock
}

// nodeConfig is how nodes are to be.
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
		door, err := newRelay(m.cfg.Client, func(net.Conn) *link { return l })
		if err != nil {
			return n, err
		}
		n.links[j], n.doors = l, append(n.doors, door)
		ends = append(ends, "http://"+door.address())
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
		own := slices.DeleteFunc(cmd.Environ(), func(v string) bool { // those for tests mean nothing to a node
			return strings.HasPrefix(v, "STREAMCOUNT_")
		})
		cmd.Env = append(append(own, clockVariable+"="+n.clock.path), cfg.env...)
		return cmd
	}}
	return n, n.start()
}

func (n *node) close() {
	n.kill()
	for i, door := range n.doors {
		n.links[i].heal()
		n.links[i].reset()
		door.close()
	}
}

// ready reports whether the node says that it is.
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

// operators is the client of everything that is no part of the history.
var operators = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}

// awaitReady waits until all nodes are ready, and starts those that have died.
func awaitReady(ctx context.Context, nodes []*node, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, n := range nodes {
		for !n.ready(ctx) {
			if wait(ctx, 20*time.Millisecond) || !n.alive() {
				return fmt.Errorf("%s did not get ready: see %s", n.name, n.log)
			}
		}
	}
	return nil
}
