package cluster

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	memberPulse  = 300 * time.Millisecond
	memberAnswer = time.Second // a member that takes longer for a word is not used
	memberReturn = 4           // answers in a row that bring it back
	// lostAfter is how long a call of the last leader's time may go on under the next.
	// A member may have passed it on to the leader that left, and would wait for seconds.
	lostAfter = 500 * time.Millisecond
)

// Members keeps a client to the members of etcd that answer and know a leader: to
// those of its own region while there are any, else to all. etcd's client would go
// on sending every third call to a member that hangs, and would wait for each until
// its deadline.
//
// When a member falls silent, the calls under way are broken off, because one of
// them may wait there. Reads begin again; the outcome of a write is then unknown. When
// the leader changes those are broken off that do not end soon after.
type Members struct {
	cfg  ClientConfig
	near []string

	under atomic.Pointer[generation]
	each  []*member

	mu     sync.Mutex // guards what follows
	used   []string
	term   uint64 // the latest in which a member knew a leader
	leader uint64 // of that term
}

// generation is the time between two breaks.
type generation struct {
	ctx context.Context
	end context.CancelFunc
}

// member is one member as seen by its last answers. Only watch uses it, but for
// well.
type member struct {
	endpoint string
	near     bool
	well     atomic.Bool
	row      int // of answers
}

// NewMembers returns the members that cfg names. near are those of its endpoints
// that are in this node's region.
func NewMembers(cfg ClientConfig, near []string) *Members {
	m := &Members{cfg: cfg.withDefaults(), near: near, used: cfg.Endpoints}
	for _, e := range cfg.Endpoints {
		one := &member{endpoint: e, near: slices.Contains(near, e)}
		one.well.Store(true)
		m.each = append(m.each, one)
	}
	m.renew(0)
	return m
}

// Config is the configuration for the client that is to be kept.
func (m *Members) Config() ClientConfig {
	cfg := m.cfg
	cfg.DialOptions = append(slices.Clone(cfg.DialOptions), grpc.WithChainUnaryInterceptor(m.interrupt))
	return cfg
}

// Used are the endpoints that the client is sent to.
func (m *Members) Used() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.used)
}

// Run keeps c, which was made from Config, until ctx ends.
func (m *Members) Run(ctx context.Context, c *clientv3.Client) error {
	if len(m.each) == 1 {
		<-ctx.Done()
		return nil
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	changed := make(chan struct{}, 1)
	for _, one := range m.each {
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

// watch asks one member again and again whether it is fit for use.
func (m *Members) watch(ctx context.Context, one *member, changed chan<- struct{}) {
	cfg := m.cfg
	cfg.Endpoints = []string{one.endpoint}
	var c *clientv3.Client
	defer func() {
		if c != nil {
			_ = c.Close() // nothing of it is needed any more
		}
	}()
	for {
		err := errors.New("not reached")
		if c == nil {
			dial, cancel := context.WithTimeout(ctx, memberAnswer)
			c, err = Dial(dial, cfg)
			cancel()
		}
		if c != nil {
			err = m.fit(ctx, c, one)
		}
		if ctx.Err() != nil {
			return
		}
		one.row++
		if err != nil {
			one.row = 0
		}
		if well := one.well.Load(); well && err != nil || !well && one.row >= memberReturn {
			one.well.Store(!well)
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		if !sleep(ctx, memberPulse) {
			return
		}
	}
}

var errNoLeader = errors.New("it knows no leader")

// fit reports whether a member answers soon and belongs to a cluster that works. One
// that comes back must also have read something by the leader: it may believe for
// seconds that it has a leader while what it passes on to it is lost.
func (m *Members) fit(ctx context.Context, c *clientv3.Client, one *member) error {
	ctx, cancel := context.WithTimeout(ctx, memberAnswer)
	defer cancel()
	st, err := c.Status(ctx, one.endpoint)
	switch {
	case err != nil:
		return err
	case st.Leader == 0:
		return errNoLeader
	}
	m.led(st.RaftTerm, st.Leader)
	switch {
	case one.well.Load():
		return nil
	}
	_, err = c.Get(ctx, secretKey(m.cfg.Prefix), clientv3.WithCountOnly())
	return err
}

// led hears of a term and its leader.
func (m *Members) led(term, by uint64) {
	m.mu.Lock()
	before := m.leader
	news := term > m.term
	if news {
		m.term, m.leader = term, by
	}
	m.mu.Unlock()
	if news && before != 0 && before != by {
		m.renew(lostAfter)
	}
}

// choose sends the client to the members that are well. Where none is, nobody knows
// better than to try them all.
func (m *Members) choose(c *clientv3.Client) {
	var near, far []string
	for _, one := range m.each {
		switch {
		case !one.well.Load():
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
	m.cfg.Log.Info("the members of etcd that calls go to have changed", zap.Strings("endpoints", use))
	c.SetEndpoints(use...)
	if fell && slices.ContainsFunc(old, func(e string) bool { return !slices.Contains(use, e) }) {
		m.renew(0)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = use
}

// renew breaks off those of the calls under way that have not ended after a while.
func (m *Members) renew(after time.Duration) {
	g := &generation{}
	g.ctx, g.end = context.WithCancel(context.Background())
	switch old := m.under.Swap(g); {
	case old == nil:
	case after == 0:
		old.end()
	default:
		time.AfterFunc(after, old.end)
	}
}

const rangeMethod = "/etcdserverpb.KV/Range"

// interrupt breaks a call off when its generation has ended.
func (m *Members) interrupt(ctx context.Context, method string, req, reply any,
	cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	for {
		under := m.under.Load()
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
