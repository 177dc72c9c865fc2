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
)

// An edgeChecker checks each revision for the sessions whose requests start their streams. It
// shares no code with the service: it reads the keys as docs/ARCHITECTURE.md describes them.
type edgeChecker struct {
	ttl time.Duration

	mu       sync.Mutex
	sessions map[string]*edgeSession
	done     map[string]int // by event: how often it happened
}

// edgeSession is the state of one session at the newest revision.
type edgeSession struct {
	user     string
	stream   string // nonce of its running stream; "" for none
	nonces   map[string]bool
	put      time.Time   // of the last stream
	puts     []int64     // revisions
	ends     []edgeEnd   // those that may be on purpose
	left     bool        // its player has left since the last put
	stopping bool        // a stop, or a removal, may find that the stream has ended otherwise
	starts   []time.Time // when the start calls in progress began
	released time.Time   // earlier ends no longer keep the session from starting
}

// edgeEnd is the end of a stream by an action.
type edgeEnd struct {
	revision int64
	at       time.Time // zero if the end has no tombstone, so that only one node may have a bar
}

// edgeRecord is the part of a stored stream, or of a tombstone, that the checker reads.
type edgeRecord struct {
	Nonce   string `json:"n"`
	Session string `json:"s"`
	Via     string `json:"v"`
	Reason  string `json:"r"`
	Bar     string `json:"b"`
}

func newEdgeChecker(ttl time.Duration) *edgeChecker {
	return &edgeChecker{ttl: ttl, sessions: map[string]*edgeSession{}, done: map[string]int{}}
}

func (c *edgeChecker) session(name string) *edgeSession {
	s := c.sessions[name]
	if s == nil {
		s = &edgeSession{nonces: map[string]bool{}}
		c.sessions[name] = s
	}
	return s
}

// audit checks the newest revision, and returns what is wrong with it.
func (c *edgeChecker) audit(e *etcdsim.Etcd, cause etcdsim.Cause) (wrong []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	running := map[string]string{} // nonces by session
	for _, kv := range e.Locked("/p/users/") {
		var r edgeRecord
		if json.Unmarshal(kv.Value, &r) != nil || r.Via == "" {
			continue
		}
		if running[r.Session] != "" {
			wrong = append(wrong, r.Session+" has two streams")
		}
		running[r.Session] = r.Nonce
		c.session(r.Session).user = strings.Split(string(kv.Key), "/")[3]
	}
	tombstones := newTombstones(e.Locked("/p/ended/"), e.Revision())
	for name, s := range c.sessions {
		now := running[name]
		if s.stream != "" && s.stream != now {
			wrong = append(wrong, c.ended(name, s, tombstones[s.stream], now != "", e.Revision(), cause)...)
		}
		if now != "" && !s.nonces[now] {
			wrong = append(wrong, c.started(name, s, e.Revision())...)
			s.nonces[now] = true
		}
		s.stream = now
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

// ended checks how the stream of a session ended. continues means that the session has
// another one now.
func (c *edgeChecker) ended(
	name string, s *edgeSession, by edgeRecord, continues bool, revision int64, cause etcdsim.Cause,
) (wrong []string) {
	what := by.Reason
	if by.Bar == "" && s.stopping { // the node that was to end it may have a bar
		s.ends = append(s.ends, edgeEnd{revision: revision})
	}
	switch {
	case cause == etcdsim.Expired:
		what = "expired"
	case cause == etcdsim.Revoked:
		what = "revoked"
	case by.Reason == "": // it had expired; or etcd has just recovered, and had no lease for a tombstone
		what = "without a tombstone"
		s.ends = append(s.ends, edgeEnd{revision: revision})
	case continues:
		wrong = append(wrong, fmt.Sprintf("a start of %s has ended its own stream: %s", name, by.Reason))
	case by.Bar != "":
		s.ends = append(s.ends, edgeEnd{revision, time.Now()})
	case s.left:
		what = "left"
	default:
		wrong = append(wrong, fmt.Sprintf("the stream of %s has ended (%s) without a bar", name, by.Reason))
	}
	c.done["edge ended: "+what]++
	return wrong
}

// started checks that the session may have a new stream.
func (c *edgeChecker) started(name string, s *edgeSession, revision int64) (wrong []string) {
	if n := len(s.ends); n > 0 && s.ends[n-1].at.After(s.released) {
		if s.startedBefore(s.put) {
			c.done["edge: a start that began before"]++
		} else {
			wrong = append(wrong, fmt.Sprintf("%s started %v after its stream was ended, and its player was not quiet",
				name, time.Since(s.ends[n-1].at)))
		}
	}
	s.puts, s.put, s.left, s.stopping = append(s.puts, revision), time.Now(), false, false
	return wrong
}

// startedBefore reports whether a start call in progress began before a time. Such a call may
// have read the streams before one was put, and has no part in its end.
func (s *edgeSession) startedBefore(t time.Time) bool {
	for _, began := range s.starts {
		if !began.After(t) {
			return true
		}
	}
	return false
}

// starting records the begin of a start, and done its end. The write of a start that was not
// answered may be applied for as long as a write takes.
func (c *edgeChecker) starting(name string) (done func(error)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, began := c.session(name), time.Now()
	s.starts = append(s.starts, began)
	end := func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, t := range s.starts {
			if t.Equal(began) {
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

// mayBeBarred reports whether a stream of the session was ended on purpose, and no later one
// was put up to a revision.
func (c *edgeChecker) mayBeBarred(name string, applied int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(name)
	if len(s.ends) == 0 {
		return false
	}
	last := s.ends[len(s.ends)-1].revision
	for _, put := range s.puts {
		if put > last && put <= applied {
			return false
		}
	}
	return true
}

// endedLongAgo reports whether the last stream that was ended on purpose was so for longer
// than a bar lasts after the last request, including the time until every node has the bar.
func (c *edgeChecker) endedLongAgo(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(name)
	return len(s.ends) > 0 && time.Since(s.ends[len(s.ends)-1].at) > c.ttl/2+5*time.Second
}

// leave records that the player ends its stream itself.
func (c *edgeChecker) leave(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session(name).left = true
}

// stopping records that someone stops a stream of a user, or all of them.
func (c *edgeChecker) stopping(user string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.sessions {
		s.stopping = s.stopping || s.user == user
	}
}

// release records that the bars of ends before a time may end, because the player was quiet.
func (c *edgeChecker) release(name string, before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.session(name).released = before
}
