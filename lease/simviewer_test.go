package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"streamcount/internal/etcdsim"
)

// simViewer is one who watches, by turns, streams of one user through any node.
type simViewer struct {
	*sim
	user    string
	session string
	luck    *rand.Rand
	home    int // the node it keeps to, -1 for none
}

// simStream is what a viewer knows of a stream of his.
type simStream struct {
	id    string
	nonce nonce
	good  time.Time // the last answered renewal was sent
	alone bool      // it was admitted without etcd, and not yet seen there
}

func (s *sim) watch(i int) {
	v := &simViewer{
		sim: s, user: simUser(i % s.users), session: fmt.Sprint("tab", i),
		luck: rand.New(rand.NewPCG(s.seed, uint64(i)+10)), home: -1,
	}
	if s.outage == OutageAdmit {
		v.home = v.luck.IntN(len(s.nodes)) // others do not know of what it admits alone
	}
	for end := time.Now().Add(s.length); time.Now().Before(end); {
		if st := v.start(); st != nil {
			v.play(st, end)
		}
		time.Sleep(v.upTo(s.ttl / 2))
	}
}

func (v *simViewer) upTo(d time.Duration) time.Duration {
	return time.Duration(v.luck.Int64N(int64(d)))
}

func (v *simViewer) node() *Limiter {
	if v.home >= 0 {
		return v.nodes[v.home]
	}
	return v.nodes[v.luck.IntN(len(v.nodes))]
}

func (v *simViewer) start() *simStream {
	var req Request
	if v.luck.IntN(3) == 0 {
		req.Session = v.session
	}
	if v.luck.IntN(4) == 0 {
		req.OnLimit = ReplaceOldest
	}
	ctx := context.Background()
	if v.luck.IntN(10) == 0 { // who hangs up
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.upTo(200*time.Millisecond)+1)
		defer cancel()
	}
	asked, l := time.Now(), v.node()
	st, err := l.Start(ctx, v.user, req)
	switch {
	case errors.Is(err, ErrLimit):
		v.count("refused")
		if most := slices.Max(v.counts(v.user, asked)); most < v.limit && v.outage != OutageAdmit {
			v.fault("%s was refused with %d streams of %d", v.user, most, v.limit)
		}
		return nil
	case err != nil:
		v.count("failed")
		return nil
	}
	v.count("started")
	who, err := l.ids.open(v.user, st.Stream.ID)
	if err != nil {
		v.fault("%s: %v", st.Stream.ID, err)
	}
	out := &simStream{
		id: st.Stream.ID, nonce: who.nonce, good: st.Stream.ExpiresAt.Add(-v.ttl), alone: st.Stream.Degraded,
	}
	if out.good.Before(asked.Add(-v.ttl / 2)) { // its renewal may not have been answered
		v.fault("%s began with %v of %v", who.nonce, st.Stream.ExpiresAt.Sub(asked), v.ttl)
	}
	v.mu.Lock()
	p, there := v.puts[who.nonce]
	v.held[who.nonce] = true
	v.mu.Unlock()
	v.evicts(req, st, asked)
	v.tells(who.nonce, st)
	switch {
	case out.alone:
		v.count("admitted alone")
	case !there || p.at.Before(asked):
		v.fault("%s was told of a stream that etcd did not have meanwhile", v.user)
	case p.n != st.Count && !slices.Contains(v.counts(v.user, p.at), st.Count): // one whose answer was lost is told what is read later
		v.fault("%s was told of %d streams, and had %d", v.user, st.Count, p.n)
	}
	return out
}

// evicts holds an eviction against the cool-down: whose session was evicted himself may
// not evict anybody so soon.
func (v *simViewer) evicts(req Request, st Started, asked time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range st.Ended {
		if e.Reason != ReasonEvicted {
			continue
		}
		if own, ok := v.evicted[req.Session]; ok && v.calm() && req.Session != "" &&
			own.Before(asked) && time.Since(own) < v.nodes[0].cfg.Cooldown {
			v.faultLocked("%s evicted %v after it was evicted", req.Session, time.Since(own))
		}
		if e.Stream.Session != "" {
			v.evicted[e.Stream.Session] = time.Now()
		}
	}
}

