package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"streamcount/internal/retry"
)

const (
	memberCheckInterval = 300 * time.Millisecond
	memberCheckTimeout  = time.Second // a member that does not answer in time is not used
	healthyThreshold    = 4           // consecutive answers after which a member is used again
	// unfitAfter is the time after which the connection of an only endpoint is closed if its
	// member is not usable. An election takes less.
	unfitAfter = 2 * time.Second
	// callGrace is the time that pending calls have to finish after a change of the leader. A
	// member may have forwarded them to the old leader, and would wait for seconds.
	callGrace = 500 * time.Millisecond
)

// Members keeps a client on the members of etcd that answer and have a leader: those of the
// node's own region if there are any, otherwise all. etcd's client itself would send every
// third call to a member that hangs, and wait for each until its deadline.
//
// When a member stops answering, pending calls are cancelled, because one of them may wait
// for that member. Reads are repeated; the outcome of a cancelled write is unknown. When the
// leader changes, pending calls are cancelled after callGrace.
type Members struct {
	cfg  ClientConfig
	near []string

	epoch   atomic.Pointer[epoch]
	members []*member
	conns   *connections // of the client, if there is one endpoint

	mu     sync.Mutex // guards the fields below
	used   []string
	term   uint64 // the latest raft term with a leader
	leader uint64 // of that term
}

// An epoch is the time between two cancellations of pending calls.
type epoch struct {
	ctx    context.Context
	cancel context.CancelFunc
}

// A member is the state of one member according to its last answers. Only watch uses it,
// except for healthy.
type member struct {
	endpoint  string
	near      bool
	healthy   atomic.Bool
	successes int // consecutive
}

// NewMembers returns the members at the endpoints of cfg. near are the endpoints in this
// node's region.
func NewMembers(cfg ClientConfig, near []string) *Members {
	m := &Members{cfg: cfg.withDefaults(), near: near, used: cfg.Endpoints}
	for _, e := range cfg.Endpoints {
		one := &member{endpoint: e, near: slices.Contains(near, e)}
		one.healthy.Store(true)
		m.members = append(m.members, one)
	}
	if len(m.members) == 1 {
		m.conns = &connections{}
	}
	m.cancelCalls(0)
	return m
}

// Config returns the configuration of the client for Run.
func (m *Members) Config() ClientConfig {
	cfg := m.cfg
	cfg.conns = m.conns
	cfg.DialOptions = append(slices.Clone(cfg.DialOptions), grpc.WithChainUnaryInterceptor(m.interceptor))
	return cfg
}

// Used returns the endpoints that the client uses.
func (m *Members) Used() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.used)
}

// Run checks the members and sets the endpoints of c, which must have been created from
// Config, until ctx ends.
func (m *Members) Run(ctx context.Context, c *clientv3.Client) error {
	if len(m.members) == 1 {
		m.watchOnly(ctx, c, m.members[0])
		return nil
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	changed := make(chan struct{}, 1)
	for _, one := range m.members {
		watching.Go(func() { m.watch(ctx, one, changed) })
	}
	m.choose(c)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			m.choose(c)
		}
	}
}

// watchOnly checks the only endpoint repeatedly, through the client itself. The endpoint may
// be a load balancer with several members behind it, and a member that hangs would delay all
// calls until TCP times out. A new connection may reach another member.
func (m *Members) watchOnly(ctx context.Context, c *clientv3.Client, one *member) {
	var unfit time.Time // start of the failures; zero if the member is usable
	ask := func(ctx context.Context) (*pb.StatusResponse, error) {
		return pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	}
	for retry.Sleep(ctx, memberCheckInterval) == nil {
		err := m.check(ctx, c, one, ask)
		switch {
		case err == nil || status.Code(err) == codes.Unavailable && !errors.Is(err, errNoLeader):
			unfit = time.Time{} // without a connection gRPC connects again by itself
		case unfit.IsZero():
			unfit = time.Now()
		case time.Since(unfit) >= unfitAfter && ctx.Err() == nil:
			m.cfg.Log.Warn("the member behind etcd's only address is not usable, connecting again",
				zap.String("endpoint", one.endpoint), zap.Error(err))
			m.conns.closeAll()
			m.cancelCalls(0)
			unfit = time.Time{}
		}
	}
}

