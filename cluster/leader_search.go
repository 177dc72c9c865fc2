package cluster

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"streamcount/cluster/internal/etcdlog"
	"streamcount/internal/retry"
)

const (
	checkInterval = time.Second            // between checks of the leader
	retryInterval = 200 * time.Millisecond // between checks after a failure
	minCheckDelay = 20 * time.Millisecond  // after a failed call, so that many failures cause one check
	// maxFastRetries is the number of checks at retryInterval. An election takes a few seconds,
	// an outage may take hours.
	maxFastRetries = 50
	// maxFailures is the number of consecutive failures after which the leader is not used,
	// although the other members still follow it.
	maxFailures    = 3
	statusTimeout  = time.Second
	dialTimeout    = 2 * time.Second
	identityChecks = 3 // status requests on one connection, to detect several members behind it
	// A leader that does not answer at any address may just have crashed: until
	// unreachableWarnAfter it is retried soon and without a warning.
	fastRetry            = 2 * time.Second
	slowRetry            = 30 * time.Second
	unreachableWarnAfter = 10 * time.Second
)

// search is the state of Run between two checks.
type search struct {
	lastCheck time.Time // start of the last check
	retries   int       // consecutive checks without a result
	failures  int       // consecutive failures of the current leader

	unreachable uint64    // a leader that did not answer at any address
	since       time.Time // when that was detected
	retryAt     time.Time // when to retry
	warned      bool      // a warning was logged since a leader was reached
	warnAfter   time.Duration
}

// Run follows the leader until ctx ends. It retries while etcd is unavailable; that is never
// an error.
func (l *LeaderLease) Run(ctx context.Context) error {
	defer l.useFallback(0, "")
	for l.wait(ctx, l.check(ctx)) {
	}
	return nil
}

// wait waits for the next check: for d, or until notify is called. It returns false if ctx
// ended.
func (l *LeaderLease) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.problems:
		return retry.Sleep(ctx, max(minCheckDelay, retryInterval-time.Since(l.search.lastCheck))) == nil
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// check verifies that the current route leads to the leader, changes the route if it does
// not, and returns the time until the next check.
func (l *LeaderLease) check(ctx context.Context) time.Duration {
	l.search.lastCheck = time.Now()
	way, to := l.leaderRoute()
	if way.client != nil {
		if leads(memberStatus(ctx, way.client), to) {
			l.replaceFallback()
			return l.found()
		}
		l.search.failures++
	}
	st := l.statusOfAny(ctx)
	switch {
	case st == nil: // an election, or etcd is unavailable
		return l.backoff()
	case way.client == nil || st.GetLeader() != to:
		return l.locate(ctx, st)
	case l.search.failures < maxFailures: // retry before the leader is not used
		return l.backoff()
	}
	l.markUnreachable(to)
	return l.found()
}

// leaderRoute returns the current route and the last known leader.
func (l *LeaderLease) leaderRoute() (way *route, leader uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.currentRoute, l.leader
}

func (l *LeaderLease) found() time.Duration {
	l.search.retries, l.search.failures = 0, 0
	return retry.Spread(checkInterval)
}

func (l *LeaderLease) backoff() time.Duration {
	if l.search.retries++; l.search.retries > maxFastRetries {
		return retry.Spread(checkInterval)
	}
	return retry.Spread(retryInterval)
}

// locate finds a route to the leader that st names.
func (l *LeaderLease) locate(ctx context.Context, st *pb.StatusResponse) time.Duration {
	leader := st.GetLeader()
	if leader == l.search.unreachable && time.Now().Before(l.search.retryAt) {
		l.useFallback(leader, "")
		return l.found()
	}
	members := l.members(ctx)
	if slices.ContainsFunc(members, isProxy) {
		l.useFallback(leader, "") // behind a proxy, each call may reach another member
		return l.found()
	}
	if l.fallbackIsLeader(st, members) {
		l.useFallback(leader, l.cfg.Endpoints[0])
		l.markReached()
		return l.found()
	}
	for _, address := range l.addresses(members, leader) {
		c, moved := l.dialLeader(ctx, address, st)
		switch {
		case c != nil:
			l.useLeader(c, leader, address)
			l.markReached()
			return l.found()
		case moved, ctx.Err() != nil:
			return l.backoff()
		}
		l.useFallback(leader, "") // close the streams of a deposed leader, which may not answer for long
	}
	l.markUnreachable(leader)
	return l.found()
}

// isProxy reports whether an entry in a list of members is etcd's gRPC proxy, which lists
// itself without an id.
func isProxy(m *pb.Member) bool { return m.GetID() == 0 }

