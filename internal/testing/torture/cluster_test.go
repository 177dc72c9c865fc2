//go:build linux

package torture

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"streamcount/internal/testing/freeport"
)

const members = 3

// A cluster is an etcd cluster of three processes. Each member has a link to each other
// member, and each link can fail in each direction.
type cluster struct {
	dir     string
	members []*member
	links   [members + 1][members]*link // from, to; the last row is for connections of unidentified processes
	clients []*clientv3.Client          // one of each member, not affected by faults
	all     *clientv3.Client            // of all members, not affected by faults

	starting sync.Mutex // held while members are created
}

type member struct {
	process
	cfg   memberConfig
	relay *relay
	id    uint64
}

// newCluster starts a cluster with its data in dir. Only the first member calls fsync, and
// none if fast is set: a process that is killed loses nothing that it has written, and all
// members share the disk of the machine.
func newCluster(dir string, quota int64, fast bool) (*cluster, error) {
	c := &cluster{dir: dir}
	for from := range c.links {
		for to := range c.links[from] {
			c.links[from][to] = &link{}
		}
	}
	var names []string
	c.starting.Lock()
	for i := range members {
		m, err := c.newMember(i, quota, fast || i > 0)
		if err != nil {
			c.starting.Unlock()
			return c, err
		}
		c.members = append(c.members, m)
		names = append(names, m.cfg.Name+"=http://"+m.cfg.Advertised)
	}
	c.starting.Unlock()
	for _, m := range c.members {
		m.cfg.Cluster = strings.Join(names, ",")
		if err := m.start(); err != nil {
			return c, err
		}
	}
	var ends []string
	for _, m := range c.members {
		ends = append(ends, m.cfg.Client)
		one, err := newClient(m.cfg.Client)
		if err != nil {
			return c, err
		}
		c.clients = append(c.clients, one)
	}
	all, err := newClient(ends...)
	c.all = all
	return c, err
}

func newClient(addresses ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints: addresses, Logger: zap.NewNop(), DialTimeout: 5 * time.Second,
		DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
	})
}

func (c *cluster) newMember(i int, quota int64, fast bool) (*member, error) {
	client, peer := freeAddress(), freeAddress()
	relay, err := newRelay(peer, func(in net.Conn) *link { return c.linkOf(in, i) })
	if err != nil {
		return nil, err
	}
	m := &member{relay: relay, cfg: memberConfig{
		Name: fmt.Sprintf("etcd%d", i), Dir: filepath.Join(c.dir, fmt.Sprintf("etcd%d", i)), Client: client, Peer: peer,
		Advertised: relay.address(), Quota: quota, Fast: fast,
	}}
	m.process = process{name: m.cfg.Name, log: logFile(c.dir, m.cfg.Name), cmd: m.command}
	return m, os.MkdirAll(m.cfg.Dir, 0o700)
}

func (m *member) command() *exec.Cmd { return m.cfg.command() }

// linkOf returns the link of a new connection to a member.
func (c *cluster) linkOf(in net.Conn, to int) *link {
	pids := make([]int, members)
	c.starting.Lock()
	for i, m := range c.members {
		pids[i] = m.pid()
	}
	c.starting.Unlock()
	from := ownerOf(in, pids)
	if from < 0 {
		from = members
	}
	return c.links[from][to]
}

func (c *cluster) close() {
	for from := range c.links {
		for _, l := range c.links[from] {
			l.heal()
		}
	}
	for _, m := range c.members {
		m.kill()
	}
	for from := range c.links {
		for _, l := range c.links[from] {
			l.reset()
		}
	}
	for _, m := range c.members {
		m.relay.close()
	}
	for _, client := range append(c.clients, c.all) {
		if client != nil {
			_ = client.Close()
		}
	}
}

// leader returns the index of the member that all answering members follow, or -1.
func (c *cluster) leader(ctx context.Context) int {
	leads, n := uint64(0), 0
	for i, m := range c.members {
		s := c.status(ctx, i)
		if s == nil || s.Leader == 0 || len(s.Errors) > 0 && !isFullError(s.Errors) {
			continue
		}
		m.id = s.Header.MemberId
		if leads != 0 && leads != s.Leader {
			return -1
		}
		leads = s.Leader
		n++
	}
	if n < 2 {
		return -1
	}
	return slices.IndexFunc(c.members, func(m *member) bool { return m.id == leads })
}

func isFullError(errs []string) bool {
	return slices.ContainsFunc(errs, func(e string) bool { return strings.Contains(e, "NOSPACE") })
}

// status returns the status of a member, or nil if it does not answer.
func (c *cluster) status(ctx context.Context, i int) *pb.StatusResponse {
	if !c.members[i].alive() || c.members[i].isPaused() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	s, err := c.clients[i].Status(ctx, c.members[i].cfg.Client)
	if err != nil {
		return nil
	}
	return (*pb.StatusResponse)(s)
}

// awaitHealthy waits until all members follow the same leader, have applied nearly all
// entries, and answer a linearizable read.
func (c *cluster) awaitHealthy(ctx context.Context, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !c.healthy(ctx) {
		if wait(ctx, 50*time.Millisecond) {
			return errors.New("etcd did not become healthy")
		}
	}
	return nil
}

func (c *cluster) healthy(ctx context.Context) bool {
	leaders := map[uint64]bool{}
	for i := range c.members {
		s := c.status(ctx, i)
		if s == nil || s.Leader == 0 || len(s.Errors) > 0 || s.IsLearner {
			return false
		}
		c.members[i].id = s.Header.MemberId
		leaders[s.Leader] = true
		if s.RaftAppliedIndex+50 < s.RaftIndex {
			return false
		}
	}
	if len(leaders) != 1 {
		return false
	}
	for _, client := range c.clients {
		call, cancel := context.WithTimeout(ctx, time.Second)
		_, err := client.Get(call, "/x")
		cancel()
		if err != nil {
			return false
		}
	}
	return true
}

// replace removes a member and its data from the cluster, and adds a new one in its place.
func (c *cluster) replace(ctx context.Context, i int) error {
	m := c.members[i]
	m.kill()
	old := m.id
	if err := retry(ctx, func(call context.Context) error {
		_, err := c.all.MemberRemove(call, old)
		if err != nil && strings.Contains(err.Error(), "member not found") {
			return nil // an earlier attempt removed it
		}
		return err
	}); err != nil {
		return fmt.Errorf("remove a member: %w", err)
	}
	if err := os.RemoveAll(m.cfg.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(m.cfg.Dir, 0o700); err != nil {
		return err
	}
	if err := retry(ctx, func(call context.Context) error {
		_, err := c.all.MemberAdd(call, []string{"http://" + m.cfg.Advertised})
		if err != nil && strings.Contains(err.Error(), "Peer URLs already exists") {
			return nil
		}
		return err
	}); err != nil {
		return fmt.Errorf("add a member: %w", err)
	}
	m.cfg.Joins = true
	return m.start()
}

// retry repeats a call until it succeeds.
func retry(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		call, end := context.WithTimeout(ctx, 3*time.Second)
		err := do(call)
		end()
		if err == nil {
			return nil
		}
		if wait(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

// wait reports whether ctx ended before d had passed.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}

// freeAddress returns an address that no process listens on.
func freeAddress() string {
	port, err := freeport.Find()
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}
