package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"streamcount/internal/testing/etcdsim"
	"streamcount/internal/testing/limitcheck"
	"streamcount/lease/internal/replica"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// A simViewer starts streams of one user, one after the other, on any node.
type simViewer struct {
	*sim
	user    string
	session string
	rng     *rand.Rand
	home    int    // the only node that it calls, or -1
	batched bool   // its heartbeats are in batches with those of other viewers
	last    string // the id of its last stream, which may be live
}

// A simStream is what a viewer has received about a stream.
type simStream struct {
	id          string
	nonce       streamid.Nonce
	renewed     time.Time // when the last answered renewal was sent
	provisional bool      // it was admitted without etcd, and is not written yet
}

func (s *sim) watch(i int) {
	v := &simViewer{
		sim: s, user: simUser(i % s.users), session: fmt.Sprint("tab", i),
		rng: rand.New(rand.NewPCG(s.seed, uint64(i)+10)), home: -1,
	}
	if s.outage == OutageAdmit {
		v.home = v.rng.IntN(len(s.nodes)) // other nodes do not have its provisional streams
	}
	v.batched = v.rng.IntN(2) == 0
	for end := time.Now().Add(s.length); time.Now().Before(end); {
		if st := v.start(); st != nil {
			v.play(st, end)
		}
		time.Sleep(v.upTo(s.ttl / 2))
	}
}

func (v *simViewer) upTo(d time.Duration) time.Duration {
	return time.Duration(v.rng.Int64N(int64(d)))
}

func (v *simViewer) node() *Limiter {
	if v.home >= 0 {
		return v.limiterOf(v.home)
	}
	return v.limiterOf(v.rng.IntN(len(v.nodes)))
}

func (v *simViewer) start() *simStream {
	var req Request
	if v.rng.IntN(3) == 0 || v.plans.hasPlan(v.user) && v.rng.IntN(2) == 0 {
		req.Session = v.session
	}
	if v.rng.IntN(4) == 0 || v.plans.hasPlan(v.user) && v.rng.IntN(2) == 0 {
		req.OnLimit = policy.ReplaceOldest
	}
	if v.last != "" && v.rng.IntN(6) == 0 {
		req.Replaces = []string{v.last}
	}
	as := limitcheck.RandomAttributes(v.rng)
	describe(&req, as)
	ctx := context.Background()
	if v.rng.IntN(10) == 0 { // the client disconnects
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.upTo(200*time.Millisecond)+1)
		defer cancel()
	}
	asked, l := time.Now(), v.node()
	st, err := l.Start(ctx, v.user, req)
	switch {
	case errors.Is(err, ErrLimit):
		v.count("refused")
		if v.plans.hasPlan(v.user) {
			if v.outage != OutageAdmit && !v.mayRefuse(v.user, asked, v.request(req, as)) {
				v.fault("%s was refused, and at each moment the limits held: %+v", v.user, req)
			}
			return nil
		}
		if n := slices.Max(v.counts(v.user, asked)); n < v.limit && v.outage != OutageAdmit {
			v.fault("%s was refused with %d streams, the limit is %d", v.user, n, v.limit)
		}
		return nil
	case err != nil:
		v.count("failed")
		return nil
	}
	v.count("started")
	who, err := l.ids.Parse(v.user, st.Stream.ID)
	if err != nil {
		v.fault("%s: %v", st.Stream.ID, err)
	}
	out := &simStream{
		id: st.Stream.ID, nonce: who.Nonce, renewed: st.Stream.ExpiresAt.Add(-v.ttl), provisional: st.Stream.Degraded,
	}
	if out.renewed.Before(asked.Add(-v.ttl / 2)) { // the renewal of its lease may not have been answered
		v.fault("%s began with %v of its TTL of %v", who.Nonce, st.Stream.ExpiresAt.Sub(asked), v.ttl)
	}
	v.last = out.id
	v.mu.Lock()
	p, there := v.puts[who.Nonce]
	v.held[who.Nonce] = true
	v.mu.Unlock()
	v.checkCooldown(req, st, asked)
	v.checkEnded(who.Nonce, st)
	switch {
	case out.provisional:
		v.count("admitted provisionally")
	case !there || p.at.Before(asked):
		v.fault("%s received a stream that etcd did not have during the call", v.user)
	case p.n != st.Count && !slices.Contains(v.counts(v.user, p.at), st.Count): // if etcd's answer was lost, the count is read later
		v.fault("%s received a count of %d streams, and had %d", v.user, st.Count, p.n)
	}
	return out
}

// checkCooldown checks that a session which was evicted does not evict a stream before its
// cool-down is over.
func (v *simViewer) checkCooldown(req Request, st Started, asked time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, e := range st.Ended {
		if e.Reason != policy.ReasonEvicted {
			continue
		}
		if own, ok := v.evicted[req.Session]; ok && v.calm() && req.Session != "" &&
			own.Before(asked) && time.Since(own) < v.cooldown {
			v.faultLocked("%s evicted %v after it was evicted", req.Session, time.Since(own))
		}
		if e.Stream.Session != "" {
			v.evicted[e.Stream.Session] = time.Now()
		}
	}
}

