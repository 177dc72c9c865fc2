package cluster

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	lookEvery = time.Second            // at the leader, while all is well
	hurryWait = 200 * time.Millisecond // between looks while it is not
	pokeWait  = 20 * time.Millisecond  // so that a storm of broken streams is one poke
	// maxHurry bounds the looks in a hurry: an election takes a few seconds, an
	// etcd that is away may take hours.
	maxHurry = 50
	// maxMisses is how often in a row a leader may fail to answer before it is
	// left, although the others go on following it.
	maxMisses   = 3
	lookTimeout = time.Second
	dialTimeout = 2 * time.Second
	// A leader that does not answer at any address may just have died: until
	// patience has run out it is tried again soon and without a word.
	retrySoon = 2 * time.Second
	retryLate = 30 * time.Second
	patience  = 10 * time.Second
)

// search is what Run remembers from one look to the next.
type search struct {
	looked  time.Time // when the last look began
	hurried int       // looks in a row that did not settle the matter
	misses  int       // of the leader that the way leads to, in a row

	unreachable uint64    // a leader that did not answer at any address
	since       time.Time // when it was found so
	retryAt     time.Time // when to try again
	complained  bool      // of such a leader, since one was reached
	patience    time.Duration
}

// Run follows the leader until ctx ends. While etcd is away it goes on looking;
// that is never an error.
func (l *LeaderLease) Run(ctx context.Context) error {
	defer l.goOrdinary(0, "")
	for l.wait(ctx, l.look(ctx)) {
	}
	return nil
}

// wait returns true when it is time for the next look, after d or a poke.
func (l *LeaderLease) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.pokes:
		return sleep(ctx, max(pokeWait, hurryWait-time.Since(l.search.looked)))
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// look finds out whether the way still leads to the leader, finds a better one
// if not, and returns when to look again.
func (l *LeaderLease) look(ctx context.Context) time.Duration {
	l.search.looked = time.Now()
	way, to := l.current()
	if way.client != nil {
		if leads(ask(ctx, way.client), to) {
			l.leaveDetour()
			return l.settled()
		}
		l.search.misses++
	}
	st := l.askAny(ctx)
	switch {
	case st == nil: // an election, or etcd is away
		return l.hurry()
	case way.client == nil || st.GetLeader() != to:
		return l.seek(ctx, st)
	case l.search.misses < maxMisses: // it may answer next time
		return l.hurry()
	}
	l.giveUp(to)
	return l.settled()
}

// current returns the way and the leader last heard of.
func (l *LeaderLease) current() (way *route, leader uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.way, l.leader
}

func (l *LeaderLease) settled() time.Duration {
	l.search.hurried, l.search.misses = 0, 0
	return jitter(lookEvery)
}

func (l *LeaderLease) hurry() time.Duration {
	if l.search.hurried++; l.search.hurried > maxHurry {
		return jitter(lookEvery)
	}
	return jitter(hurryWait)
}

// seek looks for a way to the leader that st names.
func (l *LeaderLease) seek(ctx context.Context, st *pb.StatusResponse) time.Duration {
	leader := st.GetLeader()
	if leader == l.search.unreachable && time.Now().Before(l.search.retryAt) {
		l.goOrdinary(leader, "")
		return l.settled()
	}
	members := l.members(ctx)
	if l.speaksToLeader(st, members) {
		l.goOrdinary(leader, l.cfg.Endpoints[0])
		l.reached()
		return l.settled()
	}
	for _, address := range l.addresses(members, leader) {
		c, moved := l.try(ctx, address, st)
		switch {
		case c != nil:
			l.goDirect(c, leader, address)
			l.reached()
			return l.settled()
		case moved, ctx.Err() != nil:
			return l.hurry()
		}
		l.goOrdinary(leader, "") // a deposed leader may hold its streams for long
	}
	l.giveUp(leader)
	return l.settled()
}

