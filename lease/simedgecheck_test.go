package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/internal/testing/etcdsim"
	"streamcount/lease/policy"
)

// An edgeChecker checks each revision, and each answer, for the sessions whose requests start
// their streams. It shares no code with the service: it reads the keys as docs/ARCHITECTURE.md
// describes them.
type edgeChecker struct {
	simConfig

	mu       sync.Mutex
	sessions map[edgeKey]*edgeSession
	actions  map[edgeAction]int     // calls that may end streams: in progress, or of unknown outcome
	streams  map[string]edgeKey     // by nonce
	current  map[*Limiter]time.Time // when the replica of a node was first current
	done     map[string]int         // by event: how often it happened
}

// edgeKey is a session. Sessions of different users may have the same name.
type edgeKey struct{ user, session string }

// An edgeAction is a kind of calls that may end the stream of a session, or those of all
// sessions of its user if the session is "".
type edgeAction struct {
	what string
	edgeKey
}

// edgeSession is the state of one session at the newest revision.
type edgeSession struct {
	stream  edgeStream       // the running one, or zero
	over    map[string]int64 // by nonce: the revision at which a stream ended
	puts    []edgePut        // all streams
	ends    []edgeEnd        // those after which a node may have a bar
	failed  []edgeEnd        // tombstones with a bar of decisions that failed, which a node that starts later may take as valid
	starts  []*edgeStart     // implicit ones in progress
	nodes   map[*Limiter]*edgeNode
	recent  []string  // the last changes
	allowed time.Time // when a node last allowed a request and kept the newest stream alive
}

// edgeStream is a stream, as etcd has it.
type edgeStream struct {
	edgeRecord
	lease int64
}

// edgeRecord is the part of a stored stream, or of a tombstone, that the checker reads.
type edgeRecord struct {
	Nonce   string `json:"n"`
	Session string `json:"s"`
	Via     string `json:"v"`
	Reason  string `json:"r"`
	Bar     string `json:"b"`
}

// edgeEnd is the end of a stream by an action.
type edgeEnd struct {
	revision int64
	reason   string    // "" for any
	at       time.Time // zero if there is no tombstone with a bar, so that at most one node has a bar
}

// edgePut is the begin of a stream.
type edgePut struct {
	revision int64
	at       time.Time
}

// edgeStart is an implicit start in progress.
type edgeStart struct {
	began time.Time
	node  *Limiter
}

func newEdgeChecker(cfg simConfig) *edgeChecker {
	return &edgeChecker{
		simConfig: cfg, sessions: map[edgeKey]*edgeSession{}, actions: map[edgeAction]int{}, streams: map[string]edgeKey{}, current: map[*Limiter]time.Time{},
		done: map[string]int{},
	}
}

func (c *edgeChecker) session(key edgeKey) *edgeSession {
	s := c.sessions[key]
	if s == nil {
		s = &edgeSession{over: map[string]int64{}, nodes: map[*Limiter]*edgeNode{}}
		c.sessions[key] = s
	}
	return s
}

// audit checks the newest revision, and returns what is wrong with it.
func (c *edgeChecker) audit(e *etcdsim.Etcd, cause etcdsim.Cause) (wrong []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	running := map[edgeKey]edgeStream{}
	for _, kv := range e.Locked("/p/users/") {
		var r edgeRecord
		if json.Unmarshal(kv.Value, &r) != nil || !strings.HasPrefix(r.Session, edgeSessionPrefix) {
			continue
		}
		key := edgeKey{strings.Split(string(kv.Key), "/")[3], r.Session}
		if running[key].Nonce != "" {
			wrong = append(wrong, fmt.Sprint(key, " has two streams"))
		}
		running[key] = edgeStream{r, kv.Lease}
		c.session(key)
	}
	tombstones := newTombstones(e.Locked("/p/ended/"), e.Revision())
	for key, s := range c.sessions {
		now := running[key]
		if s.stream.Nonce != "" && s.stream.Nonce != now.Nonce {
			s.over[s.stream.Nonce] = e.Revision()
			for _, problem := range c.ended(key, s, tombstones[s.stream.Nonce], now.Nonce != "", e, cause) {
				wrong = append(wrong, fmt.Sprintf("the stream of %s: %s", key, problem))
			}
		}
		if now.Nonce != "" && now.Nonce != s.stream.Nonce {
			wrong = append(wrong, c.started(key, s, now, e.Revision())...)
		}
		s.stream = now
	}
	for nonce, t := range tombstones {
		s := c.sessions[c.streams[nonce]]
		if s != nil && t.Bar != "" && s.over[nonce] != e.Revision() {
			s.failed = append(s.failed, edgeEnd{e.Revision(), t.Reason, time.Now()})
		}
	}
	return wrong
}

// newTombstones returns the tombstones that were put at a revision, by nonce.
func newTombstones(kvs []*mvccpb.KeyValue, revision int64) map[string]edgeRecord {
	out := map[string]edgeRecord{}
	for _, kv := range kvs {
		var all []edgeRecord
		if kv.ModRevision != revision || json.Unmarshal(kv.Value, &all) != nil {
			continue
		}
		for _, r := range all {
			out[r.Nonce] = r
		}
	}
	return out
}