// tells holds what a start says it has ended against what went for it: what it does not
// tell it took for lapsed.
func (v *simViewer) tells(n nonce, st Started) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range v.taken[n] {
		told := slices.ContainsFunc(st.Ended, func(e Ended) bool {
			who, err := v.nodes[0].ids.open(v.user, e.Stream.ID)
			return err == nil && who.nonce == t.nonce
		})
		if !told {
			v.faultLocked("%s of %s was given away as lapsed, %v after it was renewed", t.nonce, v.user, t.silent)
		}
	}
}

// calm reports whether every eviction can leave its mark in time.
func (v *simViewer) calm() bool { return v.lost == 0 && v.cuts == 0 && v.aways == 0 }

// play keeps a stream for a while. Some players die silently, some stop, and some go
// on with what is over.
func (v *simViewer) play(st *simStream, end time.Time) {
	for until := time.Now().Add(v.upTo(2 * v.ttl)); time.Now().Before(end) && time.Now().Before(until); {
		time.Sleep(v.ttl/6 + v.upTo(v.ttl/4))
		if !v.beat(st) {
			return
		}
	}
	switch v.luck.IntN(4) {
	case 0:
		v.count("died")
	case 1:
		v.stop(st, true)
	default:
		v.stop(st, false)
	}
}

// beat reports whether the stream goes on.
func (v *simViewer) beat(st *simStream) bool {
	sent := time.Now()
	s, err := v.node().Heartbeat(context.Background(), v.user, st.id)
	var ended *EndedError
	switch {
	case err == nil && s.Degraded:
		v.count("degraded")
		return true
	case err == nil:
		v.count("renewed")
		if s.ExpiresAt.Before(sent.Add(v.ttl * 3 / 4)) {
			v.fault("%s: a renewal that leaves %v of %v", st.id, s.ExpiresAt.Sub(sent), v.ttl)
		}
		st.good, st.alone = s.ExpiresAt.Add(-v.ttl), false
		return true
	case !errors.As(err, &ended):
		v.fault("heartbeat of %s: %v", st.id, err)
		return false
	}
	v.count("gone: " + string(ended.Reason))
	v.wentRightly(st, ended.Reason)
	return false
}

// wentRightly looks at how a stream went that its viewer did not stop: by another
// start, or because it had been silent.
func (v *simViewer) wentRightly(st *simStream, told Reason) {
	v.mu.Lock()
	why, gone := v.gone[st.nonce]
	v.mu.Unlock()
	silent := time.Since(st.good)
	switch {
	case !gone && st.alone && told == ReasonEvicted: // it never was in etcd
	case !gone:
		v.fault("%s of %s is called gone (%s), and is not", st.nonce, v.user, told)
	case why == etcdsim.Revoked:
		v.fault("%s of %s was revoked, %v after it was renewed (%s)", st.nonce, v.user, silent, told)
	case why == etcdsim.Expired && silent < v.ttl:
		v.fault("%s of %s ran out %v after it was renewed (%s)", st.nonce, v.user, silent, told)
	}
}

// stop ends a stream. Whatever it is asked afterwards, it is gone.
func (v *simViewer) stop(st *simStream, twice bool) {
	v.mu.Lock()
	delete(v.held, st.nonce)
	v.mu.Unlock()
	l := v.node()
	_, err := l.Stop(context.Background(), v.user, st.id)
	var ended *EndedError
	switch {
	case err == nil:
		v.count("stopped")
	case errors.As(err, &ended):
		v.wentRightly(st, ended.Reason)
		v.count("stop of what was gone")
	default:
		v.count("stop unknown")
		return
	}
	if s, err := l.Heartbeat(context.Background(), v.user, st.id); err == nil && !s.Degraded {
		v.fault("%s was said to be gone, and is answered as alive by the same node", st.nonce)
	}
	if st.alone {
		return // another node may not know
	}
	for range 3 {
		if !twice {
			return
		}
		time.Sleep(viewStale + time.Second + v.upTo(v.ttl/2)) // until then a node may be that far behind
		if s, err := v.node().Heartbeat(context.Background(), v.user, st.id); err == nil && !s.Degraded {
			v.fault("%s was stopped and is answered as alive", st.nonce)
		}
		if _, err := v.node().Stop(context.Background(), v.user, st.id); err == nil {
			v.fault("%s was stopped a second time", st.nonce)
		}
	}
}