// fallbackIsLeader reports whether the ordinary client uses the leader: the cluster has one
// member, or the client has one endpoint and the leader answers there. Its streams stay open.
func (l *LeaderLease) fallbackIsLeader(st *pb.StatusResponse, members []*pb.Member) bool {
	return len(members) == 1 || (len(l.cfg.Endpoints) == 1 && leads(st, st.GetLeader()))
}

func (l *LeaderLease) markReached() {
	l.search.unreachable = 0
	if l.search.warned {
		l.search.warned = false
		_, address := l.Leader()
		l.cfg.Log.Info("lease renewals reach etcd's leader again", zap.String("address", address))
	}
}

// markUnreachable uses the ordinary client until the next retry.
func (l *LeaderLease) markUnreachable(leader uint64) {
	l.useFallback(leader, "")
	now, s := time.Now(), &l.search
	if s.unreachable != leader {
		s.unreachable, s.since = leader, now
	}
	if now.Sub(s.since) < s.warnAfter {
		s.retryAt = now.Add(retry.Spread(fastRetry))
		return
	}
	s.retryAt = now.Add(retry.Spread(slowRetry))
	if !s.warned {
		s.warned = true
		l.cfg.Log.Warn("etcd's leader does not answer at any of its client addresses, so lease renewals use "+
			"other members, which is slow: make the addresses that etcd advertises reachable from this node",
			zap.String("leader", strconv.FormatUint(leader, 16)))
	}
}

// members returns the members of etcd, nil if etcd does not answer.
func (l *LeaderLease) members(ctx context.Context) []*pb.Member {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	resp, err := l.etcd.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil
	}
	return resp.Members
}

// addresses returns possible addresses of the leader in the order of preference: those that
// are advertised and configured, those that are advertised, and those that are configured,
// because advertised addresses may be unreachable from this node. All have the scheme of the
// configured ones.
func (l *LeaderLease) addresses(members []*pb.Member, leader uint64) []string {
	secure, err := l.cfg.secure()
	if err != nil {
		return nil
	}
	scheme := "http://"
	if secure {
		scheme = "https://"
	}
	var configured, advertised []string
	for _, ep := range l.cfg.Endpoints {
		configured = append(configured, scheme+hostPort(ep))
	}
	for _, m := range members {
		if m.GetID() != leader {
			continue
		}
		for _, u := range m.GetClientURLs() {
			if strings.HasPrefix(u, scheme) {
				advertised = append(advertised, scheme+hostPort(u))
			}
		}
	}
	both := slices.DeleteFunc(slices.Clone(configured), func(a string) bool { return !slices.Contains(advertised, a) })
	var all []string
	for _, a := range slices.Concat(both, advertised, configured) {
		if !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// dialLeader returns a client of the leader that st names, if that leader answers at address.
// From this node, an advertised address may lead to another machine or another cluster. moved
// is true if the member answers and is not the leader any more.
func (l *LeaderLease) dialLeader(ctx context.Context, address string, st *pb.StatusResponse) (c *clientv3.Client, moved bool) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	cfg := l.cfg
	cfg.Endpoints = []string{address}
	cfg.Log = etcdlog.AtLeast(cfg.Log, zap.ErrorLevel) // the ordinary client has already logged its warnings
	c, err := Dial(ctx, cfg)
	if err != nil {
		return nil, false
	}
	there := memberStatus(ctx, c)
	for range identityChecks - 1 {
		if again := memberStatus(ctx, c); again.GetHeader().GetMemberId() != there.GetHeader().GetMemberId() {
			there = nil // several members behind one address
		}
	}
	isMember := there != nil && there.GetHeader().GetClusterId() == st.GetHeader().GetClusterId() &&
		there.GetHeader().GetMemberId() == st.GetLeader()
	if isMember && leads(there, st.GetLeader()) {
		return c, false
	}
	_ = c.Close() // it served only status requests
	return nil, isMember
}

// leads reports whether st is the answer of member and names it as the leader.
func leads(st *pb.StatusResponse, member uint64) bool {
	return st != nil && st.GetHeader().GetMemberId() == member && st.GetLeader() == member
}

// memberStatus returns the status of a member of c, nil if none answers in time.
func memberStatus(ctx context.Context, c *clientv3.Client) *pb.StatusResponse {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	st, err := pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return nil
	}
	return st
}

// statusOfAny returns the status of a member that has a leader, nil if there is none. The
// ordinary client selects the members in turn.
func (l *LeaderLease) statusOfAny(ctx context.Context) *pb.StatusResponse {
	for range max(len(l.cfg.Endpoints), 1) {
		if st := memberStatus(ctx, l.etcd); st.GetLeader() != 0 {
			return st
		}
	}
	return nil
}