// watch checks one member repeatedly.
func (m *Members) watch(ctx context.Context, one *member, changed chan<- struct{}) {
	cfg := m.cfg
	cfg.Endpoints = []string{one.endpoint}
	var c *clientv3.Client
	defer func() {
		if c != nil {
			_ = c.Close() // its calls have ended
		}
	}()
	for {
		err := errors.New("not reached")
		if c == nil {
			dial, cancel := context.WithTimeout(ctx, memberCheckTimeout)
			c, err = Dial(dial, cfg)
			cancel()
		}
		if c != nil {
			err = m.check(ctx, c, one, func(ctx context.Context) (*pb.StatusResponse, error) {
				st, err := c.Status(ctx, one.endpoint) // on a separate connection
				return (*pb.StatusResponse)(st), err
			})
		}
		if ctx.Err() != nil {
			return
		}
		one.successes++
		if err != nil {
			one.successes = 0
		}
		if well := one.healthy.Load(); well && err != nil || !well && one.successes >= healthyThreshold {
			one.healthy.Store(!well)
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		if retry.Sleep(ctx, memberCheckInterval) != nil {
			return
		}
	}
}

var (
	errNoLeader = errors.New("it has no leader")
	errLearner  = errors.New("it is a learner, which serves neither writes nor linearizable reads")
)

// check returns an error unless a member answers in time, is a voter, and has a leader. An
// unhealthy member must also serve a linearizable read: for seconds it may report a leader
// although requests that it forwards are lost.
func (m *Members) check(ctx context.Context, c *clientv3.Client, one *member,
	ask func(context.Context) (*pb.StatusResponse, error)) error {
	ctx, cancel := context.WithTimeout(ctx, memberCheckTimeout)
	defer cancel()
	st, err := ask(ctx)
	switch {
	case err != nil:
		return err
	case st.GetIsLearner():
		return errLearner
	case st.GetLeader() == 0:
		return errNoLeader
	}
	m.observeLeader(st.GetRaftTerm(), st.GetLeader())
	switch {
	case one.healthy.Load():
		return nil
	}
	_, err = c.Get(ctx, StreamIDSecret(m.cfg.Prefix).key, clientv3.WithCountOnly())
	return err
}

// observeLeader records the leader of a raft term. If the leader has changed, it cancels
// pending calls after callGrace.
func (m *Members) observeLeader(term, leader uint64) {
	m.mu.Lock()
	before := m.leader
	changed := term > m.term
	if changed {
		m.term, m.leader = term, leader
	}
	m.mu.Unlock()
	if changed && before != 0 && before != leader {
		m.cancelCalls(callGrace)
	}
}

// choose sets the endpoints of the client to the healthy members, or to all members if none
// is healthy.
func (m *Members) choose(c *clientv3.Client) {
	var near, far []string
	for _, one := range m.members {
		switch {
		case !one.healthy.Load():
		case one.near:
			near = append(near, one.endpoint)
		default:
			far = append(far, one.endpoint)
		}
	}
	use := near
	if len(use) == 0 {
		use = far
	}
	fell := len(use) > 0
	if len(use) == 0 {
		use = m.cfg.Endpoints
	}
	old := m.Used()
	if slices.Equal(old, use) {
		return
	}
	m.cfg.Log.Info("the etcd members in use have changed", zap.Strings("endpoints", use))
	c.SetEndpoints(use...)
	if fell && slices.ContainsFunc(old, func(e string) bool { return !slices.Contains(use, e) }) {
		m.cancelCalls(0)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = use
}

// cancelCalls cancels the calls that are pending now and have not ended after that time.
func (m *Members) cancelCalls(after time.Duration) {
	g := &epoch{}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	switch old := m.epoch.Swap(g); {
	case old == nil:
	case after == 0:
		old.cancel()
	default:
		time.AfterFunc(after, old.cancel)
	}
}

const rangeMethod = "/etcdserverpb.KV/Range"

// interceptor cancels a call when its epoch ends. It repeats cancelled reads.
func (m *Members) interceptor(ctx context.Context, method string, req, reply any,
	cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	for {
		under := m.epoch.Load()
		attempt, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(under.ctx, cancel)
		err := invoke(attempt, method, req, reply, cc, opts...)
		stop()
		cancel()
		broken := under.ctx.Err() != nil && ctx.Err() == nil && status.Code(err) == codes.Canceled
		if !broken || method != rangeMethod {
			return err
		}
	}
}