// speaksToLeader tells whether the ordinary client does: the cluster has one
// member, or the client has one endpoint and the leader answers there. Streams
// that it has opened to that leader may stay.
func (l *LeaderLease) speaksToLeader(st *pb.StatusResponse, members []*pb.Member) bool {
	return len(members) == 1 || (len(l.cfg.Endpoints) == 1 && leads(st, st.GetLeader()))
}

func (l *LeaderLease) reached() {
	l.search.unreachable = 0
	if l.search.complained {
		l.search.complained = false
		_, address := l.Leader()
		l.cfg.Log.Info("lease renewals reach etcd's leader again", zap.String("address", address))
	}
}

// giveUp goes by the ordinary client for a while.
func (l *LeaderLease) giveUp(leader uint64) {
	l.goOrdinary(leader, "")
	now, s := time.Now(), &l.search
	if s.unreachable != leader {
		s.unreachable, s.since = leader, now
	}
	if now.Sub(s.since) < s.patience {
		s.retryAt = now.Add(jitter(retrySoon))
		return
	}
	s.retryAt = now.Add(jitter(retryLate))
	if !s.complained {
		s.complained = true
		l.cfg.Log.Warn("etcd's leader does not answer at any of its client addresses, so lease renewals go "+
			"through the other members, which is slow: make the addresses that etcd advertises reachable from here",
			zap.String("leader", strconv.FormatUint(leader, 16)))
	}
}

// members returns nil if etcd does not tell.
func (l *LeaderLease) members(ctx context.Context) []*pb.Member {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	resp, err := l.etcd.MemberList(ctx, clientv3.WithSerializable())
	if err != nil {
		return nil
	}
	return resp.Members
}

// addresses returns where the leader may be, the likeliest first: what it
// advertises and is also configured here, what it advertises, and the other
// configured ones, since it may advertise what means nothing from here. Only
// what is as secure as the configured ones.
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

// try returns a client of the leader that st names if that is what answers at
// address. An advertised address may lead somewhere else from here: to this
// machine, or to another cluster. moved is true if the member answers that it
// does not lead.
func (l *LeaderLease) try(ctx context.Context, address string, st *pb.StatusResponse) (c *clientv3.Client, moved bool) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	cfg := l.cfg
	cfg.Endpoints = []string{address}
	cfg.Log = atLeast(cfg.Log, zap.ErrorLevel) // its warnings were given when the ordinary client was made
	c, err := Dial(ctx, cfg)
	if err != nil {
		return nil, false
	}
	there := ask(ctx, c)
	isMember := there != nil && there.GetHeader().GetClusterId() == st.GetHeader().GetClusterId() &&
		there.GetHeader().GetMemberId() == st.GetLeader()
	if isMember && leads(there, st.GetLeader()) {
		return c, false
	}
	_ = c.Close() // nothing was asked of it that counts
	return nil, isMember
}

// leads tells whether st is the answer of a member that takes itself for the
// leader.
func leads(st *pb.StatusResponse, member uint64) bool {
	return st != nil && st.GetHeader().GetMemberId() == member && st.GetLeader() == member
}

// ask returns nil if nobody answers in time.
func ask(ctx context.Context, c *clientv3.Client) *pb.StatusResponse {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	st, err := pb.NewMaintenanceClient(c.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return nil
	}
	return st
}

// askAny asks one member after the other, as the ordinary client comes to
// them, for one that knows a leader. It returns nil if none does.
func (l *LeaderLease) askAny(ctx context.Context) *pb.StatusResponse {
	for range max(len(l.cfg.Endpoints), 1) {
		if st := ask(ctx, l.etcd); st.GetLeader() != 0 {
			return st
		}
	}
	return nil
}

// jitter returns d, a tenth more or less, so that the nodes of a cluster do not
// act in step.
func jitter(d time.Duration) time.Duration {
	return d*9/10 + rand.N(d/5+1)
}