// ended checks how the stream of a session ended. continues means that the session has another
// one now.
func (c *edgeChecker) ended(
	key edgeKey, s *edgeSession, by edgeRecord, continues bool, e *etcdsim.Etcd, cause etcdsim.Cause,
) (wrong []string) {
	fault := func(is bool, format string, args ...any) {
		if is {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	what, implicit, renewed := by.Reason, s.stream.Via != "", time.Since(e.Renewed(s.stream.lease))
	stopped := c.may("stop", key)
	maybe := stopped && implicit // a stop that finds that the stream has ended otherwise may set a bar on its node
	switch {
	case cause == etcdsim.Expired:
		what = "expired"
		fault(c.calm() && time.Since(s.allowed) < c.ttl/2, "it has expired %v after a request of its session", time.Since(s.allowed))
	case cause == etcdsim.Revoked:
		what = "revoked"
		fault(c.calm(), "it was revoked without a failure of etcd")
	case by.Reason == "" && renewed >= c.ttl:
		what, maybe = "expired, and its slot was taken", maybe || !c.calm()
	case by.Reason == "": // just after an outage etcd may have no lease for a tombstone
		what, maybe = "without a tombstone", implicit && !continues
		fault(c.calm(), "it has ended without a tombstone %v after it was renewed", renewed)
	case continues:
		what = "taken over"
		fault(!c.may("take over", key), "a start of its own session has ended it: %s", by.Reason)
		fault(by.Bar != "", "its session continues and has a bar")
	case !implicit:
		what = "explicit"
		fault(by.Bar != "", "an explicit one has a bar")
	case by.Reason == string(policy.ReasonStopped) && by.Bar == "":
		what = "left"
		fault(!c.may("leave", key), "it was stopped without a bar, and its player has not left")
	case by.Bar == "":
		fault(true, "it has ended (%s) without a bar", by.Reason)
	case by.Reason == string(policy.ReasonStopped):
		fault(!stopped, "it was stopped with a bar, and nobody has stopped it")
	case by.Reason == string(policy.ReasonRemoved):
		fault(!c.may("remove", key), "nobody has removed it")
	}
	switch {
	case by.Bar != "":
		s.ends = append(s.ends, edgeEnd{e.Revision(), by.Reason, time.Now()})
	case maybe:
		s.ends = append(s.ends, edgeEnd{revision: e.Revision()})
	}
	c.done["edge ended: "+what]++
	s.record(e.Revision(), fmt.Sprintf("%s (%s, bar %q)", what, s.stream.Nonce, by.Bar))
	return wrong
}

// started checks that the session may have a new stream.
func (c *edgeChecker) started(key edgeKey, s *edgeSession, now edgeStream, revision int64) (wrong []string) {
	if end := s.barred(); end != nil && now.Via != "" {
		switch {
		case s.startedBefore(s.puts[len(s.puts)-1].at):
			c.done["edge: a start that began before"]++
		case !c.mayStart(s, end):
			wrong = append(wrong, fmt.Sprintf("%s has started a stream %v after its last one was ended (%s), and no node may have let it",
				key, time.Since(end.at), end.reason))
		}
	}
	c.streams[now.Nonce] = key
	s.record(revision, fmt.Sprintf("started (%s, via %q)", now.Nonce, now.Via))
	s.puts, s.allowed = append(s.puts, edgePut{revision, time.Now()}), time.Time{}
	return wrong
}

// record adds a change to those that faults report.
func (s *edgeSession) record(revision int64, what string) {
	s.recent = append(s.recent[max(0, len(s.recent)-7):], fmt.Sprintf("%v revision %d %s", time.Since(simBegin), revision, what))
}

// barred returns the end of the session's newest stream, if it has a tombstone with a bar.
func (s *edgeSession) barred() *edgeEnd {
	if len(s.ends) == 0 || len(s.puts) == 0 {
		return nil
	}
	end := &s.ends[len(s.ends)-1]
	if end.at.IsZero() || s.puts[len(s.puts)-1].revision > end.revision {
		return nil
	}
	return end
}

// startedBefore reports whether an implicit start in progress began before a time. Such a start may
// have read the streams before one was put, and has no part in its end.
func (s *edgeSession) startedBefore(t time.Time) bool {
	for _, start := range s.starts {
		if !start.began.After(t) {
			return true
		}
	}
	return false
}

// starting records the begin of an implicit start, and done its end. The write of a start that
// was not answered may be applied for as long as a write takes.
func (c *edgeChecker) starting(key edgeKey, l *Limiter) (done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, start := c.session(key), &edgeStart{time.Now(), l}
	s.starts = append(s.starts, start)
	end := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, other := range s.starts {
			if other == start {
				s.starts = append(s.starts[:i], s.starts[i+1:]...)
				return
			}
		}
	}
	return func(err error) {
		if errors.Is(err, ErrUnavailable) {
			time.AfterFunc(4*time.Second, end)
			return
		}
		end()
	}
}

// doing records that a call has begun which may end a stream, and done that it has returned. If its
// outcome is unknown, the node may repeat it, and the checker takes it as in progress.
func (c *edgeChecker) doing(what, user, session string) (done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := edgeAction{what, edgeKey{user, session}}
	c.actions[a]++
	return func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !errors.Is(err, ErrUnavailable) {
			c.actions[a]--
		}
	}
}

// may reports whether a call of a kind may end the stream of a session now.
func (c *edgeChecker) may(what string, key edgeKey) bool {
	return c.actions[edgeAction{what, key}] > 0 || c.actions[edgeAction{what, edgeKey{user: key.user}}] > 0
}