// checkEnded checks that a start reports every recently renewed stream that it ended. A stream
// that it does not report was treated as expired.
func (v *simViewer) checkEnded(n streamid.Nonce, st Started) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, t := range v.taken[n] {
		reported := slices.ContainsFunc(st.Ended, func(e Ended) bool {
			who, err := v.limiterOf(0).ids.Parse(v.user, e.Stream.ID)
			return err == nil && who.Nonce == t.nonce
		})
		if !reported {
			v.faultLocked("the slot of %s of %s was taken over as expired, %v after it was renewed", t.nonce, v.user, t.silent)
		}
	}
}

// play renews a stream for a while. Then the viewer crashes or stops the stream, and may
// continue to use the ended stream.
func (v *simViewer) play(st *simStream, end time.Time) {
	for until := time.Now().Add(v.upTo(2 * v.ttl)); time.Now().Before(end) && time.Now().Before(until); {
		time.Sleep(v.ttl/6 + v.upTo(v.ttl/4))
		if !v.heartbeat(st) {
			return
		}
	}
	if v.plans.hasPlan(v.user) && v.rng.IntN(2) == 0 { // its session may continue with other attributes
		v.count("changed channel")
		return
	}
	switch v.rng.IntN(4) {
	case 0:
		v.count("crashed")
	case 1:
		v.stop(st, true)
	default:
		v.stop(st, false)
	}
}

// heartbeat renews the stream, and reports whether it continues.
func (v *simViewer) heartbeat(st *simStream) bool {
	var sent time.Time
	var r HeartbeatResult
	if v.batched {
		sent, r = v.heartbeatInBatch(st)
	} else {
		sent = time.Now()
		r = NewHeartbeatResult(v.node().Heartbeat(context.Background(), v.user, st.id))
	}
	var ended *EndedError
	switch {
	case r.Err == nil && r.Degraded:
		v.count("degraded")
		return true
	case r.Err == nil:
		v.count("renewed")
		v.checkRenewal(st, sent, r)
		st.renewed, st.provisional = r.ExpiresAt.Add(-v.ttl), false
		return true
	case !errors.As(r.Err, &ended):
		v.fault("heartbeat of %s: %v", st.id, r.Err)
		return false
	}
	v.count("ended: " + string(ended.Reason))
	v.checkEnding(st, ended.Reason)
	v.noteEnded(st)
	return false
}

// checkRenewal checks that an answered heartbeat leaves three quarters of the TTL, and
// that etcd has renewed the lease so that it does not expire before the time in the answer.
func (v *simViewer) checkRenewal(st *simStream, sent time.Time, r HeartbeatResult) {
	if r.ExpiresAt.Before(sent.Add(v.ttl * 3 / 4)) {
		v.fault("%s: a renewal that leaves %v of its TTL of %v", st.id, r.ExpiresAt.Sub(sent), v.ttl)
	}
	v.mu.Lock()
	lease := v.leases[st.nonce]
	v.mu.Unlock()
	renewed := v.etcd.LastRenewal(lease)
	if !renewed.IsZero() && r.ExpiresAt.After(renewed.Add(v.ttl)) {
		v.fault("%s is answered as alive for %v, and its lease expires %v earlier", st.id,
			r.ExpiresAt.Sub(sent), r.ExpiresAt.Sub(renewed.Add(v.ttl)))
	}
}

// checkEnding checks why a stream ended that its viewer did not stop. Only another start or
// its expiry may end it.
func (v *simViewer) checkEnding(st *simStream, reason policy.Reason) {
	v.mu.Lock()
	cause, gone := v.gone[st.nonce]
	v.mu.Unlock()
	silent := time.Since(st.renewed)
	switch {
	case !gone && st.provisional && reason == policy.ReasonEvicted: // it was never written to etcd
	case !gone:
		v.fault("%s of %s is reported as ended (%s), and is not", st.nonce, v.user, reason)
	case cause == etcdsim.Revoked:
		v.fault("%s of %s was revoked, %v after it was renewed (%s)", st.nonce, v.user, silent, reason)
	case cause == etcdsim.Expired && silent < v.ttl:
		v.fault("%s of %s expired %v after it was renewed (%s)", st.nonce, v.user, silent, reason)
	}
}

// stop ends a stream, and checks that it stays ended.
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
		v.noteEnded(st)
	case errors.As(err, &ended):
		v.checkEnding(st, ended.Reason)
		v.count("stop of an ended stream")
	default:
		v.count("stop of unknown outcome")
		if _, err = l.Heartbeat(context.Background(), v.user, st.id); errors.As(err, &ended) {
			v.checkEnding(st, ended.Reason)
			v.count("ended after a stop of unknown outcome")
		}
		return
	}
	if s, err := l.Heartbeat(context.Background(), v.user, st.id); err == nil && !s.Degraded {
		v.fault("%s was reported as ended, and then as alive by the same node", st.nonce)
	}
	if st.provisional {
		return // other nodes may not have it
	}
	for range 3 {
		if !twice {
			return
		}
		time.Sleep(replica.MaxProgressAge + time.Second + v.upTo(v.ttl/2)) // the maximum delay of a node's replica
		if s, err := v.node().Heartbeat(context.Background(), v.user, st.id); err == nil && !s.Degraded {
			v.fault("%s was stopped and is answered as alive", st.nonce)
		}
		if _, err := v.node().Stop(context.Background(), v.user, st.id); err == nil {
			v.fault("%s was stopped a second time", st.nonce)
		}
	}
}
